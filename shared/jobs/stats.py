"""Statistics for metrics: queue lengths, numbers of jobs, and event counters, read in one script."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import redis

from shared.jobs.scripts import JobScripts
from shared.redis_connection import PREFIX


@dataclass(frozen=True)
class QueueState:
    """One queue: number of waiting jobs, age of the oldest in milliseconds, and number of wake-ups in Celery's list."""

    waiting: int
    oldest_ms: int
    wakeups: int


@dataclass(frozen=True, kw_only=True)
class WaitingOwner:
    """An owner with jobs in a queue: how many, of how many end users, the age of the oldest, and the service received there."""

    owner: str
    waiting: int
    end_users: int
    oldest_ms: int
    service: float


@dataclass(frozen=True, kw_only=True)
class WaitingQueue:
    """One queue and the owners who wait in it, in the order of their turns. Times are Unix milliseconds."""

    queue: str
    waiting: int
    oldest_ms: int | None
    paused_at: int | None
    owners: tuple[WaitingOwner, ...]


@dataclass(frozen=True)
class Stats:
    """A snapshot of all statistics.

    ``open`` jobs have not ended; ``running`` jobs are held by a worker. ``oldest_delivery_ms`` is the age of the
    oldest delivery that has not ended. ``stages`` counts the documents that workers read, by the phase of their job. ``counts`` are counters by name, such as
    ``ended generate completed``.
    """

    open: int
    running: int
    dead_letters: int
    oldest_delivery_ms: int
    queues: Mapping[str, QueueState]
    counts: Mapping[str, int]
    stages: Mapping[str, int] = field(default_factory=dict)

    def counters(self, group: str) -> dict[str, int]:
        """Counters whose name starts with the word ``group``, by the rest of the name."""
        return {name.removeprefix(f"{group} "): count for name, count in self.counts.items() if name.startswith(f"{group} ")}

    @property
    def deliveries_pending(self) -> int:
        """Number of deliveries that have not ended."""
        counts = self.counters("deliveries")
        return max(0, counts.get("made", 0) - counts.get("delivered", 0) - counts.get("failed", 0))


@dataclass(frozen=True)
class Distribution:
    """Observations of one histogram with one combination of labels: how many are up to each bound in seconds, and their sum in seconds.

    The bounds increase; the last is infinite and counts all observations.
    """

    labels: tuple[str, ...]
    buckets: tuple[tuple[float, int], ...]
    sum: float


class StatsReader:
    """Reads statistics from one Redis."""

    def __init__(self, client: redis.Redis, *, clock: Callable[[], int] | None = None) -> None:
        self._client: Any = client
        self._scripts = JobScripts(client, clock=clock)

    def list_queues(self, owner_limit: int) -> list[WaitingQueue]:
        """All queues with up to ``owner_limit`` owners each."""
        found = []
        for entry in json.loads(self._scripts.list_queues(owner_limit=owner_limit)) or ():
            owners = tuple(
                WaitingOwner(**{**owner, **{name: int(owner[name]) for name in ("waiting", "end_users", "oldest_ms")}})
                for owner in entry["owners"] or ()
            )
            oldest, paused_at = (int(value) if (value := entry.get(name)) else None for name in ("oldest_ms", "paused_at"))
            found.append(
                WaitingQueue(
                    queue=entry["queue"], waiting=int(entry["waiting"]), oldest_ms=oldest, paused_at=paused_at, owners=owners
                )
            )
        return found

    def queues_of(self, owner: str) -> set[str]:
        """The queues in which jobs of an owner wait."""
        queues = sorted(self._client.smembers(f"{PREFIX}queues"))
        with self._client.pipeline(transaction=False) as pipeline:
            for queue in queues:
                pipeline.zscore(f"{PREFIX}queue:{queue}:owners", owner)
            return {queue for queue, service in zip(queues, pipeline.execute(), strict=True) if service is not None}

    def histograms(self) -> dict[str, list[Distribution]]:
        """All histograms by name, as ``lua/lib/histogram.lua`` lists them. Labels are as in ``observed``."""
        bounds, flat = self._scripts.histograms()
        bounds = json.loads(bounds)
        series: dict[tuple[str, ...], dict[str, int]] = {}
        for field_name, number in zip(flat[::2], flat[1::2], strict=True):
            *labels, bound = field_name.split(" ")
            series.setdefault(tuple(labels), {})[bound] = int(number)
        found: dict[str, list[Distribution]] = {name: [] for name in bounds}
        for (name, *names), numbers in sorted(series.items()):
            sums = {math.inf if bound == "inf" else float(bound): count for bound, count in numbers.items() if bound != "sum"}
            limits = [*map(float, bounds.get(name, ())), math.inf]
            counts = accumulate(sums.get(limit, 0) for limit in limits)
            distribution = Distribution(tuple(names), tuple(zip(limits, counts, strict=True)), numbers.get("sum", 0) / 1e6)
            found.setdefault(name, []).append(distribution)
        return found

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
            dict(stats["stages"] or {}),
        )
