"""An engine that generates a given answer, so that tests of generations need no process and decide when it dies."""

import threading
from collections.abc import Callable, Mapping
from typing import Any, cast

from shared.jobs.models import Job, Status
from shared.models.catalogue import ECHO, ModelEntry
from shared.sessions.store import Sessions
from workers.gpu.engine.messages import LOWEST_LOGPROB, FinishReason, GenerationRequest, StepOutput, TokenLogprobs
from workers.gpu.engine_client.engine_client import EngineClient
from workers.gpu.generation import GenerationHandler
from workers.gpu.tokenization import TextCodec

ENTRY = ModelEntry(name="echo", url="echo:", engine=ECHO)


class ScriptedEngine:
    """Generates the bytes of ``answer``, from a thread of its own as the engine's supervisor does.

    ``step_size`` returns how many tokens the next step has. After ``lifetime`` steps the engine dies; otherwise it ends with ``reason``.
    Without ``has_logprobs`` it ignores that a request asks for them.
    """

    def __init__(
        self,
        answer: str,
        step_size: Callable[[], int],
        *,
        lifetime: int | None = None,
        reason: FinishReason = "stop",
        has_logprobs: bool = True,
    ) -> None:
        self._answer, self._step_size, self._lifetime, self._reason = answer.encode(), step_size, lifetime, reason
        self._has_logprobs = has_logprobs
        self.requests: list[GenerationRequest] = []
        self.cancelled: list[str] = []
        self.on_step: Callable[[StepOutput], None] = lambda step: None

    def submit_request(self, request: GenerationRequest, *, timeout: float) -> None:
        self.requests.append(request)
        threading.Thread(target=self._run, args=[request], daemon=True).start()

    def cancel_request(self, id: str) -> None:
        self.cancelled.append(id)

    def _run(self, request: GenerationRequest) -> None:
        if self._has_logprobs and request.prompt_logprobs is not None:
            for id in request.prompt[1:]:
                self.on_step(StepOutput([], [], prompt_logprobs=[(request.id, [entry(id)])]))
        rest = list(self._answer[request.generated_tokens :])
        is_cut = len(rest) > request.max_new_tokens
        rest, steps = rest[: request.max_new_tokens], 0
        while rest and steps != self._lifetime:
            count = self._step_size()
            new, rest = rest[:count], rest[count:]
            entries = [(request.id, [entry(id) for id in new])] if self._has_logprobs and request.logprobs is not None else []
            self.on_step(StepOutput([(request.id, new)], [], logprobs=entries))
            steps += 1
        reason: FinishReason = "lost" if rest else "length" if is_cut else self._reason
        self.on_step(StepOutput([], [(request.id, reason, "")]))


def entry(id: int) -> TokenLogprobs:
    """The log-probabilities of a token: its own, and those of the two most likely tokens."""
    return id, -float(id), [(id, -float(id)), (0, LOWEST_LOGPROB)]


def handler_of(engine: ScriptedEngine, entry: ModelEntry = ENTRY) -> GenerationHandler:
    """A handler whose jobs run on this engine, which replaces the entry's engine."""
    handler = GenerationHandler(entry, TextCodec(ENTRY), cast(EngineClient, engine), cast(Sessions, None))
    engine.on_step = handler.on_step
    return handler


def generation_job(spec: Mapping[str, Any], **fields: Any) -> Job:
    """A claimed job with this spec."""
    times = {"created_at": 0, "expires_at": 0, "phase_at": 0}
    record = {"id": "job_1", "kind": "generate", "owner": "me", "queue": "gpu.echo", "phase": "", "attempt": 1}
    return Job(**{**times, **record, "status": Status.IN_PROGRESS, "spec": spec, **fields})
