"""Outages of Redis: retry of calls, and one line in the log for each outage."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from shared.redis_connection import is_outage

logger = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 2.0


class OutageLog:
    """Logs when a loop first fails because of an outage, and when it works again.

    Loops retry several times a second. A line for each retry, from every thread of every worker, would push everything else out of the
    log files during an outage of some hours. Retries are logged at level DEBUG.
    """

    def __init__(self, log: logging.Logger, subject: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """``subject`` names in the log what does not work."""
        self._log = log
        self._subject = subject
        self._clock = clock
        self._lock = threading.Lock()
        self._failing_since: float | None = None
        self._failed_at = 0.0

    def note_failure(self, error: Exception, consequence: str) -> None:
        """An attempt has failed; ``consequence`` completes the line."""
        with self._lock:
            first, self._failed_at = self._failing_since is None, self._clock()
            if first:
                self._failing_since = self._failed_at
        level = logging.WARNING if first else logging.DEBUG
        self._log.log(level, "%s: Redis is unavailable (%s); %s", self._subject, error, consequence)

    def note_success(self, started: float | None = None) -> None:
        """An attempt has succeeded. One that ``started`` before the latest failure of another thread proves nothing."""
        with self._lock:
            since = self._failing_since
            if since is None or (started is not None and started < self._failed_at):
                return
            self._failing_since = None
        self._log.info("%s: Redis is back after %.0f s", self._subject, self._clock() - since)


def retry_through_outage(call: Callable[[], T], outage_log: OutageLog, *, sleep: Callable[[float], object] = time.sleep) -> T:
    """Call until Redis answers.

    ``call`` must be safe to repeat, as an answer may have been lost on the way. Any other error is raised at once, and so is
    an outage once ``sleep`` returns true, as the ``wait`` of a ``threading.Event`` does when the event is set.
    """
    pause = FIRST_PAUSE_SECONDS
    while True:
        started = time.monotonic()
        try:
            result = call()
        except Exception as error:
            if not is_outage(error):
                raise
            outage_log.note_failure(error, "retrying until it is back")
            if sleep(pause):
                raise
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        else:
            outage_log.note_success(started)
            return result
