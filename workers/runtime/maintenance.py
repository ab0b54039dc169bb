"""Maintenance: periodic duties on jobs and workers that no single worker owns, run by a thread in every Celery worker.

Each duty is a service with ``run_once(now)``, where ``now`` is a monotonic time in seconds. All of them are safe to repeat
and to run on many workers at once, so there is no leader election and the duties are done while one worker lives. The workers of one
machine take turns, so that an idle machine with many of them does little.
"""

import hashlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import redis

from shared.jobs.maintenance import JobMaintenance
from shared.jobs.worker_registry import Worker, WorkerRegistry
from shared.liveness import liveness_folder
from shared.machine import machine_id
from shared.redis_connection import is_outage
from shared.settings import Settings
from workers.runtime.outage import OutageLog
from workers.runtime.turn_file import TurnFile

logger = logging.getLogger(__name__)

PURGE_SECONDS = 60.0
MAX_PURGES = 100
WAKEUP_INTERVAL_MS = 1000
# Of the interval. A worker that has the turn gets it again, and one that dies loses it to the next round of any other.
TURN_FRACTION = 0.9


class MaintenanceService(Protocol):
    """One periodic duty."""

    def run_once(self, now: float) -> None: ...


class LeaseReaper:
    """Handles jobs that are due: lapsed leases, deadlines, retries whose time has come.

    ``jobs_wait`` is whether any queue had a job to claim in the latest round. Otherwise, two of the later services have nothing to do.
    """

    def __init__(self, settings: Settings, maintenance: JobMaintenance, now: float) -> None:
        self._settings = settings
        self._maintenance = maintenance
        self._stable_since = now
        self.jobs_wait = True

    def note_outage(self, now: float) -> None:
        """Judge no lease for a moment: after an outage, workers need time to renew the leases of jobs that still run."""
        self._stable_since = now

    def run_once(self, now: float) -> None:
        settings = self._settings
        stable = now - self._stable_since > 2 * settings.renew_seconds
        gap = max(settings.lease_seconds / 4, 3 * settings.maintenance_seconds)
        reaped = self._maintenance.reap(leases=stable, gap_ms=int(gap * 1000), grace_ms=int(2000 * settings.renew_seconds))
        self.jobs_wait = reaped.jobs_wait
        for job in reaped.lost:
            logger.warning("job %s: the lease lapsed; the job is queued again", job)


class DeadWorkerCleaner:
    """Requeues the jobs of dead workers without waiting for their leases.

    Each round checks the processes of this machine. The registry is read only as often as workers write to it.
    """

    def __init__(self, settings: Settings, maintenance: JobMaintenance, worker_registry: WorkerRegistry) -> None:
        self._settings = settings
        self._maintenance = maintenance
        self._worker_registry = worker_registry
        self._workers: Sequence[Worker] = ()
        self._read_at = -math.inf

    def run_once(self, now: float) -> None:
        if now - self._read_at >= self._settings.renew_seconds:
            self._workers, now_ms = self._worker_registry.workers_and_time()
            self._read_at = now
            dead = [worker for worker in self._workers if self._is_dead_neighbour(worker) or self._is_silent(worker, now_ms)]
        else:
            dead = [worker for worker in self._workers if self._is_dead_neighbour(worker)]
        for worker in dead:
            self._read_at = -math.inf
            self._requeue_jobs(worker)

    def _is_dead_neighbour(self, worker: Worker) -> bool:
        return self._worker_registry.is_dead_neighbour(worker)

    def _is_silent(self, worker: Worker, now_ms: int) -> bool:
        """Whether a worker has been silent for two leases."""
        silent = now_ms - worker.seen_at > 2000 * self._settings.lease_seconds
        # Checked last: a stall of Redis that lasted until now makes every worker look silent.
        return silent and self._maintenance.reaps_steadily()

    def requeue_jobs_of_predecessor(self, name: str) -> None:
        """Requeue what an earlier worker of this name held in a container that is gone."""
        for worker in self._worker_registry.workers():
            if worker.name == name and worker.machine != machine_id():
                self._requeue_jobs(worker)

    def _requeue_jobs(self, worker: Worker) -> None:
        for job in self._maintenance.mark_worker_dead(worker.id):
            logger.warning("job %s: worker %s is dead; the job is queued again", job, worker.id)


class ModelScheduler:
    """Assigns models that jobs wait for to workers, and ends jobs whose model no live worker can hold."""

    def __init__(self, settings: Settings, maintenance: JobMaintenance, jobs_wait: Callable[[], bool]) -> None:
        self._maintenance = maintenance
        self._jobs_wait = jobs_wait
        self._waited = True
        # A killed worker is restarted with its model; loading the model elsewhere meanwhile would be wasted.
        self._patience_ms = int(2000 * settings.lease_seconds)

    def run_once(self, now: float) -> None:
        jobs_wait = self._jobs_wait()
        # Once more after the last of them, to forget since when they have waited.
        if not jobs_wait and not self._waited:
            return
        assigned, ended = self._maintenance.schedule_models(patience_ms=self._patience_ms)
        for model, worker in assigned.items():
            logger.info("jobs wait for model %s, which no worker holds; it is assigned to %s", model, worker)
        for job in ended:
            logger.warning("job %s: ended, as no live worker can hold its model", job)
        self._waited = jobs_wait


