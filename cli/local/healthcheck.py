"""The health check of the workers on this host, for containers and service managers.

It asks the processes, by the files that they touch, and never Redis: an outage must not restart workers.
"""

import socket
import sys
from pathlib import Path

from shared.liveness import FROZEN_SECONDS, liveness_folder, silent_seconds

# Processes with a liveness file that are not workers.
NO_WORKERS = ("api", "embedder")


class Unhealthy(Exception):
    """Why the check failed: one sentence for the user."""


def check_workers(data_dir: Path, worker: str = "") -> list[str]:
    """The names of the workers that run on this host with this data folder. With ``worker``, such as ``gpu0``, only that one counts;
    this may also be ``api``.

    Raises Unhealthy if there is none.
    """
    host = socket.gethostname()
    found = sorted(liveness_folder(data_dir).glob(f"{worker or '*'}@{host}"))
    files = [file for file in found if worker or file.name.partition("@")[0] not in NO_WORKERS]
    silences = {file.name: silence for file in files if (silence := silent_seconds(file)) is not None}
    alive = [name for name, silence in silences.items() if silence < FROZEN_SECONDS]
    if alive:
        return alive
    which = f"worker {worker}" if worker else "worker"
    if not silences:
        raise Unhealthy(f"No {which} runs on host {host} with the data folder {data_dir}.")
    last = ", ".join(f"{name} {silence:.0f} s ago" for name, silence in silences.items())
    raise Unhealthy(f"No {which} is alive on host {host}. Last signs of life: {last}.")


def report_health(data_dir: Path, worker: str = "") -> int:
    """Check the workers and return the exit status: 0, or 1 after printing the reason. Without a terminal, success prints nothing."""
    try:
        alive = check_workers(data_dir, worker)
    except Unhealthy as error:
        print(error, file=sys.stderr)
        return 1
    if sys.stdout.isatty():
        print(f"Alive: {', '.join(alive)}")
    return 0
