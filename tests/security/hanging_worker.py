"""Celery worker whose jobs hang, in the ways that a hostile file can make a process hang: ``celery -A tests.security.hanging_worker``."""

import os
import re
import time
from collections.abc import Mapping
from typing import Any

from shared.settings_sources import from_environment
from workers.runtime.attempt import Attempt, Handler
from workers.runtime.celery_worker import CeleryWorker, Pool

QUEUE = "cpu"


def handle(attempt: Attempt) -> Mapping[str, Any]:
    if attempt.spec["hang"] == "lock":  # holds the interpreter lock, so no thread of this process runs any more
        re.fullmatch(r"(a|a)*b", "a" * 60)
    while attempt.spec["hang"] == "loop":  # ignores that it must stop
        time.sleep(0.1)
    return {"pid": os.getpid()}


def build_handlers() -> Mapping[str, Handler]:
    return {"ingest": handle}


app = CeleryWorker(
    from_environment(os.environ), Pool(name="cpu", queues=(QUEUE,), slots=1, prefork=True, build_handlers=build_handlers)
).app
