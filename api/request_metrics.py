"""Request metrics: the latency of this API's responses as a Prometheus histogram.

With several API processes, each counts in files that all of them read, so any of them can report for all (``gunicorn_conf``).
"""

import time

from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from api.metrics_folder import uses_shared_files

# Calls may wait for a job, so the buckets go up to minutes.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
REGISTRY = CollectorRegistry()
ANSWER_SECONDS = Histogram(
    "enginehouse_api_answer_seconds",
    "Time to the first byte of a response.",
    ("call", "status"),
    buckets=BUCKETS,
    registry=REGISTRY,
)


def measure_requests(app: Flask) -> None:
    """Measure every response of the application. Call this before anything that may reject a request is registered."""

    @app.before_request
    def start_timer() -> None:
        g.started_at = time.monotonic()

    @app.after_request
    def record_duration(response: Response) -> Response:
        # The rule and not the path: each id in a path would create its own time series.
        call = f"{request.method} {request.url_rule.rule}" if request.url_rule is not None else "none"
        ANSWER_SECONDS.labels(call, str(response.status_code)).observe(time.monotonic() - g.started_at)
        return response


def export_metrics(collector: Collector) -> bytes:
    """The text form of the latency histogram and of the collector's metrics."""
    registry = CollectorRegistry()
    if uses_shared_files():
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        latencies = b""
    else:
        latencies = generate_latest(REGISTRY)
    registry.register(collector)
    return latencies + generate_latest(registry)
