"""Job waiter: request threads that wait for a job to end, all of them over one Redis connection."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from api.caller import caller
from api.request_slots import RequestSlots
from shared.jobs.completion_listener import CompletionListener
from shared.jobs.models import Job
from shared.jobs.queries import JobQueries
from shared.settings import Settings


class JobWaiter:
    """Blocks request threads until their job has ended, and limits how many of them may block."""

    def __init__(self, queries: JobQueries, listener: CompletionListener, settings: Settings) -> None:
        self._queries = queries
        self._listener = listener
        self._settings = settings
        # A fifth of the threads stays free. Otherwise waiting clients would block the calls that return at once.
        self._slots = RequestSlots(max(1, settings.api_threads * 4 // 5))

    def wait_until_final(self, job_id: str, timeout: float) -> Job | None:
        """The job once it has ended, or its state after ``timeout`` seconds; None if it does not exist.

        Raises Unavailable or TooMany if too many clients are waiting already.
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
        """Acquire a slot, and an event that is set when the job ends. Raises what ``acquire_slot`` raises."""
        release = self.acquire_slot("waits")
        try:
            completed = self._listener.expect(job_id)
            try:
                yield completed
            finally:
                self._listener.forget(job_id, completed)
        finally:
            release()

    @contextmanager
    def watch_jobs(self, job_ids: Sequence[str]) -> Iterator[list[threading.Event]]:
        """An event for each job that is set when it ends. Check the jobs after this call, and acquire a slot before it."""
        events: list[threading.Event] = []
        try:
            for job_id in job_ids:
                events.append(self._listener.expect(job_id))
            yield events
        finally:
            for job_id, event in zip(job_ids, events, strict=False):
                self._listener.forget(job_id, event)

    def acquire_slot(self, use: str) -> Callable[[], None]:
        """Acquire a slot for a long request; returns the function that releases it.

        ``use`` is ``waits`` or ``streams``. Raises TooMany if the caller has too many, and Unavailable if none is free.
        """
        made_by = caller()
        self._slots.acquire(made_by.owner, use, made_by.slot_limit(use, self._settings))
        return lambda: self._slots.release(made_by.owner, use)
