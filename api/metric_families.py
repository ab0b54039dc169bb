"""Metrics from what Redis tells of jobs and workers. Every name is in the table of docs/operations.md.

It knows no HTTP: it is given an overview and workers, and makes Prometheus' families of them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from shared.jobs.stats import Stats
from shared.jobs.worker_registry import Worker

# By the values of the labels, a tuple.
Values = Mapping[Any, float]

# What a worker tells of its engine and of its GPUs: key, metric, meaning.
ENGINE_GAUGES = (
    ("tokens_per_second", "engine_tokens_per_second", "Tokens that an engine made lately."),
    ("steps_per_second", "engine_steps_per_second", "Steps that an engine made lately."),
    ("running", "engine_batch_size", "Requests in an engine's batch."),
    ("waiting", "engine_requests_waiting", "Requests that wait inside an engine."),
    ("cache_use", "engine_cache_use_ratio", "Used part of an engine's key-value cache."),
    ("in_flight", "engine_requests_limit", "Requests that an engine may hold at once."),
)
ENGINE_COUNTERS = (
    ("tokens", "engine_tokens", "Tokens that an engine has made since it was started."),
    ("steps", "engine_steps", "Steps that an engine has made since it was started."),
    ("evictions", "engine_evictions", "Requests whose cache pages an engine took away and computed again since it was started."),
)
GPU_GAUGES = (
    ("memory_used", "gpu_memory_used_bytes", "Memory of a GPU in use."),
    ("memory_total", "gpu_memory_total_bytes", "Memory of a GPU."),
    ("utilisation", "gpu_utilisation_ratio", "Part of the last moment in which a GPU worked."),
    ("temperature", "gpu_temperature_celsius", "Temperature of a GPU."),
    ("power", "gpu_power_watts", "What a GPU draws."),
    ("ecc_errors", "gpu_ecc_errors", "Uncorrected memory errors of a GPU since its driver was loaded."),
    ("xid_errors", "gpu_xid_errors", "Xid errors of a GPU that its worker has seen, of the latest ten."),
)


def of_jobs(stats: Stats) -> Iterator[Metric]:
    """Jobs by status, queues, ends, attempts, deliveries."""
    queues = stats.queues
    waiting = sum(queue.waiting for queue in queues.values())
    statuses = {
        ("in_progress",): stats.running,
        ("queued",): waiting,
        ("postponed",): max(0, stats.open - stats.running - waiting),
    }
    yield _gauge("jobs", "Jobs that have not ended: they run, wait in a queue, or wait for something else.", ["status"], statuses)
    yield _gauge("jobs_dead_letters", "Jobs on the list of the dead.", [], {(): stats.dead_letters})
    for name, about, values in (
        ("queue_waiting", "Jobs that wait in a queue.", {(name,): float(queue.waiting) for name, queue in queues.items()}),
        (
            "queue_oldest_seconds",
            "For how long the oldest job of a queue has waited.",
            {(name,): queue.oldest_ms / 1000 for name, queue in queues.items()},
        ),
        (
            "queue_wakeups",
            "Tickets in the Celery list of a queue.",
            {(name,): float(queue.wakeups) for name, queue in queues.items()},
        ),
    ):
        yield _gauge(name, about, ["queue"], values)
    for name, about, what, label in (
        ("jobs_submitted", "Jobs that were accepted.", "submitted", "kind"),
        ("jobs_claimed", "Attempts that were begun.", "claimed", "queue"),
    ):
        yield _counter(name, about, [label], {(key,): count for key, count in stats.counted(what).items()})
    ended = {(kind, status): count for (kind, _, status), count in _split(stats.counted("ended"))}
    yield _counter("jobs_ended", "Jobs that ended.", ["kind", "status"], ended)
    attempts, deliveries = stats.counted("attempts"), stats.counted("deliveries")
    yield _counter("attempts_lost", "Attempts whose worker died or fell silent.", [], {(): attempts.get("lost", 0)})
    yield _counter("attempts_retried", "Attempts that met a fault that may pass.", [], {(): attempts.get("retried", 0)})
    yield _gauge("deliveries_pending", "Webhook deliveries that have not ended.", [], {(): stats.deliveries_pending})
    ends = {(status,): deliveries.get(status, 0) for status in ("delivered", "failed")}
    yield _counter("deliveries_ended", "Webhook deliveries that ended.", ["status"], ends)


def of_workers(workers: Sequence[Worker]) -> Iterator[Metric]:
    """Living workers, their engines, their GPUs."""
    kinds = [(worker.pool, worker.model, worker.phase) for worker in workers]
    yield _gauge("workers", "Living workers.", ["pool", "model", "phase"], {kind: kinds.count(kind) for kind in kinds})
    held = {(worker.name, worker.model): worker.engine for worker in workers if worker.engine}
    for table, family in ((ENGINE_GAUGES, _gauge), (ENGINE_COUNTERS, _counter)):
        for key, name, about in table:
            told = {labels: float(engine[key]) for labels, engine in held.items() if engine.get(key) is not None}
            yield family(name, about, ["worker", "model"], told)
    gpus = {(worker.name, str(gpu["index"])): gpu for worker in workers for gpu in worker.gpus}
    for key, name, about in GPU_GAUGES:
        told = {labels: _number(gpu[key]) for labels, gpu in gpus.items() if gpu.get(key) is not None}
        yield _gauge(name, about, ["worker", "gpu"], told)


def of_redis(answers: bool) -> Metric:
    """Whether there is anything else to tell."""
    return _gauge(
        "redis_up", "Whether Redis answers; without it there are no metrics of jobs and workers.", [], {(): int(answers)}
    )


def _gauge(name: str, about: str, labels: Sequence[str], values: Values) -> Metric:
    return _filled(GaugeMetricFamily(f"enginehouse_{name}", about, labels=labels), values)


def _counter(name: str, about: str, labels: Sequence[str], values: Values) -> Metric:
    return _filled(CounterMetricFamily(f"enginehouse_{name}", about, labels=labels), values)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: Values) -> Metric:
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _split(counts: Mapping[str, int]) -> Iterable[tuple[tuple[str, str, str], int]]:
    return ((name.partition(" "), count) for name, count in counts.items())


def _number(value: float | Sequence[int]) -> float:
    return float(len(value)) if isinstance(value, Sequence) else float(value)
