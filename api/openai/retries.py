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
from queue import SimpleQueue
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
# The libraries wait up to a second before a retry, and up to 8 seconds from the fifth on.
GRACE_SECONDS = 5.0
MAX_PENDING = 10_000


class Try(NamedTuple):
    """One request that a client library may repeat: the list of its tries, and this one's entry."""

    key: str
    entry: str


class Retries:
    """The tries of requests in Redis."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client

    def find_earlier(self) -> list[str]:
        """The jobs of an earlier try that the current request repeats; [] if it is no retry, or there is none. It is taken off the list."""
        if request.headers.get(RETRY_HEADER, "0").strip() in ("", "0"):
            return []
        entry = self._redis.lpop(_list_key())
        return entry.partition(" ")[2].split() if entry else []

    def remember(self, jobs: list[str]) -> Try | None:
        """Keep the jobs of the current request for a retry; None if its client is not known to retry."""
        if RETRY_HEADER not in request.headers:
            return None
        this = Try(_list_key(), f"{new_id('try')} {' '.join(jobs)}")
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
    """Calls functions ``GRACE_SECONDS`` later, on a thread that starts with the first one. Those of a process that ends are not made."""

    def __init__(self, seconds: float = GRACE_SECONDS) -> None:
        self._seconds = seconds
        self._calls: SimpleQueue[tuple[float, Callable[[], None]]] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, call: Callable[[], None]) -> None:
        """Call this after the grace; at once if very many are waiting."""
        if self._calls.qsize() >= MAX_PENDING:
            call()
            return
        self._calls.put((time.monotonic() + self._seconds, call))
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="delayed-calls", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            due, call = self._calls.get()
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                call()
            except redis.RedisError as error:
                logger.warning("A job whose client has left is not cancelled: %s", error)


def _list_key() -> str:
    content = hashlib.sha256(f"{request.method} {request.path}\n".encode())
    content.update(request.get_data())
    return f"{PREFIX}tries:{caller().owner}:{content.hexdigest()}"
