"""``GET /metrics``: metrics for Prometheus."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, cast

import redis
from flask import Blueprint, Response
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from api.index_server import index_answers
from api.metric_families import (
    chroma_metric,
    disk_metrics,
    histogram_metrics,
    job_metrics,
    redis_memory_metrics,
    redis_metric,
    usage_metrics,
    worker_metrics,
)
from api.openapi.operation import Operation, Reply, describe
from api.request_metrics import export_metrics
from api.responses import RouteResponse
from api.services import services

blueprint = Blueprint("metrics", __name__)


@blueprint.get("/metrics")
@describe(
    Operation(
        tag="Models and health",
        summary="Get metrics of jobs, queues, workers, engines, GPUs and requests",
        description=(
            "Needs the token of `ENGINEHOUSE_METRICS_TOKEN`, which also works during an outage of Redis, or a key with the "
            "scope `metrics` once a key exists."
        ),
        replies={200: Reply(description="Metrics in the text format of Prometheus.", media_type="text/plain")},
    )
)
def show_metrics() -> RouteResponse:
    return Response(export_metrics(StackCollector()), content_type=CONTENT_TYPE_LATEST)


class StackCollector(Collector):
    """The disk, the index server, and metrics of Redis, jobs and workers, read for each scrape."""

    def collect(self) -> Iterator[Metric]:
        context = services()
        with suppress(OSError):
            usage = shutil.disk_usage(context.settings.data_dir)
            yield from disk_metrics(usage.total, usage.free)
        yield chroma_metric(up=index_answers(context.settings.chroma_url))
        try:
            stats = context.stats_reader.collect()
            histograms = context.stats_reader.histograms()
            workers = context.live_workers()
            used = context.usage_ledger.owner_totals()
            memory = context.redis.info("memory")
        except redis.RedisError:
            yield redis_metric(up=False)
            return
        yield redis_metric(up=True)
        yield from redis_memory_metrics(cast(Mapping[str, Any], memory))
        yield from job_metrics(stats)
        yield from histogram_metrics(histograms, gen_ai=context.settings.gen_ai_metrics)
        yield from worker_metrics(workers)
        yield from usage_metrics(used)
