"""Fakes for the tests of the worker runtime: Redis-facing transitions held in memory, and a clock that is set by hand."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import redis

from shared.jobs.maintenance import Reaped
from shared.jobs.models import Job, Status
from shared.jobs.transitions import Event, Lease
from shared.jobs.usage import Usage
from shared.jobs.worker_registry import Worker
from shared.work_context import LogLine


class ManualClock:
    """Monotonic seconds. ``sleep`` moves the time on and returns at once."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []
        self.stops_at = math.inf

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> bool:
        """As the ``wait`` of an event that is set at ``stops_at``."""
        self.sleeps.append(seconds)
        self.now += seconds
        return self.now >= self.stops_at


class RecordingTransitions:
    """Records each transition and answers as configured.

    ``answers`` has the answer for a method's name ("ok" by default). The next ``held_back`` claims find only jobs that are held back. ``outages`` has how many calls of a method still fail
    because Redis is unavailable; a failed call is counted in ``failures`` and changes nothing.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.answers: dict[str, Any] = {}
        self.outages: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.written: list[Event] = []
        self.refused_leases: set[Lease] = set()
        self.queued: list[Job] = []
        self.usages: list[Usage] = []
        self.held_back = 0

    def names(self) -> list[str]:
        return [name for name, _, _ in self.calls]

    def append_events(self, events: Sequence[Event]) -> list[str]:
        self._check_outage("append_events")
        answers = []
        for event in events:
            lost = (event.job, event.attempt) in self.refused_leases
            answers.append("lost" if lost else "ok")
            if not lost:
                self.written.append(event)
        return answers

    def finish(self, lease: Lease, status: Status, **fields: Any) -> Any:
        return self._record_usage(fields.pop("usage"), "finish", lease, status, **fields)

    def retry(self, lease: Lease, retries: int, error: Mapping[str, Any], *, usage: Usage) -> Any:
        return self._record_usage(usage, "retry", lease, retries, error)

    def release(self, lease: Lease, queue: str, *, usage: Usage) -> Any:
        return self._record_usage(usage, "release", lease, queue)

    def release_after_outage(self, lease: Lease, queue: str, outages: int, error: Mapping[str, Any], *, usage: Usage) -> Any:
        return self._record_usage(usage, "release_after_outage", lease, queue, outages, error)

    def write_log(self, worker: str, lines: Sequence[tuple[Lease, LogLine]]) -> None:
        self._record("write_log", worker, *((lease, line.level, line.message) for lease, line in lines))

    def hand_over(
        self, lease: Lease, queue: str, context: Mapping[str, Any], found: Mapping[str, Any] | None = None, *, usage: Usage
    ) -> Any:
        return self._record_usage(usage, "hand_over", lease, queue, context, *(() if found is None else (found,)))

    def claim_for_slot(self, queue: str, worker: str, token: str, *, slots: int, reserved: int, retried: bool) -> Any:
        self._record("claim", queue, worker, token)
        if self.held_back > 0:
            self.held_back -= 1
            return "held_back"
        return self.queued.pop(0) if self.queued else None

    def renew(self, worker: str, leases: Sequence[Lease]) -> list[str]:
        self._record("renew", worker, list(leases))
        answers = self.answers.get("leases", {})
        return [answers.get(lease, "ok") for lease in leases]

    def mark_worker_dead(self, worker: str) -> list[str]:
        self._record("mark_worker_dead", worker)
        return list(self.answers.get("lost_jobs", ()))

    def reap(self, **options: Any) -> Reaped:
        self._record("reap", **options)
        return Reaped(0, [], bool(self.answers.get("jobs_wait")))

    def reaps_steadily(self) -> bool:
        return bool(self.answers.get("reaps_steadily", True))

    def schedule_models(self, **options: Any) -> tuple[dict[str, str], list[str]]:
        self._record("schedule_models", **options)
        return {}, []

    def send_missing_wakeups(self, interval_ms: int) -> dict[str, int]:
        self._record("missing_wakeups", interval_ms)
        return {}

    def record_stats(self) -> float:
        return float(self._record("record_stats"))

    def purge(self) -> int:
        self._record("purge")
        return 0

    def _record_usage(self, usage: Usage, name: str, *arguments: Any, **options: Any) -> Any:
        answer = self._record(name, *arguments, **options)
        self.usages.append(replace(usage))
        return answer

    def _record(self, name: str, *arguments: Any, **options: Any) -> Any:
        self._check_outage(name)
        self.calls.append((name, arguments, options))
        return self.answers.get(name, "ok")

    def _check_outage(self, name: str) -> None:
        if self.outages[name] > 0:
            self.outages[name] -= 1
            self.failures[name] += 1
            raise redis.ConnectionError("connection refused")


REDIS_MS = 1_000_000


class RegistryInMemory:
    """A worker registry that keeps what is written."""

    def __init__(self, *workers: Worker) -> None:
        self.listed = list(workers)
        self.heartbeats: list[Worker] = []
        self.desired_model: str | None = None
        self.dead: set[str] = set()
        self.silence_ms: dict[str, int] = {}

    def heartbeat(self, worker: Worker) -> str | None:
        self.heartbeats.append(worker)
        return self.desired_model

    def workers(self) -> list[Worker]:
        return [replace(worker, seen_at=REDIS_MS - self.silence_ms.get(worker.id, 0)) for worker in self.listed]

    def is_dead_neighbour(self, worker: Worker) -> bool:
        return worker.id in self.dead

    def workers_and_time(self) -> tuple[list[Worker], int]:
        return self.workers(), REDIS_MS


def queued_job(number: int = 1, *, kind: str = "generate", attempt: int = 1, retries: int = 0) -> Job:
    """A job as ``claim`` returns it."""
    return Job(
        id=f"job_{number}",
        kind=kind,
        owner="ada",
        queue="gpu.echo",
        status=Status.IN_PROGRESS,
        phase="generating",
        attempt=attempt,
        spec={"prompt": "hello"},
        created_at=0,
        expires_at=0,
        phase_at=0,
        retries=retries,
    )
