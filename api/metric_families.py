"""Prometheus metric families of jobs, workers, engines and GPUs. docs/operations.md lists every name."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from shared.jobs.stats import Distribution, Stats
from shared.jobs.usage import UsageTotals
from shared.jobs.worker_registry import Worker

# Values by label values, which are a tuple.
Values = Mapping[Any, float]

JOB_LABELS = ["kind", "model"]
POOLS = ("gpu", "cpu", "io")

# Fields of a heartbeat about an engine or a GPU: key, metric, description.
ENGINE_GAUGES = (
    ("tokens_per_second", "engine_tokens_per_second", "Tokens per second that an engine generated recently."),
    ("steps_per_second", "engine_steps_per_second", "Steps per second that an engine ran recently."),
    ("running", "engine_batch_size", "Requests in an engine's batch."),
    ("waiting", "engine_requests_waiting", "Requests waiting in an engine."),
    ("cache_use", "engine_cache_use_ratio", "Used share of an engine's KV cache."),
    ("in_flight", "engine_requests_limit", "Requests that an engine may hold at the same time."),
)
ENGINE_COUNTERS = (
    ("tokens", "engine_tokens", "Tokens that an engine generated since it started."),
    ("steps", "engine_steps", "Steps that an engine ran since it started."),
    ("prompt_tokens", "engine_prompt_tokens", "Prompt tokens that an engine has read since it started."),
    ("restarts", "engine_restarts", "Restarts of an engine process since its worker loaded the model."),
    ("cached_tokens", "engine_cached_tokens", "Prompt tokens that an engine has found in its KV cache since it started."),
)
GPU_GAUGES = (
    ("memory_used", "gpu_memory_used_bytes", "Used memory of a GPU."),
    ("memory_total", "gpu_memory_total_bytes", "Total memory of a GPU."),
    ("utilisation", "gpu_utilisation_ratio", "Share of the last sample period in which a GPU was busy."),
    ("temperature", "gpu_temperature_celsius", "Temperature of a GPU."),
    ("power", "gpu_power_watts", "Power draw of a GPU."),
    ("ecc_errors", "gpu_ecc_errors", "Uncorrected memory errors of a GPU since its driver was loaded."),
    ("xid_errors", "gpu_xid_errors", "Xid errors of a GPU among the latest ten that its worker saw."),
)

# Fields of usage: name, metric, description, factor.
USAGE_COUNTERS = (
    ("prompt_tokens", "usage_prompt_tokens", "Prompt tokens of ended jobs.", 1),
    ("cached_tokens", "usage_cached_tokens", "Prompt tokens of ended jobs that were in the KV cache.", 1),
    ("completion_tokens", "usage_completion_tokens", "Generated tokens of ended jobs.", 1),
    ("embedding_tokens", "usage_embedding_tokens", "Tokens of texts that ended jobs embedded or reranked.", 1),
    ("gpu_ms", "usage_gpu_seconds", "GPU time of ended jobs.", 0.001),
    ("lost_ms", "usage_lost_seconds", "Time of lost attempts of ended jobs.", 0.001),
    ("pages", "usage_pages", "Pages that ended jobs read.", 1),
    ("bytes", "usage_bytes", "Size of documents that ended jobs read.", 1),
)


# Histograms of the transitions: name there, metric, description, labels.
HISTOGRAMS = (
    ("wait", "job_wait_seconds", "Time in a queue before an attempt started, without delays.", JOB_LABELS),
    ("run", "job_run_seconds", "Time from the first start of a completed job to its end.", JOB_LABELS),
    ("duration", "job_duration_seconds", "Time from the submission of a completed job to its end.", JOB_LABELS),
    ("first_token", "job_first_token_seconds", "Time from the submission of a completed job to its first text.", JOB_LABELS),
    ("per_token", "job_token_seconds", "Mean time per output token of an answer, after its first token.", JOB_LABELS),
    ("fetch", "fetch_seconds", "Time from the first start of a fetch of a URL to its end.", ["outcome"]),
    ("delivery", "delivery_seconds", "Age of a webhook delivery when it ended.", ["status"]),
)
# The names of OpenTelemetry's conventions for the same times: name there, metric, description.
GEN_AI_HISTOGRAMS = (
    ("duration", "gen_ai_server_request_duration_seconds", "Time from a request to its last output token."),
    ("first_token", "gen_ai_server_time_to_first_token_seconds", "Time from a request to its first output token."),
    ("per_token", "gen_ai_server_time_per_output_token_seconds", "Time per output token after the first one."),
)
GEN_AI_LABELS = ["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"]
GEN_AI_OPERATIONS = {"generate": "chat", "embed": "embeddings"}


def job_metrics(stats: Stats) -> Iterator[Metric]:
    """Jobs by status, queues, attempts and deliveries."""
    queues = stats.queues
    waiting = sum(queue.waiting for queue in queues.values())
    statuses = {
        ("in_progress",): stats.running,
        ("queued",): waiting,
        ("postponed",): max(0, stats.open - stats.running - waiting),
    }
    yield _gauge("jobs", "Jobs that have not ended: running, queued, or waiting for something else.", ["status"], statuses)
    yield _gauge("jobs_dead_letters", "Dead letters.", [], {(): stats.dead_letters})
    for name, description, values in (
        ("queue_waiting", "Jobs waiting in a queue.", {(name,): float(queue.waiting) for name, queue in queues.items()}),
        (
            "queue_oldest_seconds",
            "Waiting time of the oldest job in a queue.",
            {(name,): queue.oldest_ms / 1000 for name, queue in queues.items()},
        ),
        (
            "queue_wakeups",
            "Wake-up messages in the Celery list of a queue.",
            {(name,): float(queue.wakeups) for name, queue in queues.items()},
        ),
    ):
        yield _gauge(name, description, ["queue"], values)
    for name, description, counter, label in (
        ("jobs_submitted", "Accepted jobs.", "submitted", "kind"),
        ("jobs_claimed", "Started attempts.", "claimed", "queue"),
    ):
        yield _counter(name, description, [label], {(key,): count for key, count in stats.counters(counter).items()})
    ended = {tuple(name.split(" ", 1)): count for name, count in stats.counters("ended").items()}
    yield _counter("jobs_ended", "Ended jobs.", ["kind", "status"], ended)
    attempts, deliveries = stats.counters("attempts"), stats.counters("deliveries")
    yield _counter(
        "attempts_lost", "Attempts whose worker died or stopped renewing its lease.", [], {(): attempts.get("lost", 0)}
    )
    yield _counter("attempts_retried", "Attempts that failed and were retried.", [], {(): attempts.get("retried", 0)})
    dead_letters = stats.counters("dead_letters").get("added", 0)
    yield _counter("dead_letters_added", "Jobs that became dead letters.", [], {(): dead_letters})
    started = stats.counters("workers")
    starts = {(pool,): started.get(f"started {pool}", 0) for pool in POOLS}
    yield _counter("workers_started", "Workers that started, or came back after a silence.", ["pool"], starts)
    oldest = {(): stats.oldest_delivery_ms / 1000}
    yield _gauge("deliveries_oldest_seconds", "Age of the oldest webhook delivery that has not ended.", [], oldest)
    yield _gauge("deliveries_pending", "Webhook deliveries that have not ended.", [], {(): stats.deliveries_pending})
    ends = {(status,): deliveries.get(status, 0) for status in ("delivered", "failed")}
    yield _counter("deliveries_ended", "Webhook deliveries that ended.", ["status"], ends)
    yield _gauge(
        "documents_in_progress",
        "Documents that workers are reading, by stage.",
        ["stage"],
        {(key,): n for key, n in stats.stages.items()},
    )
    documents = stats.counters("documents")
    yield _counter(
        "documents_ended", "Documents that were read or rejected.", ["status"], {(key,): n for key, n in documents.items()}
    )
    fetches = stats.counters("fetches")
    yield _counter(
        "fetches_ended", "URLs that were fetched or could not be.", ["outcome"], {(key,): n for key, n in fetches.items()}
    )
    yield _counter("fetched_bytes", "Bytes of fetched files.", [], {(): stats.counters("fetched").get("bytes", 0)})
    yield _counter("pages_read", "Pages read from documents.", [], {(): stats.counters("pages").get("read", 0)})


def histogram_metrics(histograms: Mapping[str, Sequence[Distribution]], *, gen_ai: bool) -> Iterator[Metric]:
    """Times of jobs and deliveries. With ``gen_ai``, model times also have the names of OpenTelemetry's conventions."""
    for key, name, description, labels in HISTOGRAMS:
        family = HistogramMetricFamily(f"enginehouse_{name}", description, labels=labels)
        for distribution in histograms.get(key, ()):
            family.add_metric(distribution.labels, _buckets(distribution), distribution.sum)
        yield family
    for key, name, description in GEN_AI_HISTOGRAMS if gen_ai else ():
        family = HistogramMetricFamily(name, description, labels=GEN_AI_LABELS)
        for distribution in histograms.get(key, ()):
            kind, model = distribution.labels
            if kind in GEN_AI_OPERATIONS:
                family.add_metric((GEN_AI_OPERATIONS[kind], "enginehouse", model), _buckets(distribution), distribution.sum)
        yield family


