"""Free space on the disk of the data folder. Below a reserve nothing new is accepted, so that what was accepted can end.

On a full disk Redis stops all writes, and indexes and metrics cannot be written either.
"""

import errno
import os
import sys
import time
from pathlib import Path

from shared.errors import DiskFull

# Of a small disk, such as one of a test, the reserve takes at most this fraction.
LARGEST_FRACTION = 0.05
REFRESH_SECONDS = 1.0


def is_disk_full(error: BaseException) -> bool:
    """Whether a write failed because the disk, or the quota of this user, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


class DiskSpace:
    """The disk that contains ``folder``. Safe to use from many threads."""

    def __init__(self, folder: Path, reserve: int, *, largest_fraction: float = LARGEST_FRACTION) -> None:
        """``reserve`` in bytes takes at most ``largest_fraction`` of the disk."""
        self._folder = folder
        self._reserve = reserve
        self._largest_fraction = largest_fraction
        self._missing = 0
        self._measured_at = -REFRESH_SECONDS

    def shortage(self, size: int = 0) -> int:
        """Bytes that have to become free before ``size`` more are accepted; 0 if there is enough.

        Without a size, the answer is at most ``REFRESH_SECONDS`` old. A large file is written faster than that.
        """
        now = time.monotonic()
        if size or now >= self._measured_at + REFRESH_SECONDS:
            self._measured_at = now
            self._missing = self._measure()
        return max(0, self._missing + size) if self._reserve else 0

    def require(self, size: int = 0) -> None:
        """Raise DiskFull if ``size`` more bytes would use the reserve."""
        shortage = self.shortage(size)
        if shortage:
            raise DiskFull(
                f"The server's disk is nearly full, so nothing new is stored until {shortage:,} more bytes are free. Running jobs go on. "
                "Retry later, delete documents, or ask the operator of the server for space.",
                retry_after=30,
            )

    def _measure(self) -> int:
        """Bytes that are missing for the reserve; negative if there are more."""
        try:
            disk = os.statvfs(self._folder)
        except OSError:  # the folder is missing or unreachable, which the first write reports better
            return -sys.maxsize
        free, size = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
        return min(self._reserve, int(size * self._largest_fraction)) - free
