"""``GET /stats``: what queues, GPUs and workers did in the last hour or day, for charts."""

from typing import Any

from flask import Blueprint, jsonify

from api.caller import caller
from api.openapi.operation import Operation, Reply, describe, in_query
from api.request_parsing import query_integer
from api.responses import RouteResponse
from api.schemas import responses
from api.services import services
from shared.jobs.stats_history import GPU_STATES, HOUR, MAX_MINUTES, History, Series

blueprint = Blueprint("stats", __name__)

POOLS = ("gpu", "cpu", "io")


@blueprint.get("/stats")
@describe(
    Operation(
        tag="Models and health",
        summary="Get what queues, GPUs and workers did in the last hour or day",
        description=(
            "A value for each interval of ten seconds, or of five minutes if `minutes` is more than 60. The values of queues and workers are those at one moment of the interval; "
            "`submitted`, `ended` and `failed` are numbers of jobs in it. Administrators see everything, other callers the lengths of "
            "the queues in which jobs of theirs wait."
        ),
        parameters=(
            in_query(
                "minutes",
                {"type": "integer", "minimum": 1, "maximum": MAX_MINUTES, "default": HOUR.minutes},
                "How far to look back.",
                5,
            ),
        ),
        replies={200: Reply(description="The statistics.", model=responses.Stats)},
    )
)
def show_stats() -> RouteResponse:
    history = services().stats_history.read(query_integer("minutes", HOUR.minutes, 1, MAX_MINUTES))
    body = {
        "object": "stats",
        "start": history.first * history.interval_seconds,
        "interval_seconds": history.interval_seconds,
        "intervals": len(history.samples) - 1,
    }
    return jsonify(body | (_everything(history) if caller().admin else _own_queues(history, caller().owner)))


def _everything(history: History) -> dict[str, Any]:
    settings = services().settings
    return {
        "totals": {
            "queued": history.totals("queued"),
            "running": history.totals("running"),
            "oldest_seconds": _seconds(history.totals("oldest_ms")),
            "tokens_per_second": history.total_speed(),
            **{name: history.growth(name) for name in ("submitted", "ended", "failed")},
        },
        "queues": [
            {
                "queue": queue,
                "waiting": history.queue(queue, "waiting"),
                "oldest_seconds": _seconds(history.queue(queue, "oldest_ms")),
                **{name: history.queue(queue, name) for name in ("submitted", "ended", "failed")},
            }
            for queue in history.queues()
        ],
        "gpus": [
            {
                "gpu": gpu,
                "model": model or None,
                "tokens_per_second": history.speed(gpu),
                **{name: history.gpu(gpu, name) for name in GPU_STATES},
            }
            for gpu, model in history.gpus().items()
        ],
        "workers": {pool: history.workers(pool) for pool in POOLS},
        "links": {"flower": settings.flower_url or None, "grafana": settings.grafana_url or None},
    }


def _own_queues(history: History, owner: str) -> dict[str, Any]:
    hidden = dict.fromkeys(("oldest_seconds", "submitted", "ended", "failed"))
    own = services().stats_reader.queues_of(owner)
    queues = [
        {"queue": queue, "waiting": history.queue(queue, "waiting"), **hidden} for queue in history.queues() if queue in own
    ]
    return {"totals": None, "queues": queues, "gpus": [], "workers": None, "links": None}


def _seconds(series: Series) -> Series:
    return [None if value is None else round(value / 1000, 1) for value in series]
