"""Job waiter: request threads that wait for a job to end, all of them over one Redis connection."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import Unavailable
from shared.jobs.completion_listener import CompletionListener
from shared.jobs.models import Job
from shared.jobs.queries import JobQueries


class JobWaiter:
    """Blocks request threads until their job has ended, and limits how many of them may block."""

    def __init__(self, queries: JobQueries, listener: CompletionListener, threads: int) -> None:
        self._queries = queries
        self._listener = listener
        # A fifth of the threads stays free. Otherwise waiting clients would block the calls that return at once.
        self._max_waiters = max(1, threads * 4 // 5)
        self._free_slots = threading.BoundedSemaphore(self._max_waiters)

    def wait_until_final(self, job_id: str, timeout: float) -> Job | None:
        """The job once it has ended, or its state after ``timeout`` seconds; None if it does not exist.

        Raises Unavailable if too many clients are waiting already.
        """
        if timeout <= 0:
            return self._queries.get_job(job_id)
        with self.expect_completion(job_id) as completed:
            job = self._queries.get_job(job_id)
            if job is None or job.status.final:
                return job
            completed.wait(timeout)
        return self._queries.get_job(job_id)

    @contextmanager
    def expect_completion(self, job_id: str) -> Iterator[threading.Event]:
        """Reserve a slot and an event that is set when the job ends. Raises Unavailable if all slots are taken."""
        self.reserve_slot()
        try:
            completed = self._listener.expect(job_id)
            try:
                yield completed
            finally:
                self._listener.forget(job_id, completed)
        finally:
            self.release_slot()

    def reserve_slot(self) -> None:
        """Reserve one of the slots for waiting clients; call ``release_slot`` afterwards. Raises Unavailable."""
        if not self._free_slots.acquire(blocking=False):
            raise Unavailable(
                f"{self._max_waiters} clients are already waiting on this server process; try again, or call without waiting",
                retry_after=1,
            )

    def release_slot(self) -> None:
        """Return a slot."""
        self._free_slots.release()
