"""Duration of a fault. Tests wait for conditions; only a fault lasts a set time."""

import time

from testing.waiting import LONG_SECONDS, wait_until


def hold_fault(seconds: float) -> None:
    """Keep the present fault in force for this long."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= end, "the fault has lasted", seconds=seconds + LONG_SECONDS, every=0.05)
