"""What running attempts tell their clients, gathered and written for all jobs at once, at most every 40 ms.

A token alone costs as much as a round trip to Redis; gathered, the cost hardly depends on the number of jobs. What comes after
a pause is not held back: only until the other jobs have put out their part of the same step.
"""

import logging
import threading
import time
from typing import TYPE_CHECKING

from shared.jobs.transitions import Event, Lifecycle
from shared.redis_connection import is_outage

if TYPE_CHECKING:
    from workers.runtime.attempt import Attempt

logger = logging.getLogger(__name__)

GATHER_SECONDS = 0.04
SETTLE_SECONDS = 0.004


class EventPublisher:
    """One thread that writes what attempts have put out. Attempts whose events are refused are told that they are lost."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._waiting: set[Attempt] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._something = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        # Held while events are on their way, so that an end cannot overtake them.
        self.writing = threading.Lock()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._something.set()

    def put(self, attempt: "Attempt") -> None:
        """This attempt has something to tell."""
        with self._lock:
            self._waiting.add(attempt)
        self._something.set()

    def _run(self) -> None:
        written = 0.0
        while not self._stop.is_set():
            self._something.wait()
            self._stop.wait(max(SETTLE_SECONDS, written + GATHER_SECONDS - time.monotonic()))
            self._something.clear()
            self.flush()
            written = time.monotonic()

    def flush(self) -> None:
        """Write all that waits. What could not be written because Redis is away is kept for the next time."""
        with self._lock:
            attempts, self._waiting = self._waiting, set()
        if not attempts:
            return
        with self.writing:
            events: list[Event] = []
            for attempt in attempts:
                events += attempt.unsent()
            owners = {attempt.lease: attempt for attempt in attempts}
            try:
                words = self._lifecycle.append_events(events)
            except Exception as error:  # the top of this thread: events are kept and sent again with the same index
                if not is_outage(error):
                    logger.exception("could not write events")
                else:
                    logger.warning("Redis is away (%s); events of %d jobs wait", error, len(attempts))
                for attempt in attempts:
                    self.put(attempt)
                return
            for event, word in zip(events, words, strict=True):
                attempt = owners[event.job, event.attempt]
                if word == "lost":
                    attempt.request_stop("lost")
                attempt.sent(event)
