"""Locks between hosts: shows whether the file system of the data folder has them, and stops a worker where it has none.

The cpu and io workers write the text index, which is SQLite. On a file system without POSIX locks between hosts, two hosts that write
it damage it, and the damage is noticed only much later. So each host holds a lock on its own file in the data folder and keeps touching
the file. If another host can take this lock repeatedly while the holder keeps touching the file, locks do not work between hosts. The
host that came later stops.
"""

import fcntl
import hashlib
import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from shared.machine import machine_id

logger = logging.getLogger(__name__)

TOUCH_SECONDS = 2.0
# Locks are missing if a host touches its file this often while its lock can be taken before each touch.
TOUCHES = 2
# At the start, how long to watch another host that may be running.
START_SECONDS = 5 * TOUCH_SECONDS
RECENT_SECONDS = 3 * TOUCH_SECONDS
# Files of hosts that are gone, such as pods. The clock of another host may be hours off.
ABANDONED_SECONDS = 24 * 3600.0
LOCKS_MISSING = 78
"""The exit status of a worker whose data folder has no locks between hosts: EX_CONFIG of sysexits.h."""


@dataclass(frozen=True)
class _Mark:
    """Content of a file: since when its host holds the lock, the name of the host, and when it touched the file."""

    since: int
    host: str
    touched: int


class HostLocks:
    """The lock of this host in a data folder, and the test of the locks of others. ``on_missing`` gets the reason to stop."""

    def __init__(
        self, data_dir: Path, on_missing: Callable[[str], None] | None = None, *, machine: str = "", host: str = ""
    ) -> None:
        self._data_dir = data_dir
        self._folder = data_dir / "host-locks"
        self._own = self._folder / hashlib.sha256((machine or machine_id()).encode()).hexdigest()[:16]
        self._host = host or socket.gethostname()
        self._on_missing = on_missing or _exit
        self._held: int | None = None
        # Files whose lock could be taken, and how often they were touched after that.
        self._suspects: dict[str, tuple[_Mark, int]] = {}
        self._looked_at: float | None = None

    def check_at_start(self) -> None:
        """Stop before the first write, if another host is there and its lock does not hold.

        It takes time only if a host touched its file a moment ago and its lock can be taken.
        """
        end = time.monotonic() + START_SECONDS
        while self._test_others() and time.monotonic() < end:
            time.sleep(TOUCH_SECONDS / 4)

    def run_once(self, now: float) -> None:
        if self._looked_at is not None and now - self._looked_at < TOUCH_SECONDS:
            return
        self._looked_at = now
        with suppress(OSError):  # the disk is full, or the folder was removed
            self._hold()
        self._test_others()

    def _hold(self) -> None:
        """Take the lock of this host, unless another process of this host has it, and touch the file."""
        if self._held is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._own, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                return
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{time.time_ns()} {self._host}\n".encode(), 0)
            self._held = descriptor
        os.utime(self._held)

    def _test_others(self) -> bool:
        """Whether a lock could be taken of a host that was there a moment ago, so that it has to be looked at again."""
        suspects: dict[str, tuple[_Mark, int]] = {}
        files = [file for file in self._folder.glob("*") if file != self._own] if self._folder.exists() else []
        for file in files:
            mark = _read(file)
            if mark is None or not _can_lock(file):
                continue
            # It may belong to a host that has ended: only one that touches it after its lock was taken is still there.
            before, touches = self._suspects.get(file.name, (mark, 0))
            if (before.since, before.host) != (mark.since, mark.host):
                touches = 0
            elif mark.touched > before.touched:
                touches += 1
            if touches >= TOUCHES:
                self._report(mark)
            if time.time() - mark.touched / 1e9 > ABANDONED_SECONDS:
                file.unlink(missing_ok=True)
            else:
                suspects[file.name] = (_read(file) or mark, touches)
        self._suspects = suspects
        return any(time.time() - mark.touched / 1e9 < RECENT_SECONDS for mark, _ in suspects.values())

    def _report(self, other: _Mark) -> None:
        own = _read(self._own)
        if own is not None and own.since < other.since:
            return  # the other host came later, and stops
        self._on_missing(
            f"The file system of the data folder {self._data_dir} has no locks between hosts: this host could take a lock that "
            f"host {other.host} holds. Both would damage the text index, which is SQLite. Run the API, the cpu and the io workers on one "
            "host, or move the folder to CephFS or NFS 4.1."
        )


def _read(file: Path) -> _Mark | None:
    try:
        since, _, host = file.read_text().strip().partition(" ")
        return _Mark(int(since), host, file.stat().st_mtime_ns)
    except (OSError, ValueError):
        return None


def _can_lock(file: Path) -> bool:
    """Take a lock and release it at once."""
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _exit(reason: str) -> None:
    logger.critical("%s", reason)
    logging.shutdown()
    os._exit(LOCKS_MISSING)
