"""``GET /admin/overview``: what the operations view of the web page shows, in one request."""

from flask import Blueprint, jsonify

from api.openapi.operation import Operation, Reply, describe
from api.operations_state import list_dead_letters_json, list_gpus_json, list_queues_json, list_workers_json
from api.responses import RouteResponse
from api.schemas import responses

blueprint = Blueprint("overview", __name__, url_prefix="/admin")

MAX_DEAD_LETTERS = 100


@blueprint.get("/overview")
@describe(
    Operation(
        tag="Administration",
        summary="Get queues, workers, gpu workers and dead letters in one request",
        description=f"The entries are those of the calls for each of them, with at most {MAX_DEAD_LETTERS} dead letters. Needs the scope `admin`.",
        replies={200: Reply(description="The state of operations.", model=responses.OperationsOverview)},
    )
)
def show_overview() -> RouteResponse:
    return jsonify(
        {
            "object": "overview",
            "queues": list_queues_json(),
            "workers": list_workers_json(),
            "gpus": list_gpus_json(),
            "dead_letters": list_dead_letters_json(MAX_DEAD_LETTERS),
        }
    )
