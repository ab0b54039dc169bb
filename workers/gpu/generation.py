"""Generation jobs: from a job's spec to tokens, and from tokens to its result.

All running generations share one engine. Its supervisor thread delivers every step here, where tokens become text, stops are
found, and clients' events are sent. The thread of each job sleeps from the request to its end.
"""

import threading
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from shared.errors import EngineFault, JobFailure, NanLogits, NotFound, OutOfMemory, PromptTooLong
from shared.jobs.models import Job
from shared.models.catalogue import ModelEntry
from shared.sessions.store import Sessions
from workers.gpu.engine.messages import FinishReason, GenerationRequest, StepOutput
from workers.gpu.engine_client.engine_client import EngineClient
from workers.gpu.tokenization import TextCodec
from workers.rag_prompt import Passage, RagPrompt, build_rag_prompt
from workers.runtime.attempt import Attempt, Result

Message = dict[str, str]

ENGINE_LOAD_SECONDS = 600.0


class Generation:
    """One request to the engine, and the text that it has generated."""

    def __init__(self, attempt: Attempt, codec: TextCodec, stop: Sequence[str], *, is_chat: bool) -> None:
        self.id = f"{attempt.job.id}/{attempt.job.attempt}"
        self._attempt = attempt
        self._detokenizer = codec.make_detokenizer(stop, is_chat=is_chat)
        self._is_chat = is_chat
        self._held_space = ""
        self._pieces: list[str] = []
        self.tokens = 0
        self.reason: FinishReason | None = None
        self.detail = ""
        self.finished = threading.Event()

    @property
    def text(self) -> str:
        """What has been generated so far."""
        return "".join(self._pieces)

    def add_tokens(self, ids: list[int]) -> bool:
        """Add new tokens; return True if a stop text ended the generation."""
        if self.finished.is_set():
            return False
        piece, stopped = self._detokenizer.add_tokens(ids)
        self.tokens += len(ids)
        self._send(piece)
        if stopped:
            self._set_finished("stop", "")
        return stopped

    def end(self, reason: FinishReason, detail: str) -> None:
        """End the generation, because the engine has."""
        if not self.finished.is_set():
            self._send(self._detokenizer.flush())
            self._set_finished("stop" if self._detokenizer.stopped else reason, detail)

    def _send(self, piece: str) -> None:
        if self._is_chat:
            # Many models end an answer with white space, so it is held back until something follows.
            held = f"{self._held_space}{piece}"
            piece = held.rstrip()
            self._held_space = held[len(piece) :]
        if piece:
            self._pieces.append(piece)
            self._attempt.send_text(piece)

    def _set_finished(self, reason: FinishReason, detail: str) -> None:
        self.reason, self.detail = reason, detail
        self.finished.set()


