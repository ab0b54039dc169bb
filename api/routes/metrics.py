"""``GET /metrics``: for Prometheus. What Redis tells of jobs and workers, and how long this API's answers took.

Each API process counts its answers in files that all of them read, so that any of them can tell of all (``serving.py``).
"""

import time
from collections.abc import Iterator

import redis
from flask import Blueprint, Flask, Response, g, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from api import metric_families
from api.auth import require_admin
from api.gunicorn_conf import counts_in_files
from api.services import services

blueprint = Blueprint("metrics", __name__)
blueprint.before_request(require_admin)

# Calls may wait for a job, so the scale goes up to minutes.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
ANSWERS = CollectorRegistry()
SECONDS = Histogram(
    "enginehouse_api_answer_seconds", "Time until an answer began.", ("call", "status"), buckets=BUCKETS, registry=ANSWERS
)


@blueprint.get("/metrics")
def metrics() -> Response:
    """Everything, in Prometheus' text form."""
    registry = CollectorRegistry()
    if counts_in_files():
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        answers = b""
    else:
        answers = generate_latest(ANSWERS)
    registry.register(_Stack())
    return Response(answers + generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def install(app: Flask) -> None:
    """Measure each answer of the application. To be called before whatever may refuse a request."""

    @app.before_request
    def begin() -> None:
        g.began = time.monotonic()

    @app.after_request
    def measure(response: Response) -> Response:
        # The rule and not the path: ids would make a time series each.
        call = f"{request.method} {request.url_rule.rule}" if request.url_rule is not None else "none"
        SECONDS.labels(call, str(response.status_code)).observe(time.monotonic() - g.began)
        return response


class _Stack(Collector):
    def collect(self) -> Iterator[Metric]:
        here = services()
        try:
            stats = here.stats_reader.read()
            workers = here.worker_registry.alive(3 * here.settings.renew_seconds)
        except redis.RedisError:
            yield metric_families.of_redis(False)
            return
        yield metric_families.of_redis(True)
        yield from metric_families.of_jobs(stats)
        yield from metric_families.of_workers(workers)
