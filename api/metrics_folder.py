"""The folder in which all API processes count their metrics. Nothing here imports prometheus_client, which looks for it at import."""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
METRICS_PREFIX = "enginehouse-metrics-"
METRICS_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def uses_shared_files() -> bool:
    """Whether this process is one of several that count together."""
    return bool(os.environ.get(METRICS_FOLDER_VARIABLE))


def make_metrics_folder(parent: Path | None = None) -> Path:
    """A new folder, in memory where the system has such. The files are mapped, and writing to a map on a full disk kills the process.

    The processes of this API hold a lock in it, so that the next one can tell which folders a killed API has left behind.
    """
    parent = parent or (SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir()))
    for left in parent.glob(f"{METRICS_PREFIX}*"):
        _remove_if_abandoned(left)
    draft = Path(tempfile.mkdtemp(prefix="enginehouse-starting-", dir=parent))
    lock = os.open(draft / "lock", os.O_CREAT | os.O_RDWR, 0o600)  # open until the last process of this API ends
    fcntl.flock(lock, fcntl.LOCK_EX)
    return draft.rename(draft.with_name(draft.name.replace("enginehouse-starting-", METRICS_PREFIX)))


def _remove_if_abandoned(folder: Path) -> None:
    with suppress(OSError):  # it is locked, or belongs to another user
        if folder.lstat().st_uid == os.getuid():
            lock = os.open(folder / "lock", os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(lock)
