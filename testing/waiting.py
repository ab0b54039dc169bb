"""Wait for a described condition, so that no test sleeps for a guessed time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# A condition that becomes true ends the wait at once, so a long limit costs nothing, and a busy machine does not fail the test.
LONG_SECONDS = 90.0
# A condition often asks a server, so looking every few milliseconds for seconds would take half a core. What has taken long may be noticed
# a little later.
MIN_PAUSE, MAX_PAUSE, PAUSE_SHARE = 0.01, 0.1, 0.1


def wait_until(condition: Callable[[], T], what: str, *, seconds: float = LONG_SECONDS, every: float | None = None) -> T:
    """Return the first true value of ``condition``. Raises AssertionError, with ``what``, after ``seconds``.

    ``every`` is the pause between two looks, for conditions that hold only for a moment. By default it grows with the time waited.
    """
    started = time.monotonic()
    while True:
        value = condition()
        if value:
            return value
        waited = time.monotonic() - started
        assert waited < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(min(MAX_PAUSE, max(MIN_PAUSE, PAUSE_SHARE * waited)) if every is None else every)
