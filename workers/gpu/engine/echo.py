"""An engine without a model: it answers each prompt with the prompt's own tokens, one token a step for every request.

Deterministic and instant, it stands in for a model in tests and on machines that only need the rest of the stack.
"""

import threading
from collections import deque
from dataclasses import dataclass, field

from shared.errors import ModelUnavailable
from shared.models.catalogue import ModelEntry
from workers.gpu.engine.messages import FinishReason, GenerationRequest, Heartbeat, StepOutput
from workers.gpu.engine.protocol import Report

# Tokens of prompt and answer together, for an entry that sets no limit: there is no model to ask.
CONTEXT = 8192


@dataclass
class _Answer:
    left: deque[int]
    room: int
    stops: frozenset[int] = field(default_factory=frozenset)


class EchoEngine:
    """``token_seconds`` is how long one step takes; ``max_context`` and ``max_running`` limit as a model's would."""

    def __init__(self, *, token_seconds: float = 0.0, max_context: int, max_running: int) -> None:
        self._token_seconds = token_seconds
        self._max_context = max_context
        self._max_running = max_running
        self._changed = threading.Condition()
        self._running: dict[str, _Answer] = {}
        self._waiting: dict[str, _Answer] = {}
        self._ended: list[tuple[str, FinishReason, str]] = []
        self._steps = 0
        self._tokens = 0

    @classmethod
    def of(cls, entry: ModelEntry, token_seconds: float = 0.0) -> "EchoEngine":
        """The engine of an entry. ``token_seconds`` wins over the seconds of an ``echo:SECONDS`` url."""
        scheme, _, seconds = entry.url.partition(":")
        if scheme == "echo" and seconds and not token_seconds:
            try:
                token_seconds = float(seconds)
            except ValueError:
                raise ModelUnavailable(f"Model {entry.name}: {seconds!r} in its url is not a number of seconds.") from None
        return cls(token_seconds=token_seconds, max_context=entry.max_context or CONTEXT, max_running=entry.max_in_flight)

    @property
    def attention(self) -> str:
        return ""

    def load(self, report: Report) -> None:
        report("loading", "no model to load", 1.0)

    def submit(self, request: GenerationRequest) -> None:
        with self._changed:
            if request.id in self._running or request.id in self._waiting:
                self._ended.append((request.id, "failed", "a request of this id is running already"))
            elif len(request.prompt) >= self._max_context:
                self._ended.append(
                    (request.id, "failed", f"the prompt has {len(request.prompt)} tokens and the context {self._max_context}")
                )
            else:
                room = min(request.max_new_tokens, self._max_context - len(request.prompt))
                self._waiting[request.id] = _Answer(deque(request.prompt), room, frozenset(request.stop_token_ids))
            self._changed.notify()

    def cancel(self, id: str) -> None:
        with self._changed:
            if self._running.pop(id, None) or self._waiting.pop(id, None):
                self._ended.append((id, "cancelled", ""))
                self._changed.notify()

    def next_step(self, timeout: float) -> StepOutput | None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._running or self._waiting or self._ended, timeout):
                return None
            while self._waiting and len(self._running) < self._max_running:
                id = next(iter(self._waiting))
                self._running[id] = self._waiting.pop(id)
            if self._running and not self._ended and self._token_seconds:
                # Waiting here and not sleeping lets a cancel end the step early, and its request at once.
                self._changed.wait_for(lambda: self._ended, self._token_seconds)
            return self._step()

    def _step(self) -> StepOutput:
        tokens: list[tuple[str, list[int]]] = []
        finished, self._ended = self._ended, []
        for id, answer in list(self._running.items()):
            token = answer.left.popleft() if answer.left else None
            if token is None or token in answer.stops:
                finished.append((id, "stop", ""))
                del self._running[id]
                continue
            tokens.append((id, [token]))
            answer.room -= 1
            if not answer.left or answer.room <= 0:
                finished.append((id, "stop" if not answer.left else "length", ""))
                del self._running[id]
        self._steps += 1
        self._tokens += len(tokens)
        return StepOutput(tokens, finished)

    def stats(self) -> Heartbeat:
        with self._changed:
            held = sum(len(answer.left) for answer in self._running.values())
            return Heartbeat(
                steps=self._steps,
                tokens=self._tokens,
                running=len(self._running),
                waiting=len(self._waiting),
                cache_use=min(1.0, held / (self._max_context * self._max_running)),
            )

    def close(self) -> None:
        with self._changed:
            self._running.clear()
            self._waiting.clear()
