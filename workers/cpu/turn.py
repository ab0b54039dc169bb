"""Turns: a long job of the cpu queue returns its process when another owner waits who has none. See ``docs/decisions/fair-share.md``."""

import time
from collections.abc import Callable

from shared.jobs.models import Job
from workers.runtime.attempt import AttemptHandle, AttemptStopped

CHECK_SECONDS = 1.0
"""How often a job whose turn is over looks whether another owner waits."""


class Turn:
    """The turn of one attempt, of ``seconds`` from now. ``must_give_way`` says whether an owner waits who has no running job."""

    def __init__(self, attempt: AttemptHandle, seconds: float, must_give_way: Callable[[Job], bool]) -> None:
        self._attempt = attempt
        self._seconds = seconds
        self._must_give_way = must_give_way
        self.restart()

    def restart(self) -> None:
        """Let the turn begin now, after work that repeats what an earlier attempt did."""
        self._ends = time.monotonic() + self._seconds

    def give_way(self, save: Callable[[], None] = lambda: None) -> None:
        """Return the job to its queue if its turn is over and another owner has none.

        Call it only where progress was saved or ``save`` saves it, so that every turn gets further.
        """
        if time.monotonic() < self._ends:
            return
        self._ends = time.monotonic() + CHECK_SECONDS
        if self._must_give_way(self._attempt.job):
            save()
            raise AttemptStopped("release")
