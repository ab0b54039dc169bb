"""Output buffer between the generation loop and the sender: collects tokens until they are worth a message.

The loop itself never waits and sends nothing. First tokens go out at once, ends almost at once, and other tokens together:
a message costs its sender and its reader time for each request in it, so the more requests, the longer tokens are collected.
What goes out early goes without the tokens of other requests: where hundreds of requests run, nearly every step has a first token.
"""

import math
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from workers.gpu.engine.messages import FinishedRequest, TokenLogprobs

# Seconds from the first buffered token to the message: the minimum, for each request in it, and from the first end.
BUFFER_SECONDS, SECONDS_PER_REQUEST = 0.02, 0.0001
FINISH_SECONDS = 0.01

T = TypeVar("T")

Scores = Sequence[tuple[str, list[TokenLogprobs]]]
"""Log-probabilities by request."""


@dataclass
class BufferedOutput:
    """Output since the last message. ``rejected`` uses the ids of the sender, everything else internal ids."""

    tokens: dict[str, list[int]] = field(default_factory=dict)
    logprobs: dict[str, list[TokenLogprobs]] = field(default_factory=dict)
    prompt_logprobs: dict[str, list[TokenLogprobs]] = field(default_factory=dict)
    finished: list[FinishedRequest] = field(default_factory=list)
    rejected: list[FinishedRequest] = field(default_factory=list)
    """Requests that finished without the loop: invalid or cancelled."""
    error: str | None = None
    """The error of a request that the batching manager failed by itself."""


class OutputBuffer:
    """Filled by the loop's thread, emptied by the thread that calls ``wait_for_output``."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._output = BufferedOutput()
        # Requests of which something waits that goes out early, and when it does.
        self._early: set[str] = set()
        self._early_due_at = math.inf
        self._due_at = math.inf

    def append_step(
        self,
        ids: list[str],
        tokens: list[int],
        finished: list[FinishedRequest],
        *,
        first: Collection[str] = (),
        logprobs: Scores = (),
        prompt_logprobs: Scores = (),
    ) -> None:
        """Append one token for each of ``ids`` and scores by request, then the ends. ``first``: the requests whose first token this is."""
        with self._changed:
            buffered = self._output.tokens
            for id, token in zip(ids, tokens, strict=True):
                if id in buffered:
                    buffered[id].append(token)
                else:
                    buffered[id] = [token]
            for id, entries in logprobs:
                self._output.logprobs.setdefault(id, []).extend(entries)
            for id, entries in prompt_logprobs:
                self._output.prompt_logprobs.setdefault(id, []).extend(entries)
            self._output.finished += finished
            self._early.update(first)
            self._early.update(id for id, _, _ in finished)
            self._schedule(early_in=0.0 if first else FINISH_SECONDS if finished else math.inf)

    def append_rejected(self, finished: FinishedRequest) -> None:
        """Append the end of a request that did not come from the loop."""
        with self._changed:
            self._output.rejected.append(finished)
            self._schedule(early_in=0.0)

    def report_error(self, error: str) -> None:
        """Report an error of the batching manager, after which the reader checks whether the loop is alive."""
        with self._changed:
            self._output.error = self._output.error or error
            self._schedule(early_in=0.0)

    def wait_for_output(self, timeout: float) -> BufferedOutput | None:
        """The buffered output that is due, or None after ``timeout`` seconds."""
        deadline = self._clock() + timeout
        with self._changed:
            while True:
                now = self._clock()
                if now >= self._due_at:
                    return self._take_all()
                if now >= self._early_due_at:
                    return self._take_early()
                if now >= deadline:
                    return None
                self._changed.wait(min(deadline, self._due_at, self._early_due_at) - now)

    def _take_all(self) -> BufferedOutput:
        output, self._output = self._output, BufferedOutput()
        self._early.clear()
        self._due_at = self._early_due_at = math.inf
        return output

    def _take_early(self) -> BufferedOutput:
        """All output of the requests that do not wait. That of the others is due when it was."""
        early, whole = self._early, self._output
        if early.issuperset(whole.tokens) and early.issuperset(whole.prompt_logprobs):
            return self._take_all()
        self._early, self._early_due_at = set(), math.inf
        self._output = BufferedOutput(whole.tokens, whole.logprobs, whole.prompt_logprobs)
        return BufferedOutput(
            _take(early, whole.tokens),
            _take(early, whole.logprobs),
            _take(early, whole.prompt_logprobs),
            whole.finished,
            whole.rejected,
            whole.error,
        )

    def _schedule(self, *, early_in: float) -> None:
        now, next_at = self._clock(), min(self._due_at, self._early_due_at)
        if self._due_at == math.inf and (self._output.tokens or self._output.prompt_logprobs):
            self._due_at = now + max(BUFFER_SECONDS, SECONDS_PER_REQUEST * len(self._output.tokens))
        self._early_due_at = min(self._early_due_at, now + early_in)
        # Wake the reader only if it would oversleep.
        if min(self._due_at, self._early_due_at) < next_at:
            self._changed.notify()


def _take(ids: Collection[str], source: dict[str, list[T]]) -> dict[str, list[T]]:
    return {id: source.pop(id) for id in ids if id in source}
