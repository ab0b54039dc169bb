"""Requests that an engine process holds, and requests that wait for room in it.

Not thread-safe: the caller holds a lock.
"""

from dataclasses import dataclass, field, replace

from workers.gpu.engine.messages import FinishedRequest, GenerationRequest, StepOutput


@dataclass
class _Entry:
    request: GenerationRequest
    tokens: list[int] = field(default_factory=list)
    scored: int = 0
    cancelled: bool = False

    def remaining(self) -> GenerationRequest:
        """The rest of the work. Tokens that were delivered become part of the prompt, so that none is delivered twice."""
        return replace(
            self.request,
            prompt=self.request.prompt + self.tokens,
            max_new_tokens=self.request.max_new_tokens - len(self.tokens),
            generated_tokens=self.request.generated_tokens + len(self.tokens),
            scored_tokens=self.request.scored_tokens + self.scored,
        )


class InFlightRequests:
    """At most ``limit`` requests in flight; the others wait in the order in which they came."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._waiting: dict[str, _Entry] = {}
        self._in_flight: dict[str, _Entry] = {}

    @property
    def in_flight(self) -> int:
        """How many requests the process holds."""
        return len(self._in_flight)

    @property
    def is_empty(self) -> bool:
        """Whether no request is in flight or waiting."""
        return not self._in_flight and not self._waiting

    def __contains__(self, id: str) -> bool:
        return id in self._waiting or id in self._in_flight

    def enqueue(self, request: GenerationRequest) -> None:
        """Add a request to the end of the waiting line."""
        self._waiting[request.id] = _Entry(request)

    def admit(self) -> list[GenerationRequest]:
        """Move waiting requests into flight up to the limit, oldest first, and return what to send to the process."""
        admitted = []
        while self._waiting and len(self._in_flight) < self.limit:
            id, entry = next(iter(self._waiting.items()))
            self._in_flight[id] = self._waiting.pop(id)
            admitted.append(entry.remaining())
        return admitted

    def record_step(self, output: StepOutput) -> None:
        """Record the tokens, scores of prompts and ends of one step."""
        for id, tokens in output.tokens:
            if id in self._in_flight:
                self._in_flight[id].tokens.extend(tokens)
        for id, entries in output.prompt_logprobs:
            if id in self._in_flight:
                self._in_flight[id].scored += len(entries)
        for id, _, _ in output.finished:
            self._in_flight.pop(id, None)

    def cancel(self, id: str) -> bool:
        """Cancel a request. True if it was waiting and is gone; one in flight is marked, and the process ends it."""
        if id in self._in_flight:
            self._in_flight[id].cancelled = True
        return self._waiting.pop(id, None) is not None

    def is_cancelled(self, id: str) -> bool:
        """Whether the process should end this request."""
        return id in self._in_flight and self._in_flight[id].cancelled

    def lose_in_flight(self, reason: str) -> list[FinishedRequest]:
        """End what the process held; waiting requests keep waiting."""
        lost: list[FinishedRequest] = [(id, "lost", reason) for id in self._in_flight]
        self._in_flight.clear()
        return lost

    def lose_all(self, reason: str) -> list[FinishedRequest]:
        """End every request, because no process will serve them."""
        lost: list[FinishedRequest] = [(id, "lost", reason) for id in (*self._in_flight, *self._waiting)]
        self._in_flight.clear()
        self._waiting.clear()
        return lost

    def requeue_after_out_of_memory(self, reason: str) -> list[FinishedRequest]:
        """Put what the process held back at the front of the waiting line, to continue where it was; returns those that end.

        A request that ran alone does not fit and ends; cancelled requests end too.
        """
        held, self._in_flight = self._in_flight, {}
        finished: list[FinishedRequest] = []
        requeued: dict[str, _Entry] = {}
        for id, entry in held.items():
            if entry.cancelled:
                finished.append((id, "cancelled", ""))
            elif len(held) == 1:
                finished.append((id, "out_of_memory", reason))
            else:
                requeued[id] = _Entry(entry.remaining())
        self._waiting = requeued | self._waiting
        return finished
