"""Name holder: keeps the name of a worker for one process.

Two workers of one name would take each other for dead, and requeue each other's jobs: a worker that starts requeues what an earlier one of
its name held.
"""

import logging
import math
import time
from collections.abc import Callable

import redis

from shared.jobs.worker_registry import WorkerRegistry, is_running_here
from shared.settings import Settings

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5


class NameHolder:
    """Takes the name of a worker when it starts, and keeps it as a maintenance service. ``on_loss`` is called if another worker got it."""

    def __init__(self, worker_registry: WorkerRegistry, name: str, settings: Settings, *, on_loss: Callable[[], None]) -> None:
        self._worker_registry = worker_registry
        self._name = name
        self._interval = max(settings.renew_seconds / 2, settings.maintenance_seconds)
        self._ttl_seconds = 3 * max(settings.renew_seconds, settings.maintenance_seconds)
        self._kept_at = -math.inf
        self._on_loss = on_loss
        self._lost = False

    def take_name(self, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], object] = time.sleep) -> str:
        """Take the name, as soon as Redis answers. Returns "", or why this worker must not start.

        A worker in a container that is gone keeps its name until it lapses.
        """
        latest, replaces = None, ""
        while True:
            try:
                holder = self._worker_registry.hold_name(self._name, self._ttl_seconds, replaces=replaces)
            except redis.RedisError as error:
                logger.warning("Redis cannot be reached (%s); trying again", error)
                sleep(1.0)
                continue
            latest = clock() + self._ttl_seconds + 1 if latest is None else latest
            if not holder:
                return ""
            running = is_running_here(holder)
            if running or clock() > latest:
                machine, pid, *_ = holder.split(" ")
                where = f"process {pid}" if running else f"process {pid} of machine {machine}"
                return f"Another worker named {self._name} runs ({where}). Start this one with another number, or stop the other one."
            replaces = holder if running is False else ""
            if running is None:
                sleep(POLL_SECONDS)

    def run_once(self, now: float) -> None:
        """Keep the name, if it is time to."""
        if now < self._kept_at + self._interval:
            return
        holder = self._worker_registry.hold_name(self._name, self._ttl_seconds)
        self._kept_at = now
        if holder and not self._lost:
            self._lost = True
            logger.critical("another worker has taken the name %s (%s); this one drains and exits", self._name, holder)
            self._on_loss()

    def give_up(self) -> None:
        """Let a successor have the name at once."""
        try:
            self._worker_registry.hold_name(self._name, 0)
        except redis.RedisError as error:
            logger.info("the name %s could not be given up (%s); it lapses", self._name, error)
