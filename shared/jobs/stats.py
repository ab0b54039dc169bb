"""Statistics for metrics: queue lengths, numbers of jobs, and event counters, read in one script."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import redis

from shared.jobs.scripts import JobScripts


@dataclass(frozen=True)
class QueueState:
    """One queue: number of waiting jobs, age of the oldest in milliseconds, and number of wake-ups in Celery's list."""

    waiting: int
    oldest_ms: int
    wakeups: int


@dataclass(frozen=True)
class Stats:
    """A snapshot of all statistics.

    ``open`` jobs have not ended; ``running`` jobs are held by a worker. ``oldest_delivery_ms`` is the age of the
    oldest delivery that has not ended. ``counts`` are counters by name, such as
    ``ended generate completed``.
    """

    open: int
    running: int
    dead_letters: int
    oldest_delivery_ms: int
    queues: Mapping[str, QueueState]
    counts: Mapping[str, int]

    def counters(self, group: str) -> dict[str, int]:
        """Counters whose name starts with the word ``group``, by the rest of the name."""
        return {name.removeprefix(f"{group} "): count for name, count in self.counts.items() if name.startswith(f"{group} ")}

    @property
    def deliveries_pending(self) -> int:
        """Number of deliveries that have not ended."""
        counts = self.counters("deliveries")
        return max(0, counts.get("made", 0) - counts.get("delivered", 0) - counts.get("failed", 0))


class StatsReader:
    """Reads statistics from one Redis."""

    def __init__(self, client: redis.Redis, *, clock: Callable[[], int] | None = None) -> None:
        self._scripts = JobScripts(client, clock=clock)

    def collect(self) -> Stats:
        """The current statistics."""
        stats = json.loads(self._scripts.stats())
        # Redis' JSON does not distinguish an empty list from an empty object.
        queues = {name: QueueState(**state) for name, state in dict(stats["queues"] or {}).items()}
        return Stats(
            stats["open"],
            stats["running"],
            stats["dead_letters"],
            stats["oldest_delivery_ms"],
            queues,
            dict(stats["counts"] or {}),
        )
