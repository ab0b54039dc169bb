"""How much there is of everything, in one look: queues, jobs, and how often what has happened. For metrics."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import redis

from shared.jobs.scripts import JobScripts


@dataclass(frozen=True)
class QueueState:
    """Jobs that wait in a queue, the age of the oldest in milliseconds, and the tickets in Celery's list."""

    waiting: int
    oldest_ms: int
    wakeups: int


@dataclass(frozen=True)
class Stats:
    """``open`` jobs have not ended, ``running`` ones are held by a worker. ``counts`` has rising counts by what was counted,
    such as ``ended generate completed``."""

    open: int
    running: int
    dead_letters: int
    queues: Mapping[str, QueueState]
    counts: Mapping[str, int]

    def counted(self, what: str) -> dict[str, int]:
        """The counts whose name begins with this word, by the rest of the name."""
        return {name[len(what) + 1 :]: count for name, count in self.counts.items() if name.startswith(what + " ")}

    @property
    def deliveries_pending(self) -> int:
        """Deliveries that have not ended."""
        told = self.counted("deliveries")
        return max(0, told.get("made", 0) - told.get("delivered", 0) - told.get("failed", 0))


class StatsReader:
    """Looks, over one Redis."""

    def __init__(self, client: redis.Redis, *, clock: Callable[[], int] | None = None) -> None:
        self._scripts = JobScripts(client, clock=clock)

    def read(self) -> Stats:
        """The state of this moment."""
        told = json.loads(self._scripts.stats())
        # Redis' JSON cannot tell an empty list from an empty object.
        queues = {name: QueueState(**state) for name, state in dict(told["queues"] or {}).items()}
        return Stats(told["open"], told["running"], told["dead_letters"], queues, dict(told["counts"] or {}))
