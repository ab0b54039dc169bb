"""Which requests an engine holds at once, which wait for it, and how the number of the first falls and rises.

It falls by half when memory runs out and doubles after a quiet time. It knows neither processes nor threads: the time is
passed in, and the caller holds a lock.
"""

from dataclasses import dataclass, field, replace

from workers.gpu.engine.messages import FinishReason, GenerationRequest, StepOutput

End = tuple[str, FinishReason, str]

QUIET_SECONDS = 600.0


@dataclass
class _Held:
    request: GenerationRequest
    tokens: list[int] = field(default_factory=list)
    cancelled: bool = False

    def rest(self) -> GenerationRequest:
        """What is still to do: its tokens so far have become part of the prompt, so that none is told twice."""
        return replace(
            self.request,
            prompt=self.request.prompt + self.tokens,
            max_new_tokens=self.request.max_new_tokens - len(self.tokens),
        )


class InFlightRequests:
    """``most`` requests at once, until memory runs out; ``limit`` is the number now."""

    def __init__(self, most: int, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._most = most
        self._quiet_seconds = quiet_seconds
        self._calm_since = 0.0
        self._waiting: dict[str, _Held] = {}
        self._in_flight: dict[str, _Held] = {}
        self.limit = most

    @property
    def in_flight(self) -> int:
        """How many requests the engine holds."""
        return len(self._in_flight)

    @property
    def note(self) -> str:
        """A sentence for people when the limit is not what it should be, else nothing."""
        if self.limit == self._most:
            return ""
        return f"runs {self.limit} of {self._most} requests at once, as it ran out of memory with more"

    def __contains__(self, id: str) -> bool:
        return id in self._waiting or id in self._in_flight

    def add(self, request: GenerationRequest) -> None:
        """Let a request wait."""
        self._waiting[request.id] = _Held(request)

    def admit(self) -> list[GenerationRequest]:
        """Those that the engine is to be given now; the oldest go first."""
        admitted = []
        while self._waiting and len(self._in_flight) < self.limit:
            id, held = next(iter(self._waiting.items()))
            self._in_flight[id] = self._waiting.pop(id)
            admitted.append(held.rest())
        return admitted

    def take(self, step: StepOutput) -> None:
        """Note what the engine gave and ended."""
        for id, tokens in step.tokens:
            if id in self._in_flight:
                self._in_flight[id].tokens.extend(tokens)
        for id, _, _ in step.finished:
            self._in_flight.pop(id, None)

    def cancel(self, id: str) -> bool:
        """Whether a request waited, and is ended with that; one in flight is for the engine to end."""
        if id in self._in_flight:
            self._in_flight[id].cancelled = True
        return self._waiting.pop(id, None) is not None

    def is_cancelled(self, id: str) -> bool:
        """Whether the engine should end this request."""
        return id in self._in_flight and self._in_flight[id].cancelled

    def lose(self, reason: str) -> list[End]:
        """The engine is gone, and what it held with it; those that waited wait on."""
        lost: list[End] = [(id, "lost", reason) for id in self._in_flight]
        self._in_flight.clear()
        return lost

    def lose_all(self, reason: str) -> list[End]:
        """No engine will come."""
        lost: list[End] = [(id, "lost", reason) for id in (*self._in_flight, *self._waiting)]
        self._in_flight.clear()
        self._waiting.clear()
        return lost

    def out_of_memory(self, reason: str, now: float) -> list[End]:
        """The engine has died for want of memory: half of its requests at once, and they go on where they were.

        A request that was alone is to blame and ends; so do cancelled ones.
        """
        held, self._in_flight = self._in_flight, {}
        self.limit = max(1, min(len(held) or self.limit, self.limit) // 2)
        self._calm_since = now
        ends: list[End] = []
        again: dict[str, _Held] = {}
        for id, one in held.items():
            if one.cancelled:
                ends.append((id, "cancelled", ""))
            elif len(held) == 1:
                ends.append((id, "out_of_memory", reason))
            else:
                again[id] = _Held(one.rest())
        self._waiting = again | self._waiting
        return ends

    def may_grow(self, now: float) -> bool:
        """Whether the limit should rise now: memory has been enough for long, and no request would be disturbed."""
        quiet = now - self._calm_since >= self._quiet_seconds
        return self.limit < self._most and quiet and not self._in_flight and not self._waiting

    def grow(self, now: float) -> None:
        """Double the limit."""
        self.limit = min(self.limit * 2, self._most)
        self._calm_since = now
