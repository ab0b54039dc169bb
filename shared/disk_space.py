"""Free space on the disk of the data folder. Below a reserve nothing new is accepted, so that what was accepted can end.

On a full disk Redis stops all writes, and indexes and metrics cannot be written either.
"""

import os
import time
from pathlib import Path

# Of a small disk, such as one of a test, the reserve takes at most this fraction.
LARGEST_FRACTION = 0.05
REFRESH_SECONDS = 1.0


class DiskSpace:
    """The disk that contains ``folder``. Safe to use from many threads."""

    def __init__(self, folder: Path, reserve: int) -> None:
        self._folder = folder
        self._reserve = reserve
        self._shortage = 0
        self._measured_at = -REFRESH_SECONDS

    def shortage(self) -> int:
        """Bytes that have to become free before more is accepted; 0 if there is enough. At most ``REFRESH_SECONDS`` old."""
        now = time.monotonic()
        if now >= self._measured_at + REFRESH_SECONDS:
            self._measured_at = now
            self._shortage = self._measure()
        return self._shortage

    def _measure(self) -> int:
        try:
            disk = os.statvfs(self._folder)
        except OSError:  # the folder is missing or unreachable, which the first write reports better
            return 0
        free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
        return max(0, min(self._reserve, int(size * LARGEST_FRACTION)) - free)
