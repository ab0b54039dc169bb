"""``/admin/gpus``: which model each GPU holds and should hold, and how it fares; for those whose key may administer."""

from typing import Any

from flask import Blueprint, Response, jsonify

from api.auth import require_admin
from api.bodies import ModelWish
from api.parsing import body
from api.render import Answer, list_json
from api.services import services
from shared.errors import Conflict, InvalidValue, NotFound
from shared.jobs.seats import Seat
from shared.jobs.view import seconds
from shared.jobs.workforce import Worker
from shared.models.catalogue import GENERATE

blueprint = Blueprint("gpus", __name__, url_prefix="/admin/gpus")
blueprint.before_request(require_admin)


@blueprint.get("")
def index() -> Response:
    """Every gpu worker, by name."""
    workers = _workers()
    return list_json([gpu_json(seat, workers.get(seat.name)) for seat in services().seats.all()], None)


@blueprint.put("/<gpu>/model")
def put(gpu: str) -> Answer:
    """Say which model a GPU is to hold. Its worker lets running jobs go on for a while, gives up the old model, loads the new."""
    here = services()
    seat = _seat(gpu)
    wanted = body(ModelWish).model
    if wanted is not None:
        entry = here.catalogue.get(wanted)
        if entry.kind != GENERATE:
            raise InvalidValue(f"model: {entry.name} turns text into vectors; it does not generate", param="model")
        if wanted in seat.refuses:
            raise Conflict(seat.refuses[wanted], code="model_does_not_fit", param="model")
    wished = here.seats.wish(seat.name, wanted or "", "operator")
    if wished is None:
        raise _missing(gpu)
    return jsonify(gpu_json(wished, _workers().get(seat.name))), 202


def gpu_json(seat: Seat, worker: Worker | None) -> dict[str, Any]:
    """One seat and what its living worker says of itself."""
    return {
        "gpu": seat.name,
        "number": seat.number,
        "object": "gpu",
        "devices": list(seat.devices),
        "wish": seat.wish or None,
        "by": seat.by,
        "wished_at": seconds(seat.wished_at),
        "model": (worker.model or None) if worker else None,
        "state": worker.phase if worker else "away",
        "reason": worker.message or None if worker and worker.phase != "ready" else None,
        "progress": worker.fraction if worker and worker.phase in ("loading", "warming") else None,
        "running": worker.running if worker else 0,
        "idle_seconds": seconds(worker.idle_ms) if worker else None,
        "offers": list(seat.offers),
        "refuses": dict(seat.refuses),
        "engine": worker.engine if worker else None,
        "gpus": list(worker.gpus) if worker else [],
    }


def _workers() -> dict[str, Worker]:
    here = services()
    return {worker.name: worker for worker in here.workforce.alive(3 * here.settings.renew_seconds) if worker.pool == "gpu"}


def _seat(gpu: str) -> Seat:
    """By the name of its worker, or by its number where one host only has that."""
    found = [seat for seat in services().seats.all() if gpu in (seat.name, str(seat.number))]
    if not found:
        raise _missing(gpu)
    if len(found) > 1:
        names = ", ".join(seat.name for seat in found)
        raise Conflict(f"several hosts have a GPU {gpu}; say which: {names}", code="gpu_ambiguous")
    return found[0]


def _missing(gpu: str) -> NotFound:
    there = ", ".join(seat.name for seat in services().seats.all())
    return NotFound(f"there is no gpu worker {gpu[:80]!r}; there are: {there or 'none'}", code="gpu_not_found")
