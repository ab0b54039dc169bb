"""Gunicorn configuration (``--config python:api.gunicorn_conf``): all API processes count their metrics in files of one folder, end
with the first of them, and that one shows that it is alive.

Gunicorn reads this in its first process, before it starts others and before anything imports prometheus_client, which looks
for the folder at import.
"""

import os
import shutil
import signal
import sys
from typing import Any

from api.metrics_folder import METRICS_FOLDER_VARIABLE, make_metrics_folder
from shared.data_folder import open_data_folder
from shared.liveness import TOUCH_SECONDS, LivenessFile, liveness_file
from shared.logs import make_formatter
from shared.machine import freeze_objects
from shared.prctl import die_with_parent
from shared.process_exit import exit_now
from shared.settings import Settings
from shared.settings_sources import from_environment

# By default gunicorn believes local callers that they are a proxy, and lets them set the scheme and SCRIPT_NAME.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}

# Longer than clients and proxies keep idle connections (nginx: 60 s). A server that closes first can close a connection on which
# a request is on its way, and that request fails.
keepalive = 75


def on_starting(server: Any) -> None:
    """Log as the other processes do, and start with an empty folder: counts of processes that no longer run would stay forever."""
    settings: Settings = from_environment(os.environ)
    for handler in server.log.error_log.handlers:
        handler.setFormatter(make_formatter(settings.log_format))
    open_data_folder(settings.data_dir)
    show_life(LivenessFile(liveness_file(settings.data_dir, "api")))
    os.environ[METRICS_FOLDER_VARIABLE] = str(make_metrics_folder())
    # The other processes are forked from this one. So they share the memory of these modules, and a replacement starts at once.
    from api.app import import_routes

    import_routes()
    freeze_objects()


def show_life(file: LivenessFile) -> None:
    """Touch the file regularly. A signal does it, because a thread could hold a lock when a process is forked from this one; those
    that are forked do not inherit the timer."""
    signal.signal(signal.SIGALRM, lambda *_: file.touch())
    signal.setitimer(signal.ITIMER_REAL, TOUCH_SECONDS, TOUCH_SECONDS)
    file.touch()


def post_fork(server: Any, worker: Any) -> None:
    """End with the first process. By itself a process notices its end after up to a second, and a stopped one never."""
    die_with_parent()


def on_exit(server: Any) -> None:
    """Remove the files of this API and end its first process, in which gunicorn handles what made it stop."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    liveness_file(from_environment(os.environ).data_dir, "api").unlink(missing_ok=True)
    shutil.rmtree(os.environ.get(METRICS_FOLDER_VARIABLE, ""), ignore_errors=True)
    exit_now(getattr(sys.exception(), "exit_status", 0))


def child_exit(server: Any, worker: Any) -> None:
    """Keep the counters of a process that ended, and drop its gauges."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
