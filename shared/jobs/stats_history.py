"""Statistics of the last hour and the last day: two rings of samples in Redis, one every ten seconds or five minutes, for charts.

A sample has the state of queues and engines at its time and the counters of ``stats``, which only grow. What happened between two
samples is the difference of their counters; if the sample before is missing, it is unknown, not zero.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import redis

from shared.jobs.scripts import JobScripts
from shared.jobs.stats import Stats, StatsReader
from shared.jobs.worker_registry import Worker, WorkerRegistry
from shared.lua_scripts import Clock
from shared.redis_connection import PREFIX

# A sample has all GPUs first, then the queues with most waiting jobs, as far as they fit: the rings take 5 MB at most.
MAX_SAMPLE_BYTES = 8000
FAILURES = ("failed", "expired")

Series = list[float | None]

# The values of a queue and of a gpu worker in a sample, in this order. Those of a gpu worker begin with the tokens that its engine has
# generated and the time (ms) of the heartbeat that says so: between two samples it may have written a short answer and be idle again.
QUEUE_VALUES = ("waiting", "oldest_ms", "submitted", "ended", "failed")
GPU_STATES = ("batch", "batch_limit", "cache_use", "memory_used", "memory_total", "utilisation", "temperature", "power")
GPU_VALUES = ("tokens", "seen_at", *GPU_STATES)


@dataclass(frozen=True)
class Ring:
    """The samples of the last ``minutes``, one in each interval."""

    name: str
    interval_seconds: int
    minutes: int

    @property
    def kept(self) -> int:
        """How many samples it has: one more than it shows, as counters need the sample before the first one."""
        return 1 + self.minutes * 60 // self.interval_seconds


HOUR, DAY = Ring("hour", 10, 60), Ring("day", 300, 24 * 60)
RINGS = (HOUR, DAY)
MAX_MINUTES = DAY.minutes


@dataclass(frozen=True)
class History:
    """Samples of consecutive intervals; None where none was written. Interval ``first + i`` begins at that number times
    ``interval_seconds``."""

    first: int
    samples: Sequence[Mapping[str, Any] | None]
    interval_seconds: int = HOUR.interval_seconds

    def totals(self, name: str) -> Series:
        """A value of the whole server."""
        return [None if sample is None else sample[name] for sample in self.samples[1:]]

    def growth(self, name: str) -> Series:
        """How much a counter of the whole server grew in each interval."""
        return self._growth([None if sample is None else sample[name] for sample in self.samples])

    def workers(self, pool: str) -> Series:
        """Live workers of a pool."""
        return [None if sample is None else sample["workers"].get(pool, 0) for sample in self.samples[1:]]

    def queues(self) -> list[str]:
        return sorted({name for sample in self.samples for name in (sample or {}).get("queues", ())})

    def queue(self, queue: str, name: str) -> Series:
        """A value of a queue at the end of each interval; for a counter, how much it grew."""
        values = self._values("queues", queue, QUEUE_VALUES.index(name), absent=0)
        return self._growth(values) if name in ("submitted", "ended", "failed") else values[1:]

    def gpus(self) -> dict[str, str]:
        """Names of the gpu workers, and the model that each had last."""
        found: dict[str, str] = {}
        for sample in self.samples:
            found |= {name: model for name, (model, *_) in ((sample or {}).get("gpus") or {}).items()}
        return dict(sorted(found.items()))

    def gpu(self, gpu: str, name: str) -> Series:
        """A value of a gpu worker."""
        return self._values("gpus", gpu, 1 + GPU_VALUES.index(name))[1:]

    def speed(self, gpu: str) -> Series:
        """Tokens per second of a gpu worker."""
        tokens, times = (self._values("gpus", gpu, 1 + GPU_VALUES.index(name)) for name in ("tokens", "seen_at"))
        return [_speed(*values) for values in zip(tokens, times, tokens[1:], times[1:], strict=False)]

    def total_speed(self) -> Series:
        """Tokens per second of all gpu workers together."""
        speeds = zip(*map(self.speed, self.gpus()), strict=True)
        found = [[value for value in values if value is not None] for values in speeds]
        return [round(sum(known), 2) if known else None for known in found] or [None] * (len(self.samples) - 1)

    def _values(self, group: str, entry: str, place: int, absent: float | None = None) -> Series:
        """One value of an entry in all samples; ``absent`` where a sample has no such entry, but would have had room for it."""
        return [
            sample[group][entry][place]
            if sample and entry in sample[group]
            else absent
            if sample and not sample["omitted"]
            else None
            for sample in self.samples
        ]

    @staticmethod
    def _growth(values: Series) -> Series:
        # A counter that has shrunk is that of another, older Redis.
        return [
            now - before if now is not None and before is not None and now >= before else None for before, now in pairwise(values)
        ]


def _speed(tokens: float | None, seen_at: float | None, tokens_now: float | None, seen_now: float | None) -> float | None:
    """Tokens per second between two heartbeats; None if there were none or if it is the same one."""
    if tokens is None or seen_at is None or tokens_now is None or seen_now is None or seen_now <= seen_at:
        return None
    # A new engine counts from zero.
    return round(1000 * (tokens_now - tokens if tokens_now >= tokens else tokens_now) / (seen_now - seen_at), 2)


class StatsHistory:
    """Writes and reads the rings of one Redis."""

    def __init__(self, client: redis.Redis, *, clock: Clock | None = None) -> None:
        self._client: Any = client
        self._scripts = JobScripts(client, clock=clock)
        self._stats_reader = StatsReader(client, clock=clock)
        self._worker_registry = WorkerRegistry(client, clock=clock)

    def record(self, alive_seconds: float) -> float:
        """Write the sample of this interval into each ring that lacks it; returns the seconds until the next interval begins.

        Any number of processes may call it, as often as they like: the first one in an interval of a ring writes. Workers with a
        heartbeat within ``alive_seconds`` count.
        """
        now_ms = self._worker_registry.now_ms()
        newest = self._client.mget([f"{PREFIX}stats:interval:{ring.name}" for ring in RINGS])
        due = [ring for ring, interval in zip(RINGS, newest, strict=True) if interval != str(_interval(ring, now_ms))]
        if due:
            sample = sample_of(self._stats_reader.collect(), self._worker_registry.alive(alive_seconds))
            for ring in due:
                self._scripts.record_sample(
                    ring=ring.name, sample=sample, interval_ms=1000 * ring.interval_seconds, kept=ring.kept
                )
        return HOUR.interval_seconds - now_ms / 1000 % HOUR.interval_seconds

    def read(self, minutes: int) -> History:
        """The samples of the last minutes, the newest last, and before them the one that their counters need.

        They are those of the ring with the shortest intervals that goes back so far.
        """
        ring = next(ring for ring in RINGS if minutes <= ring.minutes)
        count = minutes * 60 // ring.interval_seconds + 1
        found: dict[int, str] = {}
        for entry in self._client.lrange(f"{PREFIX}stats:samples:{ring.name}", 0, count):
            interval, _, sample = entry.partition(" ")
            found.setdefault(int(interval), sample)
        last = _interval(ring, self._worker_registry.now_ms())
        # The sample of the present interval is written within its first seconds.
        last -= last not in found
        first = last - count + 1
        samples = [json.loads(found[interval]) if interval in found else None for interval in range(first, last + 1)]
        return History(first + 1, samples, ring.interval_seconds)


def _interval(ring: Ring, now_ms: int) -> int:
    return now_ms // (1000 * ring.interval_seconds)


def sample_of(stats: Stats, workers: Iterable[Worker]) -> str:
    """The statistics as a sample, in JSON of at most ``MAX_SAMPLE_BYTES``."""
    workers = list(workers)
    entered, left, failed = stats.counters("entered"), Counter[str](), Counter[str]()
    for name, count in stats.counters("left").items():
        queue, _, outcome = name.rpartition(" ")
        left[queue] += count
        failed[queue] += count if outcome in FAILURES else 0
    ended = stats.counters("ended")
    sample: dict[str, Any] = {
        "queued": sum(queue.waiting for queue in stats.queues.values()),
        "running": stats.running,
        "oldest_ms": max((queue.oldest_ms for queue in stats.queues.values()), default=0),
        "submitted": sum(stats.counters("submitted").values()),
        "ended": sum(ended.values()),
        "failed": sum(count for name, count in ended.items() if name.rpartition(" ")[2] in FAILURES),
        "workers": dict(Counter(worker.pool for worker in workers)),
        "gpus": {},
        "queues": {},
        "omitted": 0,
    }
    gpus = {worker.name: [worker.model, *_gpu_values(worker)] for worker in workers if worker.pool == "gpu"}
    queues = {
        name: [queue.waiting, queue.oldest_ms, entered.get(name, 0), left[name], failed[name]]
        for name, queue in sorted(stats.queues.items(), key=lambda item: -item[1].waiting)
    }
    room = MAX_SAMPLE_BYTES - len(json.dumps(sample, separators=(",", ":")))
    for group, entries in (("gpus", gpus), ("queues", queues)):
        for name, values in entries.items():
            room -= len(json.dumps({name: values}, separators=(",", ":")))
            if room >= 0:
                sample[group][name] = values
    sample["omitted"] = len(gpus) + len(queues) - len(sample["gpus"]) - len(sample["queues"])
    return json.dumps(sample, separators=(",", ":"))


def _gpu_values(worker: Worker) -> list[float | None]:
    """The values of a gpu worker, which may have several GPUs: memory and power of all, the highest temperature."""
    engine = worker.engine or {}

    def of_gpus(name: str) -> list[float]:
        return [gpu[name] for gpu in worker.gpus if gpu.get(name) is not None]

    busy, hot = of_gpus("utilisation"), of_gpus("temperature")
    return [
        *(engine.get("tokens"), worker.seen_at),
        *(engine.get(name) for name in ("running", "in_flight", "cache_use")),
        *(sum(of_gpus(name)) or None for name in ("memory_used", "memory_total")),
        round(sum(busy) / len(busy), 3) if busy else None,
        max(hot, default=None),
        sum(of_gpus("power")) or None,
    ]