def _buckets(distribution: Distribution) -> list[tuple[str, float]]:
    return [(floatToGoString(bound), float(number)) for bound, number in distribution.buckets]  # type: ignore[no-untyped-call]


def worker_metrics(workers: Sequence[Worker]) -> Iterator[Metric]:
    """Live workers, their engines and their GPUs."""
    counts = Counter((worker.pool, worker.model, worker.phase) for worker in workers)
    yield _gauge("workers", "Live workers.", ["pool", "model", "phase"], counts)
    alive = Counter(worker.pool for worker in workers)
    yield _gauge(
        "pool_workers", "Live workers of a pool, also if there are none.", ["pool"], {(pool,): alive[pool] for pool in POOLS}
    )
    engines = {(worker.name, worker.model): worker.engine for worker in workers if worker.engine}
    for table, family in ((ENGINE_GAUGES, _gauge), (ENGINE_COUNTERS, _counter)):
        for key, name, description in table:
            values = {labels: float(engine[key]) for labels, engine in engines.items() if engine.get(key) is not None}
            yield family(name, description, ["worker", "model"], values)
    gpus = {(worker.name, str(gpu["index"])): gpu for worker in workers for gpu in worker.gpus}
    for key, name, description in GPU_GAUGES:
        values = {labels: _number(gpu[key]) for labels, gpu in gpus.items() if gpu.get(key) is not None}
        yield _gauge(name, description, ["worker", "gpu"], values)


