"""Channel listener: calls a function for each message of a Redis pub/sub channel, and subscribes again after an outage.

Messages that are published while the connection is down are lost. ``on_subscribed`` runs after each subscription, so that the
caller can check what it may have missed.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import redis

from shared.redis_connection import connect, is_outage

logger = logging.getLogger(__name__)

# A silent connection may be idle or dead. After this time without a message Redis is pinged, and must answer within the same time.
PING_SECONDS = 10.0

# The pause before a new subscription, so that an outage does not make all processes subscribe in a tight loop.
RETRY_SECONDS = 0.5


def _do_nothing() -> None:
    pass


class ChannelListener:
    """Listens to one channel in a thread of its own, from ``start_listening`` to ``stop_listening``. The functions run in that thread.

    ``on_silence`` runs at least every ``silence_seconds`` while no message arrives, and ``on_lost`` after the connection broke.
    Neither may raise an exception.
    """

    def __init__(
        self,
        url: str,
        channel: str,
        on_message: Callable[[str], None],
        *,
        on_subscribed: Callable[[], None] = _do_nothing,
        on_lost: Callable[[], None] = _do_nothing,
        on_silence: Callable[[], None] = _do_nothing,
        silence_seconds: float = PING_SECONDS,
        ping_seconds: float = PING_SECONDS,
    ) -> None:
        self._client = connect(url, timeout=ping_seconds)
        self._channel = channel
        self._on_message = on_message
        self._on_subscribed = on_subscribed
        self._on_lost = on_lost
        self._on_silence = on_silence
        self._silence_seconds = silence_seconds
        self._ping_seconds = ping_seconds
        self._lost = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"listener of {channel}", daemon=True)

    def start_listening(self) -> None:
        """Start listening. Redis may come later."""
        self._thread.start()

    def stop_listening(self) -> None:
        """Stop after the message or the silence at hand. Does not wait for the thread."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._client.pubsub() as subscription:  # type: ignore[no-untyped-call]
                    subscription.subscribe(self._channel)
                    self._listen(subscription)
            except Exception as error:  # If this thread died, no message would arrive again.
                self._on_lost()
                if not is_outage(error):
                    logger.exception("Listening to channel %s failed", self._channel)
                elif not self._lost:
                    logger.warning(
                        "Redis is unreachable (%s). Channel %s is subscribed to when it is back.", error, self._channel
                    )
                self._lost = True
                self._stopping.wait(RETRY_SECONDS)

    def _listen(self, subscription: Any) -> None:
        pinged_at: float | None = None
        received_at = time.monotonic()
        while not self._stopping.is_set():
            message = subscription.get_message(timeout=min(self._silence_seconds, self._ping_seconds))
            now = time.monotonic()
            if message is not None:
                pinged_at, received_at = None, now
                if message["type"] == "subscribe":
                    self._lost = False
                    self._on_subscribed()
                elif message["type"] == "message":
                    self._on_message(message["data"])
                continue
            self._on_silence()
            if pinged_at is not None and now - pinged_at >= self._ping_seconds:
                raise redis.ConnectionError(f"Redis did not answer a ping within {self._ping_seconds:g} s")
            if pinged_at is None and now - received_at >= self._ping_seconds:
                pinged_at = now
                subscription.ping("still there")
