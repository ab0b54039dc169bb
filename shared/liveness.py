"""Liveness files: each worker and the API touch one, so that others on their host see that they run, also while Redis is away.

A process that is stopped, or whose threads never get the interpreter lock, touches nothing. The files are in ``run`` in the data folder
and have the process's name, which includes its host. Files of hosts that are gone, such as pods, are removed after a day.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

TOUCH_SECONDS = 2.0
# A process that has not touched its file for so long is reported as frozen.
SILENT_SECONDS = 5 * TOUCH_SECONDS
# One that has not for so long is killed. Loading a library can hold the interpreter lock for some seconds on a busy machine.
FROZEN_SECONDS = 30.0
# The clock of another host may be hours off.
ABANDONED_SECONDS = 24 * 3600.0
CLEAN_SECONDS = 3600.0


def liveness_folder(data_dir: Path) -> Path:
    return data_dir / "run"


def liveness_file(data_dir: Path, name: str) -> Path:
    """The file of a process of this host, such as ``gpu0`` or ``api``."""
    return liveness_folder(data_dir) / f"{name}@{socket.gethostname()}"


class LivenessFile:
    """The file of this process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = False

    def touch(self) -> None:
        """Touch the file, which contains the process id."""
        try:
            if not self._written:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._path.write_text(f"{os.getpid()}\n")
                self._written = True
            now = time.time()  # not that of the file server, if the folder is there
            os.utime(self._path, (now, now))
        except OSError:  # the disk is full, or the folder was removed
            self._written = False

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def touch_until(stopping: threading.Event, path: Path, on_touch: Callable[[], None] = lambda: None) -> None:
    """Touch the file until ``stopping`` is set, then remove it. ``on_touch`` is called each time. Runs in a thread."""
    file = LivenessFile(path)
    clean_at = 0.0
    while True:
        file.touch()
        on_touch()
        if time.monotonic() >= clean_at:
            remove_abandoned(path.parent)
            clean_at = time.monotonic() + CLEAN_SECONDS
        if stopping.wait(TOUCH_SECONDS):
            file.remove()
            return


def remove_abandoned(folder: Path) -> None:
    """Remove the files that no process has touched for a day."""
    with suppress(OSError):
        for file in folder.iterdir():
            if (silent_seconds(file) or 0.0) > ABANDONED_SECONDS:
                file.unlink(missing_ok=True)


def frozen_seconds(lease_seconds: float) -> float:
    """How long a process of ``enginehouse up`` may show no sign of life. A frozen worker keeps its jobs until their leases lapse."""
    return max(SILENT_SECONDS, min(FROZEN_SECONDS, lease_seconds))


def silent_seconds(file: Path) -> float | None:
    """Seconds since the file was touched; None if there is none."""
    try:
        return max(0.0, time.time() - file.stat().st_mtime)
    except OSError:
        return None


def last_touch(file: Path, pid: int) -> int | None:
    """When the process with this id touched the file, in nanoseconds; None if it never did."""
    try:
        return file.stat().st_mtime_ns if file.read_text().strip() == str(pid) else None
    except OSError:
        return None


def is_unresponsive(file: Path, pid: int) -> bool:
    """Whether the process with this id has touched the file, but not for some time."""
    touched = last_touch(file, pid)
    return touched is not None and time.time() - touched / 1e9 > SILENT_SECONDS
