"""Liveness files: each worker process touches one, so that others on its host see that it runs, also while Redis is away.

A process that is stopped, or whose threads never get the interpreter lock, touches nothing. The files are in ``run`` in the data folder
and have the worker's name, which includes its host. Files of hosts that are gone, such as pods, are removed after a day.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

TOUCH_SECONDS = 2.0
# Loading a library can hold the interpreter lock for some seconds on a busy machine.
FROZEN_SECONDS = 30.0
# The clock of another host may be hours off.
ABANDONED_SECONDS = 24 * 3600.0
CLEAN_SECONDS = 3600.0


def liveness_folder(data_dir: Path) -> Path:
    return data_dir / "run"


def touch_until(stopping: threading.Event, file: Path, on_touch: Callable[[], None] = lambda: None) -> None:
    """Touch the file until ``stopping`` is set, then remove it. ``on_touch`` is called each time. Runs in a thread."""
    written = False
    clean_at = 0.0
    while True:
        try:
            if not written:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(f"{os.getpid()}\n")
                written = True
            now = time.time()  # not that of the file server, if the folder is there
            os.utime(file, (now, now))
        except OSError:  # the disk is full, or the folder was removed
            written = False
        on_touch()
        if time.monotonic() >= clean_at:
            remove_abandoned(file.parent)
            clean_at = time.monotonic() + CLEAN_SECONDS
        if stopping.wait(TOUCH_SECONDS):
            file.unlink(missing_ok=True)
            return


def remove_abandoned(folder: Path) -> None:
    """Remove the files that no process has touched for a day."""
    with suppress(OSError):
        for file in folder.iterdir():
            if (silent_seconds(file) or 0.0) > ABANDONED_SECONDS:
                file.unlink(missing_ok=True)


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
