"""Batched Celery task events: Flower gets one message every 250 ms instead of three for each task.

Celery flushes its event buffer on nearly every turn of its loop when there are many short jobs, which takes a third of the
worker's time. The server itself does not depend on these events.
"""

import logging
import threading
import time
from typing import Any

from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.25
# Beyond this many events Celery flushes in the thread of the task.
BUFFER_LIMIT = 10_000


class BatchingDispatcher(EventDispatcher):  # type: ignore[misc]
    """Buffers task events, and sends them together from its own thread between ``enable`` and ``close``."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._buffered = threading.Event()
        super().__init__(*arguments, **options, buffer_limit=BUFFER_LIMIT)

    def enable(self) -> None:
        super().enable()
        if self.buffer_group:
            self.on_send_buffered = self._buffered.set
            threading.Thread(target=self._flush_until_closed, name="task events", daemon=True).start()

    def close(self) -> None:
        super().close()
        self._buffered.set()

    def _flush_until_closed(self) -> None:
        while not self._closed:
            self._buffered.wait()
            time.sleep(FLUSH_SECONDS)
            self._buffered.clear()
            try:
                self.flush()
            except Exception as error:  # noqa: BLE001 the top of this thread
                # The buffer is kept, and the dispatcher of the next connection takes it over.
                logger.debug("task events are kept (%s)", error)


class BatchedEvents(Events):  # type: ignore[misc]
    """The value of ``Celery(events=…)`` that selects the batching dispatcher."""

    dispatcher_cls = "workers.runtime.celery_events:BatchingDispatcher"
