"""Side queue reader: runs the jobs of a queue beside a pool's slots, in threads of its own.

Celery hands out its threads to whichever queue has a wake-up. A worker that is full of long jobs would let a job of milliseconds wait for
minutes, and request batches, which run for hours, would occupy the slots of searches. The wake-ups of such queues are therefore read here:
their content does not matter, and maintenance replaces those that are lost.

One thread of a queue waits for a wake-up, and the others wait for their turn: reads by all of them would time out together, and be most of what
an idle worker does.
"""

import logging
import threading
import time

from shared.redis_connection import connect, is_outage
from workers.runtime.outage import OutageLog
from workers.runtime.worker_runtime import WorkerRuntime

logger = logging.getLogger(__name__)

# How long a read blocks, and so how soon a drain is noticed.
READ_SECONDS = 5.0
OUTAGE_SECONDS = 1.0


class SideQueueReader:
    """Reads the wake-ups of one queue until the worker drains."""

    def __init__(self, redis_url: str, queue: str, threads: int, runtime: WorkerRuntime) -> None:
        self._client = connect(redis_url, blocks=READ_SECONDS)
        self._queue = queue
        self._threads = threads
        self._runtime = runtime
        self._turn = threading.Lock()
        self._outage = OutageLog(logger, f"queue {queue}")

    def start_threads(self) -> None:
        for number in range(self._threads):
            threading.Thread(target=self._read_until_drained, name=f"{self._queue} {number}", daemon=True).start()

    def _read_until_drained(self) -> None:
        while not self._runtime.draining.is_set():
            try:
                self.run_once()
            except Exception as error:  # the top of this thread, which must live as long as the process
                if is_outage(error):
                    self._outage.note_failure(error, "its jobs wait")
                else:
                    logger.exception("running a job of queue %s failed", self._queue)
                self._runtime.draining.wait(OUTAGE_SECONDS)

    def run_once(self) -> str:
        """Wait for a wake-up and run the next job. Returns what became of it, and nothing if there was no wake-up."""
        with self._turn:
            if self._runtime.draining.is_set():
                return ""
            started = time.monotonic()
            wakeup = self._client.brpop([self._queue], timeout=READ_SECONDS)
        self._outage.note_success(started)
        if wakeup is None:
            return ""
        return self._runtime.run_next_job(self._queue, has_slot=False)
