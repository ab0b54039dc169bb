"""Waiting for jobs to end, many clients to one Redis connection."""

import threading
import time

from shared.errors import Unavailable
from shared.jobs.job import Job
from shared.jobs.lifecycle import Lifecycle
from shared.jobs.streams import Follower, StreamEvent


class Waiting:
    """Holds request threads until their job has ended. Refuses more waiters than would leave threads for other calls."""

    def __init__(self, lifecycle: Lifecycle, follower: Follower, threads: int) -> None:
        self._lifecycle = lifecycle
        self._follower = follower
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
        ended = threading.Event()

        def listen(event: StreamEvent) -> None:
            if event.type == "ended":
                ended.set()

        deadline = time.monotonic() + seconds
        self._follower.follow(job.id, job.seq, listen)
        try:
            ended.wait(max(0.0, deadline - time.monotonic()))
        finally:
            self._follower.leave(job.id, listen)
            self._free.release()
        return self._lifecycle.get(job.id) or job
