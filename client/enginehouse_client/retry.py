"""Retry policy: which requests are repeated, when, and which error is raised in the end."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from enginehouse_client.effects import Operation, Request, Response, Send, Sleep
from enginehouse_client.errors import APIError, ConnectionFailed, EnginehouseError, error_from_status

# A retry may help with these statuses; 502 and 504 come from proxies.
RETRYABLE = (429, 502, 503, 504)
# With these statuses the server has not started the operation, unless the error is LOST_REDIS. With 502 and 504 it may have.
NOT_STARTED = (429, 503)
LOST_REDIS = "redis_unavailable"


@dataclass(frozen=True)
class RetryPolicy:
    """How often and when a request is sent again: at most ``retries`` times, after half a second, one, two … up to ``max_delay``
    seconds. A random part of up to half of each delay is subtracted, so that clients do not return together; a ``Retry-After``
    of the server is the minimum. ``timeout`` is in seconds until the next byte of a response. ``clock`` and ``jitter`` are for
    tests."""

    retries: int = 5
    max_delay: float = 8.0
    max_retry_after: float = 60.0
    timeout: float = 30.0
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random

    def delay(self, failures: int, retry_after: float | None = None) -> float:
        """Seconds until the next attempt after this number of failures."""
        delay = min(self.max_delay, 0.5 * 2.0 ** (failures - 1)) * (1 - self.jitter() / 2)
        return max(delay, min(retry_after or 0.0, self.max_retry_after))


def send_with_retries(request: Request, retry_policy: RetryPolicy, accept: tuple[int, ...] = ()) -> Operation[Response]:
    """Send a request, with retries, and return a response with a status below 400 or in ``accept``. Raises EnginehouseError."""
    for attempts in count(1):
        error: EnginehouseError
        retry_after: float | None = None
        try:
            response: Response = yield Send(request)
        except ConnectionFailed as failed:
            error, again = failed, request.repeatable or failed.unsent
        else:
            if response.status < 400 or response.status in accept:
                return response
            error = error_from_response(response, attempts)
            retry_after = error.retry_after if isinstance(error, APIError) else None
            again = (
                isinstance(error, APIError) and response.status in RETRYABLE and response.headers.get("x-should-retry") != "false"
            )
            if again and not request.repeatable:
                again = response.status in NOT_STARTED and getattr(error, "code", "") != LOST_REDIS
        if not again or attempts > retry_policy.retries:
            raise error
        yield Sleep(retry_policy.delay(attempts, retry_after))
    raise AssertionError("count() does not end")


def error_from_response(response: Response, attempts: int = 1) -> EnginehouseError:
    """The exception for an error response."""
    body = response.json()
    text = response.headers.get("retry-after", "")
    retry_after = float(text) if text.isascii() and text.isdigit() else None
    return error_from_status(response.status, body if isinstance(body, dict) else {}, retry_after=retry_after, attempts=attempts)
