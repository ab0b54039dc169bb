"""Completion listener: wakes threads when their jobs end, with one Redis subscription per process.

Messages are lost while the connection is down, so the listener checks all awaited jobs after each reconnect.
"""

import logging
import threading
import time
from typing import Any

import redis

from shared.redis_connection import PREFIX, connect, is_outage

logger = logging.getLogger(__name__)

CHANNEL = f"{PREFIX}ended"
# A silent connection may be idle or dead. After this time without a message Redis is pinged, and must answer within the same time.
QUIET_SECONDS = 10.0


class CompletionListener:
    """Sets an event when a job ends. The thread and its connection start with the first job that is awaited."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._waiting: dict[str, list[threading.Event]] = {}
        self._lock = threading.Lock()
        self._listening = threading.Event()
        self._thread: threading.Thread | None = None

    def expect(self, job: str) -> threading.Event:
        """Return an event that is set when the job ends. Check the job after this call, because it may have ended already.

        Call ``forget`` when the event is no longer needed.
        """
        ended = threading.Event()
        with self._lock:
            self._waiting.setdefault(job, []).append(ended)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="completion-listener", daemon=True)
                self._thread.start()
        # The end of the job could be missed until the subscription is active. Without Redis, the caller's own check fails anyway.
        self._listening.wait(2.0)
        return ended

    def forget(self, job: str, ended: threading.Event) -> None:
        """Stop watching a job for this event."""
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
                # If this thread died, waiting clients would never be woken.
                self._listening.clear()
                if is_outage(error):
                    logger.warning("Redis is unreachable (%s). Clients keep waiting.", error)
                else:
                    logger.exception("Listening for completed jobs failed")
                threading.Event().wait(0.5)

    def _listen(self, channel: Any, client: redis.Redis) -> None:
        pinged_at: float | None = None
        while True:
            message = channel.get_message(timeout=QUIET_SECONDS)
            if message is None:
                if pinged_at is None:
                    pinged_at = time.monotonic()
                    channel.ping("still there")
                elif time.monotonic() - pinged_at >= QUIET_SECONDS:
                    raise redis.ConnectionError(f"Redis did not answer a ping within {QUIET_SECONDS:g} s")
                continue
            pinged_at = None
            if message["type"] == "subscribe":
                self._listening.set()
                self._check_awaited_jobs(client)
            elif message["type"] == "message":
                self._wake(message["data"])

    def _wake(self, job: str) -> None:
        with self._lock:
            for ended in self._waiting.get(job, ()):
                ended.set()

    def _check_awaited_jobs(self, client: redis.Redis) -> None:
        """Wake the threads whose job ended before the subscription was active."""
        with self._lock:
            jobs = list(self._waiting)
        for job in jobs:
            if client.hget(f"{PREFIX}job:{job}", "ended_at") is not None:
                self._wake(job)
