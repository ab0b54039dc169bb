"""Celery task events for Flower: batched, without canaries, and with the job that a wake-up ran.

Flower gets one message every 250 ms instead of three for each task.

Celery flushes its event buffer on nearly every turn of its loop when there are many short jobs, which takes a third of the
worker's time. The server itself does not depend on these events.
"""

import logging
import re
import threading
import time
from collections.abc import Mapping
from typing import Any

from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher

from shared.jobs.celery_broker import CANARY

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.25
# Beyond this many events Celery flushes in the thread of the task.
BUFFER_LIMIT = 10_000

# What a wake-up returns for a job: its id, kind and outcome, and the code of an error.
RESULT = re.compile(r"'(job_\w+) (\w+) (\w+)(?: (\w+))?'")
# The task of a wake-up always returns, so the event says how its job ended. Flower shows the state of the event.
EVENT_OF_OUTCOME = {"failed": "task-failed", "retried": "task-retried", "cancelled": "task-revoked"}


def describe_job(fields: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The type and fields of the event for a wake-up that has returned."""
    found = RESULT.fullmatch(str(fields.get("result", "")))
    if found is None:
        return "task-succeeded", dict(fields)
    job, kind, outcome, code = found.groups()
    kind_of_event = EVENT_OF_OUTCOME.get(outcome, "task-succeeded")
    described = {**fields, "name": f"enginehouse.{kind}", "args": job}
    if kind_of_event in ("task-failed", "task-retried"):
        described |= {"exception": code or outcome, "traceback": ""}
    if kind_of_event == "task-revoked":
        described |= {"terminated": True, "signum": None, "expired": False}
    return kind_of_event, described


class BatchingDispatcher(EventDispatcher):  # type: ignore[misc]
    """Buffers task events, and sends them together from its own thread between ``enable`` and ``close``."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._buffered = threading.Event()
        self._canaries: set[str] = set()
        super().__init__(*arguments, **options, buffer_limit=BUFFER_LIMIT)

    def enable(self) -> None:
        super().enable()
        if self.buffer_group:
            self.on_send_buffered = self._buffered.set
            threading.Thread(target=self._flush_until_closed, name="task events", daemon=True).start()

    def send(self, type: str, *arguments: Any, **fields: Any) -> Any:
        """Buffer an event, unless it is that of a canary."""
        task = fields.get("uuid", "")
        if type == "task-received" and fields.get("name") == CANARY:
            self._canaries.add(task)
        if task in self._canaries:
            if type not in ("task-received", "task-started"):
                self._canaries.discard(task)
            return None
        if type == "task-succeeded":
            type, fields = describe_job(fields)
        return super().send(type, *arguments, **fields)

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
