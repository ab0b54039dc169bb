"""``GET /metrics``: metrics for Prometheus."""

from collections.abc import Iterator

import redis
from flask import Blueprint, Response
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from api.auth import require_admin
from api.metric_families import job_metrics, redis_metric, worker_metrics
from api.openapi.operation import Operation, Reply, describe
from api.request_metrics import export_metrics
from api.responses import RouteResponse
from api.services import services

blueprint = Blueprint("metrics", __name__)
blueprint.before_request(require_admin)


@blueprint.get("/metrics")
@describe(
    Operation(
        tag="Models and health",
        summary="Get metrics of jobs, queues, workers, engines, GPUs and requests",
        description="Needs a key created with `--admin` once a key exists.",
        replies={200: Reply(description="Metrics in the text format of Prometheus.", media_type="text/plain")},
    )
)
def show_metrics() -> RouteResponse:
    return Response(export_metrics(StackCollector()), content_type=CONTENT_TYPE_LATEST)


class StackCollector(Collector):
    """Metrics of jobs and workers, read from Redis for each scrape."""

    def collect(self) -> Iterator[Metric]:
        context = services()
        try:
            stats = context.stats_reader.collect()
            workers = context.live_workers()
        except redis.RedisError:
            yield redis_metric(up=False)
            return
        yield redis_metric(up=True)
        yield from job_metrics(stats)
        yield from worker_metrics(workers)
