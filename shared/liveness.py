"""Liveness files: each worker process touches one, so that others on its host see that it runs, also while Redis is away.

A process that is stopped, or whose threads never get the interpreter lock, touches nothing. The files are in ``run`` in the data folder
and have the worker's name, which includes its host.
"""

import os
import threading
import time
from pathlib import Path

TOUCH_SECONDS = 2.0
# Loading a library can hold the interpreter lock for some seconds on a busy machine.
FROZEN_SECONDS = 30.0


def liveness_folder(data_dir: Path) -> Path:
    return data_dir / "run"


def touch_until(stopping: threading.Event, file: Path) -> None:
    """Touch the file until ``stopping`` is set, then remove it. Runs in a thread."""
    written = False
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
        if stopping.wait(TOUCH_SECONDS):
            file.unlink(missing_ok=True)
            return


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
