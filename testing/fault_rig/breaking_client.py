"""Breaking client: a Redis client in this process that counts its calls, and breaks off at a chosen one.

The proxy breaks connections between processes; this finds every call of one piece of code, and interrupts it at each of them.
"""

from collections.abc import Callable
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry


class Breaks:
    """When the client breaks off: at its call number ``at``, with which it calls ``when_broken``, and at every later one until ``heal``.

    With ``after``, that call is executed and its reply is lost; otherwise it is not sent.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.heal()

    def heal(self) -> None:
        self.at, self.after, self.broken = 0, False, False
        self.when_broken: Callable[[], None] = lambda: None

    def arm(self, at: int, *, after: bool = False, when_broken: Callable[[], None] = lambda: None) -> None:
        self.calls, self.at, self.after, self.when_broken = 0, at, after, when_broken

    def count_call(self) -> bool:
        """Note a call that is about to be sent. Raises ConnectionError if it must not be; returns whether its reply is to be lost."""
        if self.broken:
            raise redis.ConnectionError("the connection is broken")
        self.calls += 1
        if self.calls != self.at:
            return False
        self.broken = True
        if not self.after:
            self.when_broken()
            raise redis.ConnectionError("the connection was reset")
        return True


def breaking_client(url: str, breaks: Breaks) -> redis.Redis:
    """A client without retries whose connections follow ``breaks``."""

    class BreakingConnection(redis.Connection):
        loses_reply = False

        def on_connect(self) -> None:
            self.is_connecting = True
            try:
                super().on_connect()
            finally:
                self.is_connecting = False

        is_connecting = False

        def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            if not self.is_connecting:
                self.loses_reply = breaks.count_call()
            super().send_packed_command(command, check_health)

        def read_response(self, *arguments: Any, **options: Any) -> Any:
            response = super().read_response(*arguments, **options)
            if self.loses_reply and not self.is_connecting:
                self.loses_reply = False
                self.disconnect()
                breaks.when_broken()
                raise redis.ConnectionError("the reply was lost")
            return response

    pool = redis.ConnectionPool.from_url(
        url,
        connection_class=BreakingConnection,
        decode_responses=True,
        retry=Retry(NoBackoff(), 0),
        driver_info=None,
    )
    return redis.Redis(connection_pool=pool)
