"""Waiting for jobs to end, many clients to one Redis connection."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import Unavailable
from shared.jobs.completion_listener import CompletionListener
from shared.jobs.models import Job
from shared.jobs.transitions import Lifecycle, Submission, Submitted


class JobWaiter:
    """Holds request threads until their job has ended. Refuses more waiters than would leave threads for other calls."""

    def __init__(self, lifecycle: Lifecycle, endings: CompletionListener, threads: int) -> None:
        self._lifecycle = lifecycle
        self._endings = endings
        # A fifth of the threads stays free, or waiting clients would starve the calls that answer at once.
        self._most = max(1, threads * 4 // 5)
        self._free = threading.BoundedSemaphore(self._most)

    def until_ended(self, job: str, seconds: float) -> Job | None:
        """The job once it has ended, or as it stands after ``seconds``; None when there is none of this id.

        Raises Unavailable when too many wait already.
        """
        if seconds <= 0:
            return self._lifecycle.get_job(job)
        with self._expected(job) as ended:
            now = self._lifecycle.get_job(job)
            if now is None or now.status.final:
                return now
            ended.wait(seconds)
        return self._lifecycle.get_job(job)

    def submit(self, submission: Submission, seconds: float) -> tuple[Submitted, Job | None]:
        """Submit, and return the job once it has ended or as it stands after ``seconds``.

        Raises what ``Lifecycle.submit_job`` does, and Unavailable, with nothing submitted, when too many wait already.
        """
        if seconds <= 0:
            submitted = self._lifecycle.submit_job(submission)
            return submitted, self._lifecycle.get_job(submitted.id)
        with self._expected(submission.id) as ended:
            submitted = self._lifecycle.submit_job(submission)
            if not submitted.replayed:
                ended.wait(seconds)
                return submitted, self._lifecycle.get_job(submitted.id)
        return submitted, self.until_ended(submitted.id, seconds)

    def hold(self) -> None:
        """Take one of the places of those who wait; ``let_go`` gives it back. Raises Unavailable when all are taken."""
        if not self._free.acquire(blocking=False):
            raise Unavailable(
                f"{self._most} clients wait on this server process already; ask again without waiting", retry_after=1
            )

    def let_go(self) -> None:
        """Give a place back."""
        self._free.release()

    @contextmanager
    def _expected(self, job: str) -> Iterator[threading.Event]:
        self.hold()
        try:
            ended = self._endings.expect(job)
            try:
                yield ended
            finally:
                self._endings.forget(job, ended)
        finally:
            self.let_go()