class GenerationHandler:
    """Runs generation jobs on one engine."""

    def __init__(self, entry: ModelEntry, codec: TextCodec, engine: EngineClient, sessions: Sessions) -> None:
        self._entry = entry
        self._codec = codec
        self._engine = engine
        self._sessions = sessions
        self._running: dict[str, Generation] = {}

    def on_step(self, step: StepOutput) -> None:
        """Pass the output of one engine step to its generations. Called by the engine supervisor's thread."""
        for request, ids in step.tokens:
            generation = self._running.get(request)
            if generation is not None and generation.add_tokens(ids):
                self._engine.cancel_request(request)
        for request, reason, detail in step.finished:
            generation = self._running.get(request)
            if generation is not None:
                generation.end(reason, detail)

    def run_generation(self, attempt: Attempt) -> Result:
        """Run one generation job.

        Raises PromptTooLong, EngineFault (to be retried), OutOfMemory, NanLogits, ModelUnavailable, AttemptStopped.
        """
        spec = attempt.spec
        max_tokens = int(spec.get("max_tokens") or self._entry.max_tokens)
        prompt, rag = self._encode_prompt(attempt, max_tokens)
        context = self._codec.max_context
        if len(prompt) >= context:
            raise PromptTooLong(
                f"The prompt has {len(prompt)} tokens, but model {self._entry.name} has a context of {context} tokens for prompt "
                "and answer together. Send a shorter prompt, or use a model with a longer context.",
                param="prompt",
                details={"prompt_tokens": len(prompt), "max_context": context},
            )
        is_chat = spec.get("prompt") is None or rag is not None
        generation = Generation(attempt, self._codec, spec.get("stop") or (), is_chat=is_chat)
        request = GenerationRequest(
            id=generation.id,
            prompt=prompt,
            max_new_tokens=min(max_tokens, context - len(prompt)),
            stop_token_ids=list(self._codec.stop_token_ids),
            temperature=float(spec.get("temperature", 0.7)),
            top_p=float(spec.get("top_p", 0.9)),
            top_k=int(spec.get("top_k", 0)),
            seed=spec.get("seed"),
            cache_salt=zlib.crc32(attempt.job.owner.encode()) & 0x7FFFFFFF,
        )
        self._running[generation.id] = generation
        try:
            self._engine.submit_request(request, timeout=ENGINE_LOAD_SECONDS)
            attempt.on_stop(lambda: self._engine.cancel_request(generation.id))
            generation.finished.wait()
        finally:
            del self._running[generation.id]
        attempt.raise_if_stopped()
        if generation.reason not in ("stop", "length"):
            raise self._failure(generation, request)
        return self._result(attempt, generation, len(prompt), rag)

    def _failure(self, generation: Generation, request: GenerationRequest) -> JobFailure:
        name, reason, detail = self._entry.name, generation.reason, generation.detail
        prompt_tokens, tokens, max_tokens = len(request.prompt), generation.tokens, request.max_new_tokens
        if reason == "out_of_memory":
            return OutOfMemory(
                f"Model {name} ran out of memory on this job alone, with a prompt of {prompt_tokens} tokens and {tokens} of up to "
                f"{max_tokens} generated tokens ({detail}). Send a shorter prompt, reduce max_tokens, or use a smaller model or "
                "a device with more memory.",
                details={"prompt_tokens": prompt_tokens, "completion_tokens": tokens, "max_tokens": max_tokens},
            )
        if reason == "nan_logits":
            return NanLogits(
                f"Model {name} produced invalid logits for this job: {detail}. Try another prompt. If this happens often, the "
                "weights are damaged or their dtype in the models file has too small a range: try bfloat16 or float32."
            )
        if reason == "lost":
            return EngineFault(
                f"The engine of model {name} died while it ran this job ({detail}). Submit the job again; if the engine dies "
                "again, see the log of its worker."
            )
        return EngineFault(
            f"The engine of model {name} could not run this job: {detail or reason}. Change the request, or see the log of its worker."
        )

    def _result(self, attempt: Attempt, generation: Generation, prompt_tokens: int, rag: RagPrompt | None) -> Result:
        value: dict[str, Any] = {
            "text": generation.text,
            "finish_reason": generation.reason,
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": generation.tokens,
                "total_tokens": prompt_tokens + generation.tokens,
            },
        }
        if rag is not None:
            value["citations"] = rag.citations
        messages: list[dict[str, str]] = []
        if attempt.job.session:
            now = datetime.now(UTC).isoformat()
            messages = [
                {"role": "user", "content": attempt.spec["message"], "timestamp": now},
                {"role": "assistant", "content": generation.text, "timestamp": now},
            ]
        # A prompt token costs about half as much as a generated one, and counts as half in the fair share.
        return Result(value=value, service=prompt_tokens + 2 * generation.tokens, messages=messages)

    def _encode_prompt(self, attempt: Attempt, max_tokens: int) -> tuple[list[int], RagPrompt | None]:
        spec, passages = attempt.spec, attempt.context.get("passages")
        if spec.get("prompt") is not None and passages is None:
            return self._codec.encode_prompt(spec["prompt"]), None
        if attempt.job.session:
            return self._encode_chat(attempt, max_tokens)
        messages: list[Message] = spec["messages"] if spec.get("messages") else [{"role": "user", "content": spec["prompt"]}]
        if passages is None:
            return self._codec.encode_messages(messages), None
        rag = self._build_rag_prompt(messages, passages, max_tokens)
        return self._codec.encode_messages(rag.messages), rag

    def _encode_chat(self, attempt: Attempt, max_tokens: int) -> tuple[list[int], RagPrompt | None]:
        """The session's history, without the oldest messages when they do not fit, and the new message."""
        history = self._history(attempt.job)
        new: Message = {"role": "user", "content": attempt.spec["message"]}
        passages = attempt.context.get("passages")
        budget = max(self._codec.max_context - max_tokens, self._codec.max_context // 2)
        while True:
            messages = [*history, new]
            rag = self._build_rag_prompt(messages, passages, max_tokens) if passages is not None else None
            ids = self._codec.encode_messages(rag.messages if rag else messages)
            if len(ids) <= budget or not history:
                return ids, rag
            history = history[2:]

    def _history(self, job: Job) -> list[Message]:
        try:
            messages = self._sessions.messages(job.session, job.owner)
        except NotFound:  # deleted in the meantime
            return []
        return [{"role": message["role"], "content": message["content"]} for message in messages]

    def _build_rag_prompt(self, messages: list[Message], passages: Sequence[Mapping[str, Any]], max_tokens: int) -> RagPrompt:
        used = len(self._codec.encode_messages(messages))
        budget = self._codec.max_context - used - min(max_tokens, self._codec.max_context // 4)
        found = [Passage.from_json(passage) for passage in passages]
        return build_rag_prompt(messages, found, count_tokens=self._codec.count_tokens, budget=budget)
