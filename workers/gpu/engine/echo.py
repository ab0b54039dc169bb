"""Echo engine: no model, generates the prompt's own tokens, one per step and request.

Deterministic and instant. It replaces a model in tests and on machines that only need the rest of the stack.
"""

import threading
from collections import deque
from dataclasses import dataclass, field

from shared.errors import ModelUnavailable
from shared.models.catalogue import ModelEntry
from workers.gpu.engine.messages import FinishedRequest, GenerationRequest, Heartbeat, StepOutput
from workers.gpu.engine.protocol import PhaseCallback

# Tokens of prompt and output together, for an entry without max_context.
ECHO_CONTEXT = 8192


@dataclass
class _EchoRequest:
    tokens: deque[int]
    remaining: int
    stop_token_ids: frozenset[int] = field(default_factory=frozenset)


class EchoEngine:
    """``token_seconds`` is the duration of a step; ``max_context`` and ``max_running`` limit it as they would a model."""

    def __init__(self, *, token_seconds: float = 0.0, max_context: int, max_running: int) -> None:
        self._token_seconds = token_seconds
        self._max_context = max_context
        self._max_running = max_running
        self._changed = threading.Condition()
        self._running: dict[str, _EchoRequest] = {}
        self._waiting: dict[str, _EchoRequest] = {}
        self._finished: list[FinishedRequest] = []
        self._steps = 0
        self._tokens = 0

    @classmethod
    def from_entry(cls, entry: ModelEntry, token_seconds: float = 0.0) -> "EchoEngine":
        """The engine of an entry. ``token_seconds`` overrides the seconds of an ``echo:SECONDS`` url."""
        scheme, _, seconds = entry.url.partition(":")
        if scheme == "echo" and seconds and not token_seconds:
            try:
                token_seconds = float(seconds)
            except ValueError:
                raise ModelUnavailable(f"Model {entry.name}: {seconds!r} in its url is not a number of seconds.") from None
        return cls(token_seconds=token_seconds, max_context=entry.max_context or ECHO_CONTEXT, max_running=entry.max_in_flight)

    @property
    def attention_backend(self) -> str:
        return ""

    def load(self, report: PhaseCallback) -> None:
        report("loading", "no model to load", 1.0)

    def add_request(self, request: GenerationRequest) -> None:
        with self._changed:
            if request.id in self._running or request.id in self._waiting:
                self._finished.append((request.id, "failed", "a request with this id is already running"))
            elif len(request.prompt) >= self._max_context:
                detail = f"the prompt has {len(request.prompt)} tokens and the context {self._max_context}"
                self._finished.append((request.id, "failed", detail))
            else:
                remaining = min(request.max_new_tokens, self._max_context - len(request.prompt))
                earlier = request.output_tokens
                source = request.prompt[earlier : len(request.prompt) - earlier]
                self._waiting[request.id] = _EchoRequest(deque(source), remaining, frozenset(request.stop_token_ids))
            self._changed.notify()

    def abort_request(self, id: str) -> None:
        with self._changed:
            if self._running.pop(id, None) or self._waiting.pop(id, None):
                self._finished.append((id, "cancelled", ""))
                self._changed.notify()

    def next_step(self, timeout: float) -> StepOutput | None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._running or self._waiting or self._finished, timeout):
                return None
            while self._waiting and len(self._running) < self._max_running:
                id = next(iter(self._waiting))
                self._running[id] = self._waiting.pop(id)
            if self._running and not self._finished and self._token_seconds:
                # Waiting on the condition, so that an abort ends the step early and its request at once.
                self._changed.wait_for(lambda: self._finished, self._token_seconds)
            return self._step()

    def _step(self) -> StepOutput:
        tokens: list[tuple[str, list[int]]] = []
        finished, self._finished = self._finished, []
        for id, request in list(self._running.items()):
            token = request.tokens.popleft() if request.tokens else None
            if token is None or token in request.stop_token_ids:
                finished.append((id, "stop", ""))
                del self._running[id]
                continue
            tokens.append((id, [token]))
            request.remaining -= 1
            if not request.tokens or request.remaining <= 0:
                finished.append((id, "stop" if not request.tokens else "length", ""))
                del self._running[id]
        self._steps += 1
        self._tokens += len(tokens)
        return StepOutput(tokens, finished)

    def report_load(self) -> Heartbeat:
        with self._changed:
            held = sum(len(request.tokens) for request in self._running.values())
            return Heartbeat(
                steps=self._steps,
                tokens=self._tokens,
                running=len(self._running),
                waiting=len(self._waiting),
                cache_use=min(1.0, held / (self._max_context * self._max_running)),
            )

    def unload(self) -> None:
        with self._changed:
            self._running.clear()
            self._waiting.clear()
