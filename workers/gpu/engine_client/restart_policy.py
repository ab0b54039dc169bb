"""Restart policy of an engine process: how long to wait, whether to give up, and how many requests the next process may hold.

Pure: exits and times go in, decisions come out.
"""

from dataclasses import dataclass
from typing import Literal

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
FIRST_UNLOADABLE_DELAY, LONGEST_UNLOADABLE_DELAY = 30.0, 600.0
# A process that is killed while loading was most likely killed for its memory use, and the next one will be too.
MAX_EXITS_WHILE_LOADING = 3
QUIET_SECONDS = 600.0

ExitCause = Literal["crash", "unloadable", "out_of_memory", "resize"]
"""``unloadable``: the model cannot be loaded. ``resize``: the process was replaced to hold more requests."""


@dataclass(frozen=True)
class ProcessExit:
    """Why an engine process exited. ``served_seconds`` is how long it was ready, None if it never was."""

    reason: str
    cause: ExitCause = "crash"
    served_seconds: float | None = None


@dataclass(frozen=True)
class Restart:
    """What to do after an exit.

    ``give_up``: report the model as failed and end its waiting requests; another attempt still follows after the delay.
    """

    delay_seconds: float
    give_up: bool = False


class RestartPolicy:
    """Decisions for one model.

    ``limit`` is how many requests the process may hold. It halves when memory runs out and doubles after ``quiet_seconds``.
    """

    def __init__(self, max_in_flight: int, quiet_seconds: float = QUIET_SECONDS) -> None:
        self.limit = max_in_flight
        self._max_in_flight = max_in_flight
        self._quiet_seconds = quiet_seconds
        self._limit_changed_at = 0.0
        self._delay = FIRST_DELAY
        self._unloadable_delay = FIRST_UNLOADABLE_DELAY
        self._exits_while_loading = 0

    @property
    def note(self) -> str:
        """A sentence for people while the limit is reduced, else empty."""
        if self.limit == self._max_in_flight:
            return ""
        return f"runs {self.limit} of {self._max_in_flight} requests at once, because it ran out of memory with more"

    def decide(self, exit: ProcessExit, *, in_flight: int, now: float) -> Restart:
        """Decide how to restart. ``in_flight`` is how many requests the process held."""
        if exit.served_seconds is None:
            self._exits_while_loading += 1
        else:
            self._exits_while_loading = 0
            self._unloadable_delay = FIRST_UNLOADABLE_DELAY
            if exit.served_seconds > LONGEST_DELAY:
                self._delay = FIRST_DELAY
        if exit.cause == "resize":
            return Restart(0.0)
        if exit.cause == "out_of_memory":
            self.limit = max(1, min(in_flight or self.limit, self.limit) // 2)
            self._limit_changed_at = now
            return Restart(FIRST_DELAY)
        if exit.cause == "unloadable" or self._exits_while_loading >= MAX_EXITS_WHILE_LOADING:
            delay, self._unloadable_delay = self._unloadable_delay, min(self._unloadable_delay * 2, LONGEST_UNLOADABLE_DELAY)
            return Restart(delay, give_up=True)
        delay, self._delay = self._delay, min(self._delay * 2, LONGEST_DELAY)
        return Restart(delay)

    def larger_limit(self, now: float) -> int | None:
        """The limit to try next, or None while it is too early to try more requests."""
        if self.limit == self._max_in_flight or now - self._limit_changed_at < self._quiet_seconds:
            return None
        return min(self.limit * 2, self._max_in_flight)

    def raise_limit(self, limit: int, now: float) -> None:
        """Allow this many requests from the next process on."""
        self.limit = limit
        self._limit_changed_at = now
