"""Completion listener: wakes threads when their jobs end, with one Redis subscription per process.

Messages are lost while the connection is down, so all awaited jobs are checked after each new subscription.
"""

import threading

from shared.channel_listener import PING_SECONDS, ChannelListener
from shared.redis_connection import PREFIX, connect

CHANNEL = f"{PREFIX}ended"


class CompletionListener:
    """Sets an event when a job ends. The thread and its connection start with the first job that is awaited."""

    def __init__(self, url: str, ping_seconds: float = PING_SECONDS) -> None:
        self._client = connect(url, timeout=ping_seconds)
        self._waiting: dict[str, list[threading.Event]] = {}
        self._lock = threading.Lock()
        self._subscribed = threading.Event()
        self._started = False
        self._listener = ChannelListener(
            url,
            CHANNEL,
            self._wake,
            on_subscribed=self._check_awaited_jobs,
            on_lost=self._subscribed.clear,
            ping_seconds=ping_seconds,
        )

    def expect(self, job: str) -> threading.Event:
        """Return an event that is set when the job ends. Check the job after this call, because it may have ended already.

        Call ``forget`` when the event is no longer needed.
        """
        ended = threading.Event()
        with self._lock:
            self._waiting.setdefault(job, []).append(ended)
            if not self._started:
                self._started = True
                self._listener.start_listening()
        # The end of the job could be missed until the subscription is active. Without Redis, the caller's own check fails anyway.
        self._subscribed.wait(2.0)
        return ended

    def forget(self, job: str, ended: threading.Event) -> None:
        """Stop watching a job for this event."""
        with self._lock:
            waiting = self._waiting.get(job, [])
            if ended in waiting:
                waiting.remove(ended)
            if not waiting:
                self._waiting.pop(job, None)

    def _wake(self, job: str) -> None:
        with self._lock:
            for ended in self._waiting.get(job, ()):
                ended.set()

    def _check_awaited_jobs(self) -> None:
        """Wake the threads whose job ended before the subscription was active."""
        self._subscribed.set()
        with self._lock:
            jobs = list(self._waiting)
        for job in jobs:
            if self._client.hget(f"{PREFIX}job:{job}", "ended_at") is not None:
                self._wake(job)
