"""Celery's task events, gathered: what Flower sees of tickets costs one message in a while and not three for each ticket.

Celery flushes its buffer whenever its loop turns, which under load is for almost every event, and takes a third of the
worker's time with short jobs. Nothing of ours depends on these events.
"""

import logging
import threading
import time
from typing import Any

from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher

logger = logging.getLogger(__name__)

GATHER_SECONDS = 0.25
# Past this many Celery flushes from within the task's own thread.
MOST_GATHERED = 10_000


class GatheringDispatcher(EventDispatcher):  # type: ignore[misc]
    """Buffers task events and sends them together, from a thread of its own between ``enable`` and ``close``."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._something = threading.Event()
        super().__init__(*arguments, **options, buffer_limit=MOST_GATHERED)

    def enable(self) -> None:
        super().enable()
        if self.buffer_group:
            self.on_send_buffered = self._something.set
            threading.Thread(target=self._flush_until_closed, name="task events", daemon=True).start()

    def close(self) -> None:
        super().close()
        self._something.set()

    def _flush_until_closed(self) -> None:
        while not self._closed:
            self._something.wait()
            time.sleep(GATHER_SECONDS)
            self._something.clear()
            try:
                self.flush()
            except Exception as error:  # noqa: BLE001 the top of this thread
                # The buffer is kept, and the dispatcher of the next connection takes it over.
                logger.debug("task events wait (%s)", error)


class GatheredEvents(Events):  # type: ignore[misc]
    """What ``Celery(events=…)`` wants: where the dispatcher is."""

    dispatcher_cls = "workers.runtime.celery_events:GatheringDispatcher"
