"""Faults inside a process: Python imports this module into processes that have this folder on PYTHONPATH.

FAULT_CLOCK_SHIFT (seconds) shifts the clock of the process. Signal RTMIN blocks the main thread for ever while the other
threads continue; RTMIN+1 keeps 64 threads busy for ten seconds.
"""

import os
import signal
import threading
import time

shift = float(os.environ.get("FAULT_CLOCK_SHIFT", "0"))
if shift:
    true_time = time.time
    time.time = lambda: true_time() + shift


def wedge(*_: object) -> None:
    threading.Event().wait()


def hog(*_: object) -> None:
    end = time.monotonic() + 10

    def spin() -> None:
        while time.monotonic() < end:
            pass

    for _ in range(64):
        threading.Thread(target=spin, daemon=True).start()


signal.signal(signal.SIGRTMIN, wedge)
signal.signal(signal.SIGRTMIN + 1, hog)