class WakeupIssuer:
    """Sends the wake-ups that queues lack."""

    def __init__(self, maintenance: JobMaintenance, jobs_wait: Callable[[], bool]) -> None:
        self._maintenance = maintenance
        self._jobs_wait = jobs_wait

    def run_once(self, now: float) -> None:
        if not self._jobs_wait():
            return
        for queue, count in self._maintenance.send_missing_wakeups(WAKEUP_INTERVAL_MS).items():
            logger.debug("queue %s lacked %d wake-ups", queue, count)


class StatsRecorder:
    """Writes a sample of the statistics at the start of every interval of ten seconds. The first worker of all machines does it."""

    def __init__(self, maintenance: JobMaintenance) -> None:
        self._maintenance = maintenance
        self._due = -math.inf

    def run_once(self, now: float) -> None:
        if now >= self._due:
            self._due = now + self._maintenance.record_stats()


class LogRewriter:
    """Has Redis rewrite its append-only file at intervals, so that deleted prompts and results leave the disk."""

    def __init__(self, maintenance: JobMaintenance, now: float) -> None:
        self._maintenance = maintenance
        self._checked_at = now

    def run_once(self, now: float) -> None:
        if now - self._checked_at <= PURGE_SECONDS:
            return
        self._checked_at = now
        try:
            if self._maintenance.rewrite_log():
                logger.info("Redis rewrites its append-only file, without what was deleted")
        except redis.ResponseError as error:
            if is_outage(error):
                raise
            logger.warning("Redis does not rewrite its append-only file (%s), so deleted data may stay in it", error)


class JobPurger:
    """Deletes, once a minute, jobs that have outlived their retention, or exceed what is kept for their owner."""

    def __init__(self, maintenance: JobMaintenance, now: float) -> None:
        self._maintenance = maintenance
        self._purged_at = now

    def run_once(self, now: float) -> None:
        if now - self._purged_at > PURGE_SECONDS:
            self._purged_at = now
            # In parts, between which Redis answers others; a busy server ends thousands of jobs a minute.
            for _ in range(MAX_PURGES):
                if not self._maintenance.purge():
                    return


class MaintenanceThread(threading.Thread):
    """Runs services once per ``interval`` seconds until ``stopping`` is set: ``services`` if ``take_turn`` returns true, and always
    ``own_services``, which no other worker can run."""

    def __init__(
        self,
        services: Sequence[MaintenanceService],
        interval: float,
        stopping: threading.Event,
        *,
        own_services: Sequence[MaintenanceService] = (),
        take_turn: Callable[[], bool] = lambda: True,
        on_outage: Callable[[float], None] = lambda now: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name="maintenance", daemon=True)
        self._services = services
        self._own_services = own_services
        self._take_turn = take_turn
        self._has_turn = False
        self._interval = interval
        self._stopping = stopping
        self._on_outage = on_outage
        self._outage = OutageLog(logger, "maintenance")
        self._clock = clock

    def run(self) -> None:
        while not self._stopping.wait(self._interval):
            self.run_services()

    def run_services(self) -> None:
        """Run each service once. An outage of Redis ends the round; any other failure is logged and harms no other service."""
        for duty in self._duties():
            try:
                duty(self._clock())
            except Exception as error:  # the top of this thread, which must live as long as the process
                if is_outage(error):
                    self._outage.note_failure(error, "it waits")
                    self._on_outage(self._clock())
                    return
                logger.exception("%s failed", duty.__qualname__)
        self._outage.note_success()

    def _duties(self) -> Iterator[Callable[[float], None]]:
        yield self._begin_round
        if self._has_turn:
            yield from (service.run_once for service in self._services)
        yield from (service.run_once for service in self._own_services)

    def _begin_round(self, now: float) -> None:
        self._has_turn = False
        self._has_turn = self._take_turn()


def maintenance_thread(
    settings: Settings,
    maintenance: JobMaintenance,
    worker_registry: WorkerRegistry,
    stopping: threading.Event,
    own_services: Sequence[MaintenanceService] = (),
) -> MaintenanceThread:
    """A thread with all services, in the order in which they depend on each other's results; those of this worker come last."""
    now = time.monotonic()
    reaper = LeaseReaper(settings, maintenance, now)

    def jobs_wait() -> bool:
        return reaper.jobs_wait

    services: list[MaintenanceService] = [
        reaper,
        DeadWorkerCleaner(settings, maintenance, worker_registry),
        ModelScheduler(settings, maintenance, jobs_wait),
        WakeupIssuer(maintenance, jobs_wait),
        StatsRecorder(maintenance),
        JobPurger(maintenance, now),
        LogRewriter(maintenance, now),
    ]
    seconds = settings.maintenance_seconds
    # Only processes of a machine can see that a worker there has died, so each machine has turns of its own.
    machine = hashlib.sha256(machine_id().encode()).hexdigest()[:16]
    turn = TurnFile(liveness_folder(settings.data_dir) / f"maintenance@{machine}", TURN_FRACTION * seconds)
    return MaintenanceThread(
        services,
        seconds,
        stopping,
        own_services=own_services,
        take_turn=turn.take_turn,
        on_outage=reaper.note_outage,
    )
