"""Retries of client libraries: a retry joins the jobs of the first try, which otherwise would run for nobody.

OpenAI's libraries close a connection that times out or breaks, and send the same request again, with
``x-stainless-retry-count`` above 0. Redis keeps a list of tries for each request, by a fingerprint of owner and content; those
whose client has left come first. A try of a request that was answered is taken off the list.
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
# As long as a client may have waited before it tries again.
KEEP_SECONDS = 3600
# The libraries wait half a second before the first retry, twice as long before each further one, and at most 8 seconds.
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 8.0
# A retry also has to connect and to be read.
MARGIN_SECONDS = 3.0
MAX_PENDING = 10_000


class Try(NamedTuple):
    """One request that a client library may repeat: the list of its tries, this one's entry, and when a retry would have come."""

    key: str
    entry: str
    grace_seconds: float


class Retries:
    """The tries of requests in Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client

    def find_earlier(self) -> list[str]:
        """The jobs of an earlier try that the current request repeats; [] if it is no retry, or there is none. It is taken off the list."""
        if not _retry_count():
            return []
        entry = self._redis.lpop(_list_key())
        return entry.partition(" ")[2].split() if entry else []

    def remember(self, jobs: list[str]) -> Try | None:
        """Keep the jobs of the current request for a retry; None if its client is not known to retry."""
        if RETRY_HEADER not in request.headers:
            return None
        pause = min(FIRST_PAUSE_SECONDS * 2 ** _retry_count(), LONGEST_PAUSE_SECONDS)
        this = Try(_list_key(), f"{new_id('try')} {' '.join(jobs)}", pause + MARGIN_SECONDS)
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.rpush(this.key, this.entry)
            pipeline.expire(this.key, KEEP_SECONDS)
            pipeline.execute()
        return this

    def put_first(self, this: Try) -> None:
        """Let the next retry join this try, whose client has left."""
        with self._redis.pipeline() as pipeline:
            pipeline.lrem(this.key, 1, this.entry)
            pipeline.lpush(this.key, this.entry)
            pipeline.expire(this.key, KEEP_SECONDS)
            pipeline.execute()

    def forget(self, this: Try) -> bool:
        """Take a try off the list; False if a retry has joined it."""
        return bool(self._redis.lrem(this.key, 1, this.entry))


class DelayedCalls:
    """Calls functions some time later, on a thread that starts with the first one. Those of a process that ends are not made."""

    def __init__(self) -> None:
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._changed = threading.Condition()
        self._numbers = count()
        self._thread: threading.Thread | None = None

    def add(self, call: Callable[[], None], seconds: float) -> None:
        """Call this after so many seconds; at once if very many are waiting."""
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
                logger.warning("A job whose client has left is not cancelled: %s", error)

    def _next(self) -> Callable[[], None]:
        with self._changed:
            while True:
                remaining = self._calls[0][0] - time.monotonic() if self._calls else None
                if remaining is not None and remaining <= 0:
                    return heappop(self._calls)[2]
                self._changed.wait(remaining)


def _retry_count() -> int:
    """How often the client has tried before; it counts to small numbers."""
    text = request.headers.get(RETRY_HEADER, "0").strip()
    return min(int(text), 30) if text.isascii() and text.isdigit() and len(text) < 9 else 0


def _list_key() -> str:
    content = hashlib.sha256(f"{request.method} {request.path}\n".encode())
    content.update(request.get_data())
    return f"{PREFIX}tries:{caller().owner}:{content.hexdigest()}"
