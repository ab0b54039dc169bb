"""The janitor: a thread in every Celery worker that attends to jobs nobody else attends to.

Everything it does is safe to do twice and by many at once, so no janitor is elected and none is missed while one lives.
"""

import logging
import threading
import time

from shared.jobs.transitions import Lifecycle
from shared.jobs.worker_registry import Worker, WorkerRegistry
from shared.machine import machine_id
from shared.redis_connection import is_outage
from shared.settings import Settings

logger = logging.getLogger(__name__)

PURGE_SECONDS = 60.0
RING_MS = 1000


class MaintenanceThread:
    """Reaps lapsed leases, returns the jobs of dead neighbours, finds seats for models that are asked for, issues missing tickets,
    purges what is past its time."""

    def __init__(self, settings: Settings, lifecycle: Lifecycle, worker_registry: WorkerRegistry, name: str) -> None:
        self._settings = settings
        self._lifecycle = lifecycle
        self._worker_registry = worker_registry
        self._name = name
        self._stop = threading.Event()
        self._calm_since = time.monotonic()
        self._purged = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="janitor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._settings.maintenance_seconds):
            try:
                self.round()
            except Exception as error:  # the top of this thread, which must live as long as the process
                self._calm_since = time.monotonic()
                if is_outage(error):
                    logger.warning("Redis is away (%s); the janitor waits", error)
                else:
                    logger.exception("a round of the janitor failed")

    def round(self) -> None:
        """Do everything once."""
        settings = self._settings
        # After an outage workers need a moment to renew leases that lapsed meanwhile: their jobs still run.
        calm = time.monotonic() - self._calm_since > 2 * settings.renew_seconds
        gap = max(settings.lease_seconds / 4, 3 * settings.maintenance_seconds)
        _, lost = self._lifecycle.reap(leases=calm, gap_ms=int(gap * 1000), grace_ms=int(2000 * settings.renew_seconds))
        for job in lost:
            logger.warning("job %s: its lease has lapsed; it goes back to its queue", job)
        for worker in self._worker_registry.workers():
            if self.is_gone(worker):
                for job in self._lifecycle.mark_worker_dead(worker.id):
                    logger.warning("job %s: its worker %s is gone; it goes back to its queue", job, worker.id)
        # A worker that was killed comes back to its seat; one that is loading elsewhere meanwhile would be in vain.
        given, ended = self._lifecycle.schedule_models(patience_ms=int(2000 * settings.lease_seconds))
        for model, assignment in given.items():
            logger.info("jobs wait for model %s, which nobody holds: %s is to hold it", model, assignment)
        for job in ended:
            logger.warning("job %s: no living worker can hold its model; it has ended", job)
        for queue, count in self._lifecycle.missing_wakeups(RING_MS).items():
            logger.debug("queue %s lacked %d tickets", queue, count)
        if time.monotonic() - self._purged > PURGE_SECONDS:
            self._purged = time.monotonic()
            self._lifecycle.purge()

    def is_gone(self, worker: Worker) -> bool:
        """Whether a worker is known to be dead: its process is not there, or nobody has heard of it for long."""
        if self._worker_registry.is_dead_neighbour(worker):
            return True
        silent = self._worker_registry.silent_for_ms(worker) > 2000 * self._settings.lease_seconds
        # Asked afterwards: a stall of Redis until now would make all workers look silent.
        return silent and self._lifecycle.reaps_steadily()

    def return_former_jobs(self) -> None:
        """Take back the jobs of this worker's former self, which ran under the same name in a container that is gone."""
        for worker in self._worker_registry.workers():
            if worker.name == self._name and worker.machine != machine_id():
                for job in self._lifecycle.mark_worker_dead(worker.id):
                    logger.warning("job %s: was held by this worker's former self; it goes back to its queue", job)
