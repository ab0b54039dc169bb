"""``/health/live``: this process answers. ``/health/ready``: the stack can run every kind of job, or what is missing."""

import os

import redis
from flask import Blueprint, jsonify

from api.index_server import index_answers
from api.openapi.operation import Operation, Reply, describe
from api.responses import RouteResponse
from api.schemas import responses
from api.services import services
from shared.documents.data_warnings import data_warnings
from shared.documents.index_health import is_silent
from shared.jobs.model_assignments import ModelAssignment
from shared.jobs.queue_names import generation_queue
from shared.jobs.worker_registry import Worker
from shared.liveness import is_unresponsive, liveness_file
from shared.machine import is_stopped
from shared.models.catalogue import GENERATE

blueprint = Blueprint("health", __name__)

TAG = "Models and health"
# A model that was loaded for a job may be unloaded again. Those of these requests must be ready.
REQUIRED_BY = ("start", "operator")


@blueprint.get("/health/live")
@describe(
    Operation(
        tag=TAG,
        summary="Check that the API process is responsive",
        replies={200: Reply(description="It is responsive.", model=responses.Liveness)},
        open=True,
    )
)
def check_liveness() -> RouteResponse:
    return jsonify({"status": "alive"})


@blueprint.get("/health/ready")
@describe(
    Operation(
        tag=TAG,
        summary="Check that the server can run every kind of job",
        replies={
            200: Reply(
                description="It can.",
                model=responses.Readiness,
                example={"status": "ready", "waiting_for": [], "workers": 4, "warnings": []},
            ),
            503: Reply(description="It cannot; `waiting_for` lists what is missing.", model=responses.Readiness),
        },
        open=True,
    )
)
def check_readiness() -> RouteResponse:
    context = services()
    try:
        workers, assignments = context.live_workers(), context.active_assignments()
        index_silent = is_silent(context.redis)
        warnings = data_warnings(services().redis, services().settings)
    except redis.RedisError as error:
        return jsonify({"status": "not_ready", "waiting_for": [f"Redis ({type(error).__name__})"]}), 503
    missing = _missing_index(index_silent) + _missing_models(workers, assignments)
    missing += [f"the {pool} worker" for pool in ("cpu", "io") if not any(worker.pool == pool for worker in workers)]
    first = os.getppid()
    if is_stopped(first) or is_unresponsive(liveness_file(context.settings.data_dir, "api"), first):
        missing.append("the first process of the API")
    if context.disk_space.shortage():
        missing.append("disk space (jobs and uploads are refused)")
    state = {"status": "not_ready" if missing else "ready", "waiting_for": missing, "workers": len(workers), "warnings": warnings}
    return jsonify(state), 503 if missing else 200


def _missing_index(index_silent: bool) -> list[str]:
    if not index_answers(services().settings.chroma_url):
        return ["the index (Chroma)"]
    return ["the index (Chroma runs, but does not answer for a collection: restart it)"] if index_silent else []


def _missing_models(workers: list[Worker], assignments: list[ModelAssignment]) -> list[str]:
    """Models that were requested at start or by an operator and that no worker has ready.

    If there is no such request, the default model is required, unless it can be loaded on demand.
    """
    context = services()
    required = {assignment.desired_model for assignment in assignments if assignment.requested_by in REQUIRED_BY} - {""}
    can_generate = any(entry.task == GENERATE for entry in context.catalogue.models)
    if can_generate and not required and not any(worker.phase == "ready" and worker.model for worker in workers):
        default = context.catalogue.default().name
        loadable = context.settings.load_on_demand and any(default in assignment.loadable_models for assignment in assignments)
        required = set() if loadable else {default}
    paused = context.pauses.since("queue")
    required = {model for model in required if generation_queue(model) not in paused}
    return [text for model in sorted(required) if (text := _missing_model(model, workers))]


def _missing_model(model: str, workers: list[Worker]) -> str:
    """Why a model is not ready, or "" if one of its workers is. A worker that is draining for another model does not count."""
    holders = [worker for worker in workers if worker.model == model]
    if any(worker.phase == "ready" for worker in holders):
        return ""
    if not holders:
        return f"model {model} (no worker yet)"
    worker = holders[0]
    if worker.phase == "failed":
        return f"model {model} (failed: {worker.message})"
    return f"model {model} ({worker.phase} {worker.fraction:.0%}: {worker.message})"
