"""The health check of the workers on this host."""

import socket
from collections.abc import Sequence

from cli.errors import CommandError
from cli.local.running_stack import stack_redis_url
from shared.jobs.worker_registry import Worker, WorkerRegistry
from shared.redis_connection import connect, is_outage
from shared.settings import Settings
from shared.urls import without_login

ALIVE_SECONDS = 30.0
TIMEOUT_SECONDS = 5.0


class Unhealthy(Exception):
    """Why no worker on this host counts as alive: one sentence for the user."""


def check_workers(settings: Settings, *, explicit: bool) -> list[str]:
    """The names of the workers on this host that sent a heartbeat recently. ``explicit``: use the Redis URL in the settings.

    Raises Unhealthy if there is none, or if Redis cannot be found or reached.
    """
    try:
        url = stack_redis_url(settings, explicit=explicit)
    except CommandError as error:
        raise Unhealthy(str(error)) from None
    address = without_login(url)
    try:
        registry = WorkerRegistry(connect(url, timeout=TIMEOUT_SECONDS, retries=0))
        alive = _on_this_host(registry.alive(ALIVE_SECONDS))
        # A worker with several processes has an entry for each; the latest heartbeat counts.
        known = [] if alive else sorted(_on_this_host(registry.workers()), key=lambda worker: worker.seen_at)
        silences = {worker.name: registry.silent_for_ms(worker) / 1000 for worker in known}
    except Exception as error:
        if not is_outage(error):
            raise
        raise Unhealthy(f"Redis at {address} is not reachable ({error}).") from None
    if alive:
        return sorted({worker.name for worker in alive})
    if not known:
        raise Unhealthy(f"No worker on host {socket.gethostname()} has sent a heartbeat to Redis at {address}.")
    last = ", ".join(f"{name} {silence:.0f} s ago" for name, silence in sorted(silences.items()))
    raise Unhealthy(
        f"No worker on host {socket.gethostname()} is alive, according to Redis at {address}. Last heartbeats: {last}."
    )


def _on_this_host(workers: Sequence[Worker]) -> list[Worker]:
    return [worker for worker in workers if worker.name.rpartition("@")[2] == socket.gethostname()]
