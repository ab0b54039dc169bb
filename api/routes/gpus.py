"""``/admin/gpus``: which model each GPU holds and should hold, and how it fares; for those whose key may administer."""

from typing import Any

from flask import Blueprint, Response, jsonify

from api.auth import require_admin
from api.request_parsing import body
from api.responses import Answer, list_json
from api.schemas.requests import ModelWish
from api.services import services
from shared.errors import Conflict, InvalidValue, NotFound
from shared.jobs.model_assignments import ModelAssignment
from shared.jobs.serialization import seconds
from shared.jobs.worker_registry import Worker
from shared.models.catalogue import GENERATE

blueprint = Blueprint("gpus", __name__, url_prefix="/admin/gpus")
blueprint.before_request(require_admin)


@blueprint.get("")
def index() -> Response:
    """Every gpu worker, by name."""
    workers = _workers()
    return list_json(
        [gpu_json(assignment, workers.get(assignment.name)) for assignment in services().assignments.list_all()], None
    )


@blueprint.put("/<gpu>/model")
def put(gpu: str) -> Answer:
    """Say which model a GPU is to hold. Its worker lets running jobs go on for a while, gives up the old model, loads the new."""
    here = services()
    assignment = _seat(gpu)
    wanted = body(ModelWish).model
    if wanted is not None:
        entry = here.catalogue.get(wanted)
        if entry.task != GENERATE:
            raise InvalidValue(f"model: {entry.name} turns text into vectors; it does not generate", param="model")
        if wanted in assignment.unloadable_models:
            raise Conflict(assignment.unloadable_models[wanted], code="model_does_not_fit", param="model")
    wished = here.assignments.set_desired_model(assignment.name, wanted or "", "operator")
    if wished is None:
        raise _missing(gpu)
    return jsonify(gpu_json(wished, _workers().get(assignment.name))), 202


def gpu_json(assignment: ModelAssignment, worker: Worker | None) -> dict[str, Any]:
    """One seat and what its living worker says of itself."""
    return {
        "gpu": assignment.name,
        "number": assignment.number,
        "object": "gpu",
        "devices": list(assignment.devices),
        "desired_model": assignment.desired_model or None,
        "requested_by": assignment.requested_by,
        "requested_at": seconds(assignment.requested_at),
        "model": (worker.model or None) if worker else None,
        "state": worker.phase if worker else "away",
        "reason": worker.message or None if worker and worker.phase != "ready" else None,
        "progress": worker.fraction if worker and worker.phase in ("loading", "warming") else None,
        "running": worker.running if worker else 0,
        "idle_seconds": seconds(worker.idle_ms) if worker else None,
        "loadable_models": list(assignment.loadable_models),
        "unloadable_models": dict(assignment.unloadable_models),
        "engine": worker.engine if worker else None,
        "gpus": list(worker.gpus) if worker else [],
    }


def _workers() -> dict[str, Worker]:
    here = services()
    return {worker.name: worker for worker in here.worker_registry.alive(3 * here.settings.renew_seconds) if worker.pool == "gpu"}


def _seat(gpu: str) -> ModelAssignment:
    """By the name of its worker, or by its number where one host only has that."""
    found = [assignment for assignment in services().assignments.list_all() if gpu in (assignment.name, str(assignment.number))]
    if not found:
        raise _missing(gpu)
    if len(found) > 1:
        names = ", ".join(assignment.name for assignment in found)
        raise Conflict(f"several hosts have a GPU {gpu}; say which: {names}", code="gpu_ambiguous")
    return found[0]


def _missing(gpu: str) -> NotFound:
    there = ", ".join(assignment.name for assignment in services().assignments.list_all())
    return NotFound(f"there is no gpu worker {gpu[:80]!r}; there are: {there or 'none'}", code="gpu_not_found")
