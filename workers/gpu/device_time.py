"""Device time: how long each request has kept the devices of an engine busy, when an engine runs many requests together."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shared.jobs.usage import Usage


class DeviceTime:
    """Divides time equally between the requests that run at the same moment, so the sum over all requests is the engine's busy time.

    Safe to use from many threads. ``devices`` is the number of GPUs that run a request together; an engine without one counts as one.
    """

    def __init__(self, devices: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._devices = max(1, devices)
        self._clock = clock
        self._lock = threading.Lock()
        self._running = 0
        # The seconds that a request would have received that has run from the start. What one request receives is its difference.
        self._share = 0.0
        self._updated_at = clock()

    @contextmanager
    def measure(self, usage: Usage) -> Iterator[None]:
        """Add the request's part of the time of this block to ``usage.gpu_ms``."""
        started_at = self._change_running(1)
        try:
            yield
        finally:
            usage.gpu_ms += round(1000 * self._devices * (self._change_running(-1) - started_at))

    def _change_running(self, change: int) -> float:
        with self._lock:
            now = self._clock()
            if self._running:
                self._share += (now - self._updated_at) / self._running
            self._updated_at = now
            self._running += change
            return self._share
