"""Wait for a described condition, so that no test sleeps for a guessed time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# A condition that becomes true ends the wait at once, so a long limit costs nothing, and a busy machine does not fail the test.
LONG_SECONDS = 90.0


def wait_until(condition: Callable[[], T], what: str, *, seconds: float = LONG_SECONDS, every: float = 0.02) -> T:
    """Return the first true value of ``condition``. Raises AssertionError, with ``what``, after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(every)
