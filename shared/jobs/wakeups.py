"""Sending wake-ups to the queues in which a transition has made jobs claimable."""

import logging
from collections.abc import Callable, Sequence

logger = logging.getLogger(__name__)

# Sends a number of wake-ups to a queue.
Wake = Callable[[str, int], None]


def send_wakeups(wake: Wake, queues: Sequence[str]) -> None:
    """Send one wake-up per entry. A failure is only logged, because the record is written and maintenance sends the wake-up later."""
    for queue in set(queues):
        try:
            wake(queue, queues.count(queue))
        except Exception as error:  # noqa: BLE001 the job is stored, so no error may fail the caller
            logger.warning("Could not send a wake-up to queue %s (%s). Maintenance will send it.", queue, error)
