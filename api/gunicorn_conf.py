"""Gunicorn configuration (``--config python:api.gunicorn_conf``): all API processes count their metrics in files of one folder.

Gunicorn reads this in its first process, before it starts others and before anything imports prometheus_client, which looks
for the folder at import.
"""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from shared.data_folder import open_data_folder
from shared.logs import LineFormatter
from shared.settings import Settings, from_environment

SHARED_MEMORY = Path("/dev/shm")
METRICS_PREFIX = "enginehouse-metrics-"
METRICS_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

# By default gunicorn believes local callers that they are a proxy, and lets them set the scheme and SCRIPT_NAME.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}

# Longer than clients and proxies keep idle connections (nginx: 60 s). A server that closes first can close a connection on which
# a request is on its way, and that request fails.
keepalive = 75


def uses_shared_files() -> bool:
    """Whether this process is one of several that count together."""
    return bool(os.environ.get(METRICS_FOLDER_VARIABLE))


def on_starting(server: Any) -> None:
    """Log as the other processes do, and start with an empty folder: counts of processes that no longer run would stay forever."""
    for handler in server.log.error_log.handlers:
        handler.setFormatter(LineFormatter())
    settings: Settings = from_environment(os.environ)
    open_data_folder(settings.data_dir)
    os.environ[METRICS_FOLDER_VARIABLE] = str(_make_metrics_folder())
    # The other processes are forked from this one. So they share the memory of these modules, and a replacement starts at once.
    from api.app import import_routes

    import_routes()


def _make_metrics_folder(parent: Path | None = None) -> Path:
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


def on_exit(server: Any) -> None:
    """Remove the metrics of this API."""
    shutil.rmtree(os.environ.get(METRICS_FOLDER_VARIABLE, ""), ignore_errors=True)


def child_exit(server: Any, worker: Any) -> None:
    """Keep the counters of a process that ended, and drop its gauges."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
