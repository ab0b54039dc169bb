"""``/admin/gpus``: show gpu workers and choose their models."""

from flask import Blueprint, jsonify

from api.audit import add_audit_details
from api.openapi.operation import GPU, Example, Operation, Reply, describe
from api.operations_state import gpu_json, gpu_workers, list_gpus_json
from api.request_parsing import parse_body
from api.responses import RouteResponse, list_response
from api.schemas import responses
from api.schemas.requests.gpus import DesiredModel
from api.services import services
from shared.errors import Conflict, InvalidValue, NotFound
from shared.jobs.model_assignments import ModelAssignment
from shared.models.catalogue import GENERATE

blueprint = Blueprint("gpus", __name__, url_prefix="/admin/gpus")

TAG = "GPUs"
ADMIN_ONLY = "Needs the scope `admin`."


@blueprint.get("")
@describe(
    Operation(
        tag=TAG,
        summary="List gpu workers with their models, engines and GPUs",
        description=ADMIN_ONLY,
        replies={200: Reply(description="All gpu workers on one page.", model=responses.GpuWorkerList)},
    )
)
def list_gpus() -> RouteResponse:
    return list_response(list_gpus_json())


@blueprint.put("/<gpu>/model")
@describe(
    Operation(
        tag=TAG,
        summary="Set the model that a gpu worker should load",
        description=f"The worker changes its model after the call returns; see `state`. The choice survives restarts. {ADMIN_ONLY}",
        parameters=(GPU,),
        request_model=DesiredModel,
        examples={"unload": Example(summary="Unload the model", body={"model": None})},
        replies={202: Reply(description="The desired model is recorded.", model=responses.GpuWorker)},
        refusals=(409,),
    )
)
def set_model(gpu: str) -> RouteResponse:
    assignment = _find_assignment(gpu)
    model = parse_body(DesiredModel).model
    if model is not None:
        _check_loadable(model, assignment)
    add_audit_details(model=model)
    updated = services().assignments.set_desired_model(assignment.name, model or "", "operator")
    if updated is None:
        raise _gpu_not_found(gpu)
    return jsonify(gpu_json(updated, gpu_workers().get(assignment.name))), 202


def _check_loadable(model: str, assignment: ModelAssignment) -> None:
    entry = services().catalogue.get_model(model)
    if entry.task != GENERATE:
        raise InvalidValue(f"Model {entry.name!r} is an embedding model and cannot generate text.", param="model")
    if model in assignment.unloadable_models:
        raise Conflict(assignment.unloadable_models[model], code="model_does_not_fit", param="model")


def _find_assignment(gpu: str) -> ModelAssignment:
    """The assignment of a worker by its name, or by its number if only one host has that number."""
    found = [assignment for assignment in services().assignments.list_all() if gpu in (assignment.name, str(assignment.number))]
    if not found:
        raise _gpu_not_found(gpu)
    if len(found) > 1:
        names = ", ".join(assignment.name for assignment in found)
        raise Conflict(f"Several hosts have a gpu worker {gpu}. Name one of: {names}", code="gpu_ambiguous")
    return found[0]


def _gpu_not_found(gpu: str) -> NotFound:
    names = ", ".join(assignment.name for assignment in services().assignments.list_all())
    return NotFound(f"There is no gpu worker {gpu[:80]!r}. Existing workers: {names or 'none'}", code="gpu_not_found")
