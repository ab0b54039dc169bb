"""The health check of a worker's container. Knows the list of workers, not what they do."""

import socket

from shared.jobs.worker_registry import WorkerRegistry
from shared.redis_connection import OUTAGE, connect
from shared.settings import Settings

SILENCE_SECONDS = 30.0


def worker_is_alive(settings: Settings) -> bool:
    """Whether any worker of this host has told lately that it lives; False when Redis cannot be asked."""
    try:
        workers = WorkerRegistry(connect(settings.redis_url, timeout=5, retries=0)).alive(SILENCE_SECONDS)
    except OUTAGE:
        return False
    return any(worker.name.rpartition("@")[2] == socket.gethostname() for worker in workers)
