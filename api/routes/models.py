"""``GET /models``: the models of the list, and what their workers say of themselves."""

from typing import Any

from flask import Blueprint, Response, jsonify

from api.services import services
from shared.jobs.model_assignments import ModelAssignment
from shared.jobs.worker_registry import Worker
from shared.models.catalogue import EMBED, ModelEntry

blueprint = Blueprint("models", __name__)

# The best state of several workers of a model is the model's.
ORDER = ("ready", "warming", "loading", "draining", "failed")


@blueprint.get("/models")
def index() -> Response:
    """A JSON list, as in the guide: ``name`` and ``url`` of each model, then its limits and its state."""
    here = services()
    workers = here.worker_registry.alive(3 * here.settings.renew_seconds)
    assignments = here.active_assignments()
    return jsonify([model_json(entry, workers, assignments) for entry in here.catalogue.models])


def model_json(entry: ModelEntry, workers: list[Worker], assignments: list[ModelAssignment]) -> dict[str, Any]:
    """One model as clients see it. When no living worker holds it, ``state`` is ``loading`` if one is to, ``unloaded`` if one
    could, else ``not_served``."""
    # The embedding model lives in the workers that ingest and retrieve.
    serving = [
        worker for worker in workers if worker.model == entry.name or (entry.task == EMBED and worker.pool in ("cpu", "io"))
    ]
    best = min(serving, key=lambda worker: ORDER.index(worker.phase), default=None)
    return {
        "name": entry.name,
        "url": entry.url,
        "object": "model",
        "task": entry.task,
        "engine": entry.engine,
        "dtype": entry.dtype,
        "max_context": entry.max_context,
        "max_in_flight": entry.max_in_flight,
        "max_tokens": entry.max_tokens,
        "chat_template": entry.chat_template,
        "stop": list(entry.stop),
        "gpus": entry.gpus,
        "replicas": entry.replicas,
        "devices": None if entry.devices is None else list(entry.devices),
        "gpu_share": entry.gpu_share,
        "load": entry.load,
        "pinned": entry.pinned,
        "keep_alive": entry.keep_alive,
        "parameters": entry.parameters,
        "default": entry.default,
        "state": best.phase if best else _absent(entry, assignments),
        "reason": best.message or None if best and best.phase != "ready" else None,
        "progress": best.fraction if best and best.phase in ("loading", "warming") else None,
        "attention": ((best.engine or {}).get("attention") or None) if best else None,
        "workers": len(serving),
    }


def _absent(entry: ModelEntry, assignments: list[ModelAssignment]) -> str:
    if any(assignment.desired_model == entry.name for assignment in assignments):
        return "loading"
    return "unloaded" if any(entry.name in assignment.loadable_models for assignment in assignments) else "not_served"
