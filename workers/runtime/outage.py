"""Retry of Redis calls through an outage."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from shared.redis_connection import is_outage

logger = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 2.0


def retry_through_outage(
    call: Callable[[], T],
    *,
    seconds: float,
    subject: str,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> T:
    """Call until Redis answers, for up to ``seconds``; ``subject`` names in the log what is retried.

    ``call`` must be safe to repeat, as an answer may have been lost on the way. Any other error is raised at once, and so is
    an outage once ``sleep`` returns true, as the ``wait`` of a ``threading.Event`` does when the event is set.
    """
    start, pause = clock(), FIRST_PAUSE_SECONDS
    while True:
        try:
            return call()
        except Exception as error:
            if not is_outage(error) or clock() - start > seconds:
                raise
            # An outage may last for hours, and concern every slot.
            level = logging.WARNING if pause == FIRST_PAUSE_SECONDS else logging.DEBUG
            logger.log(level, "%s: Redis is unavailable (%s); retrying until it is back", subject, error)
            if sleep(pause):
                raise
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
