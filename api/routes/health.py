"""``/health/live`` (this process answers) and ``/health/ready`` (the stack can do work, or what it lacks)."""

import urllib.error
import urllib.request

import redis
from flask import Blueprint, Response, jsonify

from api.responses import Answer
from api.services import services
from shared.documents.index_health import is_silent
from shared.jobs.model_assignments import ModelAssignment
from shared.jobs.worker_registry import Worker

blueprint = Blueprint("health", __name__)

INDEX_SECONDS = 2.0
PROMISES = ("start", "operator")


@blueprint.get("/health/live")
def live() -> Response:
    return jsonify({"status": "alive"})


@blueprint.get("/health/ready")
def ready() -> Answer:
    """200 when jobs of every kind can be done; else 503 and a phrase for each thing that is awaited."""
    here = services()
    awaited: list[str] = []
    try:
        workers = here.worker_registry.alive(3 * here.settings.renew_seconds)
        silent = is_silent(here.redis)
    except redis.RedisError as error:
        return jsonify({"status": "not_ready", "waiting_for": [f"Redis ({type(error).__name__})"]}), 503
    if not _index_answers(here.settings.chroma_url):
        awaited.append("the index (Chroma)")
    elif silent:
        awaited.append("the index (Chroma lives, and does not answer for a collection: start it again)")
    awaited += _awaited_models(workers, here.active_assignments())
    awaited += [f"the {pool} worker" for pool in ("cpu", "io") if not any(worker.pool == pool for worker in workers)]
    state = {"status": "not_ready" if awaited else "ready", "waiting_for": awaited, "workers": len(workers)}
    return jsonify(state), 503 if awaited else 200


def _awaited_models(workers: list[Worker], assignments: list[ModelAssignment]) -> list[str]:
    """The models that were wished at the start or by an operator and that no worker holds ready. What was loaded only because a
    job asked for it is no promise of ours. Without any of these, the default model is awaited, unless it can be loaded."""
    here = services()
    wished = {assignment.desired_model for assignment in assignments if assignment.requested_by in PROMISES} - {""}
    default = here.catalogue.default().name
    if not wished and not any(worker.phase == "ready" and worker.model for worker in workers):
        can_load = here.settings.load_on_demand and any(default in assignment.loadable_models for assignment in assignments)
        wished = set() if can_load else {default}
    return [text for model in sorted(wished) if (text := _awaited_model(model, workers))]


def _awaited_model(model: str, workers: list[Worker]) -> str:
    """Nothing when one of its workers is ready; one that is stopping for another model counts as none."""
    holding = [worker for worker in workers if worker.model == model]
    if any(worker.phase == "ready" for worker in holding):
        return ""
    if not holding:
        return f"model {model} (no worker yet)"
    worker = holding[0]
    if worker.phase == "failed":
        return f"model {model} (failed: {worker.message})"
    return f"model {model} ({worker.phase} {worker.fraction:.0%}: {worker.message})"


def _index_answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/api/v2/heartbeat", timeout=INDEX_SECONDS) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
