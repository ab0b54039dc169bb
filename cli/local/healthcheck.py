"""The health check of a worker container."""

import socket

from shared.jobs.worker_registry import WorkerRegistry
from shared.redis_connection import OUTAGE, connect
from shared.settings import Settings

ALIVE_SECONDS = 30.0


def worker_is_alive(settings: Settings) -> bool:
    """Whether a worker on this host sent a heartbeat recently; False if Redis is not available."""
    try:
        workers = WorkerRegistry(connect(settings.redis_url, timeout=5, retries=0)).alive(ALIVE_SECONDS)
    except OUTAGE:
        return False
    return any(worker.name.rpartition("@")[2] == socket.gethostname() for worker in workers)
