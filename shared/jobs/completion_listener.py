"""Hearing of the ends of jobs: one subscription a process, however many of its clients wait.

A message may be missed while the connection is down; so after each new connection all awaited jobs are looked at.
"""

import logging
import threading
import time
from typing import Any

import redis

from shared.redis_connection import PREFIX, connect, is_outage

logger = logging.getLogger(__name__)

CHANNEL = f"{PREFIX}ended"
# Nobody's job may end for long; so after so much silence Redis is asked, and must answer within as long again.
QUIET_SECONDS = 10.0


class CompletionListener:
    """Wakes those who wait for a job. The thread and its connection start with the first of them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._waiting: dict[str, list[threading.Event]] = {}
        self._lock = threading.Lock()
        self._listening = threading.Event()
        self._thread: threading.Thread | None = None

    def expect(self, job: str) -> threading.Event:
        """An event that is set when the job has ended. A job that had ended before this call must be looked for after it.

        Give it back with ``forget``.
        """
        ended = threading.Event()
        with self._lock:
            self._waiting.setdefault(job, []).append(ended)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="endings", daemon=True)
                self._thread.start()
        # Until the subscription stands an end could be missed; without Redis the caller's own look fails anyway.
        self._listening.wait(2.0)
        return ended

    def forget(self, job: str, ended: threading.Event) -> None:
        """Nobody waits for this event any more."""
        with self._lock:
            waiting = self._waiting.get(job, [])
            if ended in waiting:
                waiting.remove(ended)
            if not waiting:
                self._waiting.pop(job, None)

    def _run(self) -> None:
        client = connect(self._url, timeout=QUIET_SECONDS)
        while True:
            try:
                with client.pubsub(ignore_subscribe_messages=False) as channel:  # type: ignore[no-untyped-call]
                    channel.subscribe(CHANNEL)
                    self._listen(channel, client)
            except Exception as error:
                # The top of this thread: without it every waiting client would wait in vain.
                self._listening.clear()
                if is_outage(error):
                    logger.warning("Redis is away (%s); clients wait on", error)
                else:
                    logger.exception("listening for ends of jobs failed")
                threading.Event().wait(0.5)

    def _listen(self, channel: Any, client: redis.Redis) -> None:
        asked: float | None = None
        while True:
            message = channel.get_message(timeout=QUIET_SECONDS)
            if message is None:
                if asked is None:
                    asked = time.monotonic()
                    channel.ping("still there")
                elif time.monotonic() - asked >= QUIET_SECONDS:
                    raise redis.ConnectionError(f"no answer within {QUIET_SECONDS:g} s")
                continue
            asked = None
            if message["type"] == "subscribe":
                self._listening.set()
                self._look(client)
            elif message["type"] == "message":
                self._wake(message["data"])

    def _wake(self, job: str) -> None:
        with self._lock:
            for ended in self._waiting.get(job, ()):
                ended.set()

    def _look(self, client: redis.Redis) -> None:
        """Wake those whose job ended while nobody listened."""
        with self._lock:
            jobs = list(self._waiting)
        for job in jobs:
            if client.hget(f"{PREFIX}job:{job}", "ended_at") is not None:
                self._wake(job)
