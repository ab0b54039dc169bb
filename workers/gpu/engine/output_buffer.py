"""Output buffer between the generation loop and the sender: collects tokens until they are worth a message.

The loop itself never waits and sends nothing. First tokens go out at once, ends almost at once, and other tokens together:
a message costs its sender and its reader time for each request in it, so the more requests, the longer tokens are collected.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from workers.gpu.engine.messages import FinishedRequest, TokenLogprobs

# Seconds from the first buffered token to the message: the minimum, for each request in it, and if a request finished.
BUFFER_SECONDS, SECONDS_PER_REQUEST = 0.02, 0.0001
FINISH_SECONDS = 0.01

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
        self._first_at: float | None = None
        self._due_at: float | None = None

    def append_step(
        self,
        ids: list[str],
        tokens: list[int],
        finished: list[FinishedRequest],
        *,
        first: bool,
        logprobs: Scores = (),
        prompt_logprobs: Scores = (),
    ) -> None:
        """Append one token for each of ``ids`` and scores by request, then the ends. ``first``: some token is the first of its request."""
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
            self._schedule(at_once=first, finished=bool(finished))

    def append_rejected(self, finished: FinishedRequest) -> None:
        """Append the end of a request that did not come from the loop."""
        with self._changed:
            self._output.rejected.append(finished)
            self._schedule(at_once=True, finished=True)

    def report_error(self, error: str) -> None:
        """Report an error of the batching manager, after which the reader checks whether the loop is alive."""
        with self._changed:
            self._output.error = self._output.error or error
            self._schedule(at_once=True, finished=False)

    def wait_for_output(self, timeout: float) -> BufferedOutput | None:
        """The buffered output once it is due, or None after ``timeout`` seconds."""
        deadline = self._clock() + timeout
        with self._changed:
            while True:
                now = self._clock()
                if self._due_at is not None and now >= self._due_at:
                    output, self._output = self._output, BufferedOutput()
                    self._due_at = self._first_at = None
                    return output
                if now >= deadline:
                    return None
                self._changed.wait(min(deadline, deadline if self._due_at is None else self._due_at) - now)

    def _schedule(self, *, at_once: bool, finished: bool) -> None:
        if self._first_at is None:
            self._first_at = self._clock()
        if at_once:
            delay = 0.0
        elif finished:
            delay = FINISH_SECONDS
        else:
            delay = max(BUFFER_SECONDS, SECONDS_PER_REQUEST * len(self._output.tokens))
        due_at = self._first_at + delay
        # Wake the reader only if it would oversleep.
        if self._due_at is None or due_at < self._due_at:
            self._due_at = due_at
            self._changed.notify()
