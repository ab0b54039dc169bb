"""How gunicorn serves (``--config python:api.gunicorn_conf``): the API's processes count what they answer in files of one folder.

Read in gunicorn's first process, before any other is there and before prometheus_client is imported, which looks for the folder
then.
"""

import os
import shutil
import socket
from typing import Any

from shared.settings import Settings, from_environment

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def counts_in_files() -> bool:
    """Whether this process is one of several that count together."""
    return bool(os.environ.get(VARIABLE))


def on_starting(server: Any) -> None:
    """Begin with an empty folder: the counts of processes that are gone would stay for ever."""
    settings: Settings = from_environment(os.environ)
    folder = settings.data_dir / "metrics" / f"api-{socket.gethostname()}-{settings.port}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ[VARIABLE] = str(folder)


def child_exit(server: Any, worker: Any) -> None:
    """What a process counted stays in the sums; what it had only while it lived goes."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
