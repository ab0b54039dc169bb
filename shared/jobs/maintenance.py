"""Job maintenance: reaping, missing wake-ups, model scheduling, statistics and purging.

Every method may be called repeatedly and from several processes at once.
"""

from typing import NamedTuple

import redis

from shared.jobs.scripts import JobScripts
from shared.jobs.stats_history import StatsHistory
from shared.jobs.wakeups import Wake, send_wakeups
from shared.lua_scripts import Clock
from shared.redis_connection import PREFIX
from shared.settings import Settings


class Reaped(NamedTuple):
    """``processed`` is the number of jobs that were due, ``lost`` the ids of those that lost an attempt, and ``jobs_wait`` whether any queue
    has a job to claim."""

    processed: int
    lost: list[str]
    jobs_wait: bool


class JobMaintenance:
    """Reaps lapsed leases, sends missing wake-ups, schedules models and purges expired entries."""

    def __init__(self, client: redis.Redis, settings: Settings, wake: Wake, *, clock: Clock | None = None) -> None:
        self._client = client
        self._settings = settings
        self._wake = wake
        self._scripts = JobScripts(client, clock=clock)
        self._history = StatsHistory(client, clock=clock)

    def reap(self, *, limit: int = 200, leases: bool = True, gap_ms: int | None = None, grace_ms: int = 0) -> Reaped:
        """Process jobs that are due.

        ``leases=False`` leaves lapsed leases alone. So does a gap: if no process has reaped for ``gap_ms``, no lease lapses for
        the next ``grace_ms``, because workers could not renew their leases in the meantime.
        """
        processed, lost, queues, jobs_wait = self._scripts.reap(limit=limit, leases=int(leases), gap_ms=gap_ms, grace_ms=grace_ms)
        send_wakeups(self._wake, queues)
        return Reaped(processed, lost, bool(jobs_wait))

    def reaps_steadily(self) -> bool:
        """Whether jobs have been reaped without a gap. After a gap, a silent worker is not necessarily dead."""
        with self._client.pipeline() as pipeline:
            pipeline.exists(PREFIX + "reaping")
            pipeline.exists(PREFIX + "reaping:resumed")
            return pipeline.execute() == [1, 0]

    def mark_worker_dead(self, worker: str) -> list[str]:
        """Take all jobs away from a dead worker; return their ids."""
        lost, queues = self._scripts.mark_worker_dead(worker=worker)
        send_wakeups(self._wake, queues)
        return list(lost)

    def send_missing_wakeups(self, interval_ms: int) -> dict[str, int]:
        """Send the wake-ups that queues lack; return their number per queue."""
        flat = self._scripts.missing_wakeups(interval_ms=interval_ms)
        missing = {queue: int(count) for queue, count in zip(flat[::2], flat[1::2], strict=True)}
        for queue, count in missing.items():
            self._wake(queue, count)
        return missing

    def schedule_models(self, *, patience_ms: int, limit: int = 200) -> tuple[dict[str, str], list[str]]:
        """Assign the models that jobs wait for to workers, and fail jobs whose model no live worker can load.

        Returns the worker's name per assigned model, and the ids of the failed jobs. A silent worker keeps its assignment for
        ``patience_ms``.
        """
        settings = self._settings
        assigned, ended, queues = self._scripts.schedule_models(
            alive_ms=int(3000 * settings.renew_seconds),
            patience_ms=patience_ms,
            on_demand=int(settings.load_on_demand),
            unschedulable_ms=int(1000 * settings.unschedulable_seconds),
            limit=limit,
        )
        send_wakeups(self._wake, queues)
        return dict(zip(assigned[::2], assigned[1::2], strict=True)), list(ended)

    def record_stats(self) -> float:
        """Write the statistics of this interval of ten seconds, unless another process has; returns the seconds until the next one."""
        return self._history.record(3 * self._settings.renew_seconds)

    def rewrite_log(self) -> bool:
        """Have Redis rewrite its append-only file unless that was done within the interval of the settings; returns whether it does.

        Until then, the file contains what was deleted. Raises redis.ResponseError if Redis has no such file or forbids it.
        """
        interval_ms = int(1000 * self._settings.log_rewrite_seconds)
        if not self._client.set(PREFIX + "log_rewritten", "1", nx=True, px=interval_ms):
            return False
        self._client.bgrewriteaof()
        return True

    def purge(self, limit: int = 200) -> int:
        """Delete up to ``limit`` jobs that have outlived their retention, and up to ``limit`` of each owner who has more than is kept;
        return how many jobs were deleted."""
        settings = self._settings
        return int(self._scripts.purge(limit=limit, kept_jobs=settings.max_kept_jobs, kept_bytes=settings.max_kept_bytes))
