"""Waiting for jobs to end, many clients to one Redis connection."""

import threading

from shared.errors import Unavailable
from shared.jobs.endings import Endings
from shared.jobs.job import Job
from shared.jobs.lifecycle import Lifecycle


class Waiting:
    """Holds request threads until their job has ended. Refuses more waiters than would leave threads for other calls."""

    def __init__(self, lifecycle: Lifecycle, endings: Endings, threads: int) -> None:
        self._lifecycle = lifecycle
        self._endings = endings
        # A fifth of the threads stays free, or waiting clients would starve the calls that answer at once.
        self._most = max(1, threads * 4 // 5)
        self._free = threading.BoundedSemaphore(self._most)

    def until_ended(self, job: Job, seconds: float) -> Job:
        """The job once it has ended, or as it stands after ``seconds``. Raises Unavailable when too many wait already."""
        if job.status.final or seconds <= 0:
            return job
        if not self._free.acquire(blocking=False):
            raise Unavailable(
                f"{self._most} clients wait on this server process already; ask again without waiting", retry_after=1
            )
        ended = self._endings.expect(job.id)
        try:
            now = self._lifecycle.get(job.id) or job
            if now.status.final:
                return now
            ended.wait(seconds)
        finally:
            self._endings.forget(job.id, ended)
            self._free.release()
        return self._lifecycle.get(job.id) or job
