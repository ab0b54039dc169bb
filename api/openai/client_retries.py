"""Retries by client libraries: a retry takes over the jobs of the request that it repeats, instead of starting more.

OpenAI's libraries close a connection that times out or breaks, and send the same request again with ``x-stainless-retry-count``
above 0. Redis keeps a list of repeatable requests for each fingerprint of owner and content, with those whose client has
disconnected first. An answered request is removed from its list.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any, NamedTuple

import redis
from flask import request

from api.caller import caller
from shared.ids import new_id
from shared.redis_connection import PREFIX

logger = logging.getLogger(__name__)

RETRY_HEADER = "x-stainless-retry-count"
# A client may wait this long before it repeats a request.
KEEP_SECONDS = 3600
# The libraries wait half a second before the first retry, twice as long before each further one, and at most 8 seconds.
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 8.0
# A retry also has to connect and to be read.
MARGIN_SECONDS = 3.0
MAX_PENDING = 10_000


class RepeatableRequest(NamedTuple):
    """A request that a client library may repeat: its list and entry in Redis, and how long to wait for the retry."""

    key: str
    entry: str
    grace_seconds: float


class RepeatableRequests:
    """The repeatable requests in Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client

    def take_earlier_jobs(self) -> list[str]:
        """Remove the earlier request that the current one repeats from its list, and return its jobs; [] if there is none."""
        if not _retry_count():
            return []
        entry = self._redis.lpop(_list_key())
        return entry.partition(" ")[2].split() if entry else []

    def add(self, jobs: list[str]) -> RepeatableRequest | None:
        """Add the current request with its jobs. Returns None if its client is not known to retry."""
        if RETRY_HEADER not in request.headers:
            return None
        pause = min(FIRST_PAUSE_SECONDS * 2 ** _retry_count(), LONGEST_PAUSE_SECONDS)
        added = RepeatableRequest(_list_key(), f"{new_id('req')} {' '.join(jobs)}", pause + MARGIN_SECONDS)
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.rpush(added.key, added.entry)
            pipeline.expire(added.key, KEEP_SECONDS)
            pipeline.execute()
        return added

    def move_to_front(self, repeatable: RepeatableRequest) -> None:
        """Let the next retry take over this request, whose client has disconnected."""
        with self._redis.pipeline() as pipeline:
            pipeline.lrem(repeatable.key, 1, repeatable.entry)
            pipeline.lpush(repeatable.key, repeatable.entry)
            pipeline.expire(repeatable.key, KEEP_SECONDS)
            pipeline.execute()

    def remove(self, repeatable: RepeatableRequest) -> bool:
        """Remove a request from its list; False if a retry has taken it over."""
        return bool(self._redis.lrem(repeatable.key, 1, repeatable.entry))


class DelayedCalls:
    """Calls functions after a delay, on a thread that starts with the first one. When the process exits, pending calls are dropped."""

    def __init__(self) -> None:
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._changed = threading.Condition()
        self._numbers = count()
        self._thread: threading.Thread | None = None

    def add(self, call: Callable[[], None], seconds: float) -> None:
        """Call ``call`` after ``seconds``, or immediately if ``MAX_PENDING`` calls are pending."""
        with self._changed:
            is_full = len(self._calls) >= MAX_PENDING
            if not is_full:
                heappush(self._calls, (time.monotonic() + seconds, next(self._numbers), call))
                self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="delayed-calls", daemon=True)
                self._thread.start()
        if is_full:
            call()

    def _run(self) -> None:
        while True:
            call = self._next()
            try:
                call()
            except redis.RedisError as error:
                logger.warning("Could not cancel the jobs of a client that has disconnected: %s", error)

    def _next(self) -> Callable[[], None]:
        with self._changed:
            while True:
                remaining = self._calls[0][0] - time.monotonic() if self._calls else None
                if remaining is not None and remaining <= 0:
                    return heappop(self._calls)[2]
                self._changed.wait(remaining)


def _retry_count() -> int:
    """How many times the client has sent this request before, at most 30."""
    text = request.headers.get(RETRY_HEADER, "0").strip()
    return min(int(text), 30) if text.isascii() and text.isdigit() and len(text) < 9 else 0


def _list_key() -> str:
    content = hashlib.sha256(f"{request.method} {request.path}\n".encode())
    content.update(request.get_data())
    return f"{PREFIX}repeatable:{caller().owner}:{content.hexdigest()}"
