"""``/health/live`` (this process answers) and ``/health/ready`` (the stack can do work, or what it lacks)."""

import urllib.error
import urllib.request

import redis
from flask import Blueprint, Response, jsonify

from api.render import Answer
from api.services import services
from shared.documents.index_trouble import is_silent
from shared.jobs.workforce import Worker

blueprint = Blueprint("health", __name__)

INDEX_SECONDS = 2.0


@blueprint.get("/health/live")
def live() -> Response:
    return jsonify({"status": "alive"})


@blueprint.get("/health/ready")
def ready() -> Answer:
    """200 when jobs of every kind can be done; else 503 and a phrase for each thing that is awaited."""
    here = services()
    awaited: list[str] = []
    try:
        workers = here.workforce.alive(3 * here.settings.renew_seconds)
        silent = is_silent(here.redis)
    except redis.RedisError as error:
        return jsonify({"status": "not_ready", "waiting_for": [f"Redis ({type(error).__name__})"]}), 503
    if not _index_answers(here.settings.chroma_url):
        awaited.append("the index (Chroma)")
    elif silent:
        awaited.append("the index (Chroma lives, and does not answer for a collection: start it again)")
    default = here.catalogue.default().name
    serving = [worker for worker in workers if worker.model]
    if not any(worker.model == default for worker in serving) and not any(worker.phase == "ready" for worker in serving):
        awaited.append(f"model {default} (no worker yet)")
    awaited += [_awaited_model(worker) for worker in serving if worker.phase != "ready"]
    awaited += [f"the {pool} worker" for pool in ("cpu", "io") if not any(worker.pool == pool for worker in workers)]
    state = {"status": "not_ready" if awaited else "ready", "waiting_for": awaited, "workers": len(workers)}
    return jsonify(state), 503 if awaited else 200


def _awaited_model(worker: Worker) -> str:
    if worker.phase == "failed":
        return f"model {worker.model} (failed: {worker.message})"
    return f"model {worker.model} ({worker.phase} {worker.fraction:.0%}: {worker.message})"


def _index_answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/api/v2/heartbeat", timeout=INDEX_SECONDS) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
