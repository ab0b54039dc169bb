"""Maintenance of jobs: what must happen although no client or worker asks for it.

Every method is safe to call twice and from many processes at once.
"""

import redis

from shared.jobs.scripts import JobScripts
from shared.jobs.wakeups import Wake, send_wakeups
from shared.lua_scripts import Clock
from shared.redis_connection import PREFIX
from shared.settings import Settings


class JobMaintenance:
    """Reaps lapsed leases, sends missing wake-ups, schedules models and purges expired entries."""

    def __init__(self, client: redis.Redis, settings: Settings, wake: Wake, *, clock: Clock | None = None) -> None:
        self._client = client
        self._settings = settings
        self._wake = wake
        self._scripts = JobScripts(client, clock=clock)

    def reap(
        self, *, limit: int = 200, leases: bool = True, gap_ms: int | None = None, grace_ms: int = 0
    ) -> tuple[int, list[str]]:
        """Attend to jobs whose time has come; how many, and which attempts were lost. ``leases=False`` judges no lease.

        When nobody has reaped for ``gap_ms``, no lease is judged for ``grace_ms``, as nobody could renew one either.
        """
        looked_at, lost, queues = self._scripts.reap(limit=limit, leases=int(leases), gap_ms=gap_ms, grace_ms=grace_ms)
        send_wakeups(self._wake, queues)
        return looked_at, lost

    def reaps_steadily(self) -> bool:
        """Whether somebody has been reaping without a gap; after one, silence proves nobody's death."""
        with self._client.pipeline() as pipeline:
            pipeline.exists(PREFIX + "reaping")
            pipeline.exists(PREFIX + "reaping:resumed")
            return pipeline.execute() == [1, 0]

    def mark_worker_dead(self, worker: str) -> list[str]:
        """Take all jobs from a worker known to be dead; their ids."""
        lost, queues = self._scripts.mark_worker_dead(worker=worker)
        send_wakeups(self._wake, queues)
        return list(lost)

    def missing_wakeups(self, interval_ms: int) -> dict[str, int]:
        """Issue the tickets that queues lack; how many for which queue."""
        flat = self._scripts.missing_wakeups(interval_ms=interval_ms)
        missing = {queue: int(count) for queue, count in zip(flat[::2], flat[1::2], strict=True)}
        for queue, count in missing.items():
            self._wake(queue, count)
        return missing

    def schedule_models(self, *, patience_ms: int, limit: int = 200) -> tuple[dict[str, str], list[str]]:
        """Wish for the models that jobs wait for and nobody holds: model and worker's name. And the jobs that were ended as no
        living worker could hold their model. A silent worker keeps its seat for ``patience_ms``."""
        settings = self._settings
        given, ended, queues = self._scripts.schedule_models(
            alive_ms=int(3000 * settings.renew_seconds),
            patience_ms=patience_ms,
            on_demand=int(settings.load_on_demand),
            unschedulable_ms=int(1000 * settings.unschedulable_seconds),
            limit=limit,
        )
        send_wakeups(self._wake, queues)
        return dict(zip(given[::2], given[1::2], strict=True)), list(ended)

    def purge(self, limit: int = 200) -> int:
        """Drop what is left of jobs that have outlived their retention; how many traces."""
        return int(self._scripts.purge(limit=limit))