def usage_metrics(owners: Mapping[str, UsageTotals]) -> Iterator[Metric]:
    """What the jobs of each owner have used. The label ``(other)`` has the owners beyond the first hundred."""
    labelled = {(owner or "(other)",): totals for owner, totals in owners.items()}
    for name, metric, description, factor in USAGE_COUNTERS:
        values = {labels: getattr(totals, name) * factor for labels, totals in labelled.items()}
        yield _counter(metric, description, ["owner"], values)


def redis_memory_metrics(memory: Mapping[str, Any]) -> Iterator[Metric]:
    """Memory of Redis. ``memory`` is that section of its ``INFO``; a limit of 0 means that there is none."""
    yield _gauge("redis_memory_used_bytes", "Memory in use by Redis.", [], {(): memory["used_memory"]})
    yield _gauge("redis_memory_limit_bytes", "Memory limit of Redis; 0 means no limit.", [], {(): memory["maxmemory"]})


def disk_metrics(total: int, free: int) -> Iterator[Metric]:
    """The disk of the data folder."""
    yield _gauge("disk_total_bytes", "Size of the disk with the data folder.", [], {(): total})
    yield _gauge("disk_free_bytes", "Free space of the disk with the data folder.", [], {(): free})


def redis_metric(*, up: bool) -> Metric:
    """Whether Redis answers. If it does not, there are no metrics of jobs and workers."""
    return _gauge("redis_up", "Whether Redis answers; if not, there are no metrics of jobs and workers.", [], {(): int(up)})


def chroma_metric(*, up: bool) -> Metric:
    """Whether the index server answers."""
    return _gauge("chroma_up", "Whether the Chroma server answers.", [], {(): int(up)})


def _gauge(name: str, description: str, labels: Sequence[str], values: Values) -> Metric:
    return _add_values(GaugeMetricFamily(f"enginehouse_{name}", description, labels=labels), values)


def _counter(name: str, description: str, labels: Sequence[str], values: Values) -> Metric:
    return _add_values(CounterMetricFamily(f"enginehouse_{name}", description, labels=labels), values)


def _add_values(family: GaugeMetricFamily | CounterMetricFamily, values: Values) -> Metric:
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _number(value: float | Sequence[int]) -> float:
    return float(len(value)) if isinstance(value, Sequence) else float(value)
