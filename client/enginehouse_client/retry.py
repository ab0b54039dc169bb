"""One request until its answer: what is sent again, when, and what is raised in the end."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from enginehouse_client.effects import Operation, Request, Response, Send, Sleep
from enginehouse_client.errors import APIError, ConnectionFailed, EnginehouseError, error_from_status

# With these it may help to ask again; a proxy says 502 and 504.
PASSING = (429, 502, 503, 504)
# With these the server has not begun. When Redis did not answer, or a proxy has lost the server, it may have acted.
UNTOUCHED = (429, 503)
LOST_REDIS = "redis_unavailable"


@dataclass(frozen=True)
class RetryPolicy:
    """How often and when a request is sent again: ``retries`` times at most, after half a second, one, two … up to ``longest``
    seconds, less a random part of up to half, so that clients that failed together do not come back together; what the server
    says in ``Retry-After`` is the least. ``timeout``: seconds until the next byte of an answer. ``clock`` and ``chance`` are
    for tests."""

    retries: int = 5
    max_delay: float = 8.0
    max_retry_after: float = 60.0
    timeout: float = 30.0
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random

    def pause(self, failures: int, retry_after: float | None = None) -> float:
        """Seconds until the next try, after so many that failed."""
        pause = min(self.max_delay, 0.5 * 2.0 ** (failures - 1)) * (1 - self.jitter() / 2)
        return max(pause, min(retry_after or 0.0, self.max_retry_after))


def send_with_retries(request: Request, retry_policy: RetryPolicy, accept: tuple[int, ...] = ()) -> Operation[Response]:
    """The answer, of a status below 400 or one of ``accept``. Raises the tree of ``errors``."""
    for tries in count(1):
        error: EnginehouseError
        retry_after: float | None = None
        try:
            answer: Response = yield Send(request)
        except ConnectionFailed as failed:
            error, again = failed, request.repeatable or failed.unsent
        else:
            if answer.status < 400 or answer.status in accept:
                return answer
            error = error_from_response(answer, tries)
            retry_after = error.retry_after if isinstance(error, APIError) else None
            again = isinstance(error, APIError) and answer.status in PASSING and answer.headers.get("x-should-retry") != "false"
            if again and not request.repeatable:
                again = answer.status in UNTOUCHED and getattr(error, "code", "") != LOST_REDIS
        if not again or tries > retry_policy.retries:
            raise error
        yield Sleep(retry_policy.pause(tries, retry_after))
    raise AssertionError("count() does not end")


def error_from_response(answer: Response, tries: int = 1) -> EnginehouseError:
    """The error that this answer stands for."""
    told = answer.json()
    text = answer.headers.get("retry-after", "")
    retry_after = float(text) if text.isascii() and text.isdigit() else None
    return error_from_status(answer.status, told if isinstance(told, dict) else {}, retry_after=retry_after, tries=tries)
