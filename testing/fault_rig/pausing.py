"""How long a fault lasts. A test waits for conditions; only a fault has a length of its own."""

import time

from testing.waiting import wait_until


def pause(seconds: float) -> None:
    """Let the present fault last so long."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= end, "the fault has lasted", seconds=seconds + 5, every=0.05)
