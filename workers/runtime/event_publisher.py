"""Event publisher: writes the events of all running attempts to Redis together, at most every 40 ms.

Writing one token costs as much as a round trip to Redis; written together, the cost hardly depends on the number of jobs.
Text that follows a pause waits only a few milliseconds, so that the other jobs can add their part of the same step. The first
text of an attempt is written at once, because a person is watching for it, but at most every 5 ms: at hundreds of short jobs a
second, a write for each would cost more than their text is worth, and many end before it. How often an attempt enqueues its text
depends on whether a client follows the job (``Attempt.is_delta_due``).
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from shared.jobs.transitions import Event, JobTransitions
from shared.redis_connection import is_outage
from workers.runtime.event_buffer import EventBuffer
from workers.runtime.outage import OutageLog

logger = logging.getLogger(__name__)

T = TypeVar("T")

GATHER_SECONDS = 0.04
SETTLE_SECONDS = 0.004
FIRST_TEXT_SECONDS = 0.005


class EventPublisher:
    """Writes event buffers. A buffer whose events are refused has its ``on_refused`` called."""

    def __init__(self, transitions: JobTransitions) -> None:
        self._transitions = transitions
        self._queued: set[EventBuffer] = set()
        self._urgent: set[EventBuffer] = set()
        self._lock = threading.Lock()
        self._work = threading.Event()
        self._urgent_work = threading.Event()
        self._outage = OutageLog(logger, "events of jobs")

    def enqueue_buffer(self, buffer: EventBuffer) -> None:
        """Have this buffer written with the next batch, or at once if it has the first text of its attempt."""
        is_urgent = buffer.has_first_delta
        with self._lock:
            (self._urgent if is_urgent else self._queued).add(buffer)
        if is_urgent:
            self._urgent_work.set()
        self._work.set()

    def publish_until(self, stopping: threading.Event) -> None:
        """Publish whenever a buffer is enqueued, until ``stopping`` is set and ``wake_up`` is called. Runs in a thread."""
        published_at = first_text_at = -math.inf
        while not stopping.is_set():
            self._work.wait()
            if self._urgent_work.wait(max(SETTLE_SECONDS, published_at + GATHER_SECONDS - time.monotonic())):
                stopping.wait(max(0.0, first_text_at + FIRST_TEXT_SECONDS - time.monotonic()))
                self._urgent_work.clear()
                self._publish_urgent()
                first_text_at = time.monotonic()
                continue
            self._work.clear()
            self.publish_queued()
            published_at = time.monotonic()

    def wake_up(self) -> None:
        """Let ``publish_until`` look at its ``stopping`` event."""
        self._urgent_work.set()
        self._work.set()

    def publish_queued(self) -> None:
        """Write every enqueued buffer. If Redis is unavailable, the buffers stay enqueued for the next call."""
        with self._lock:
            buffers, self._queued, self._urgent = self._queued | self._urgent, set(), set()
        self._publish(buffers)

    def _publish_urgent(self) -> None:
        with self._lock:
            buffers, self._urgent = self._urgent, set()
        self._publish(buffers)

    def _publish(self, buffers: set[EventBuffer]) -> None:
        # The end of a job writes what is left in its buffer. The texts of the other jobs do not wait for that.
        locked = [buffer for buffer in buffers if buffer.write_lock.acquire(blocking=False)]
        try:
            self._write(locked)
        finally:
            for buffer in locked:
                buffer.write_lock.release()

    def _write(self, buffers: Sequence[EventBuffer]) -> None:
        """Write the events of buffers whose ``write_lock`` is held."""
        events = [event for buffer in buffers for event in buffer.unwritten()]
        if not events:
            return
        try:
            answers = self._transitions.append_events(events)
        except Exception as error:  # the top of the publishing thread: events are kept and written later
            if is_outage(error):
                self._outage.note_failure(error, f"those of {len(buffers)} jobs are kept")
            else:
                logger.exception("writing events failed")
            for buffer in buffers:
                self.enqueue_buffer(buffer)
            return
        self._outage.note_success()
        by_lease = {buffer.lease: buffer for buffer in buffers}
        for event, answer in zip(events, answers, strict=True):
            buffer = by_lease[event.job, event.attempt]
            if answer == "lost":
                buffer.on_refused()
            elif answer == "followed":
                buffer.on_followed()
            buffer.drop_through(event.index)

    def finish_stream(self, buffer: EventBuffer, finish: Callable[[Event | None], T]) -> T:
        """Write what is left in a buffer, then call ``finish`` with its newest delta, which it writes with the job's end.

        No other write of this buffer comes between the two or after them. If one of them fails, nothing is forgotten, and the call can
        be repeated.
        """
        with buffer.write_lock:
            with self._lock:
                self._queued.discard(buffer)
                self._urgent.discard(buffer)
            events = buffer.unwritten()
            last = events[-1] if events and events[-1].type == "delta" else None
            self._transitions.append_events(events[:-1] if last is not None else events)
            answer = finish(last)
            if events:
                buffer.drop_through(events[-1].index)
            return answer
