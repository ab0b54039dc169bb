"""Canary: a wake-up that only one worker receives, to detect a worker that no longer takes messages.

Celery's own ``ping`` is answered by a wedged worker too.
"""

import threading
from typing import Literal

WEDGED_AFTER_INTERVALS = 3


class Canary:
    """Decides when a canary is due and when a worker that left it unanswered is wedged. Times are monotonic seconds."""

    def __init__(self, interval: float, now: float) -> None:
        self._interval = interval
        self._lock = threading.Lock()
        self._sent_at = self._answered_at = self._free_since = now

    def note_answer(self, now: float) -> None:
        """The worker has taken its canary."""
        with self._lock:
            self._answered_at = now

    def note_sent(self, now: float) -> None:
        """A canary is on its way."""
        with self._lock:
            self._sent_at = now

    def note_failure(self, now: float) -> None:
        """No canary could be sent. Silence while the broker is unavailable does not show that the worker is wedged."""
        with self._lock:
            self._sent_at = self._free_since = now

    def next_action(self, now: float, *, all_slots_busy: bool) -> Literal["wait", "send", "wedged"]:
        """What to do now. A worker whose slots are all busy rightly leaves its canary in the queue."""
        with self._lock:
            if all_slots_busy:
                self._free_since = now
            if now - self._sent_at < self._interval:
                return "wait"
            return "wedged" if self._silence(now) > WEDGED_AFTER_INTERVALS * self._interval else "send"

    def silent_seconds(self, now: float) -> float:
        """How long the worker has had a free slot without taking its canary."""
        with self._lock:
            return self._silence(now)

    def _silence(self, now: float) -> float:
        return now - max(self._answered_at, self._free_since)
