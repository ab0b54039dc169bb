"""``GET /attention``: what needs the caller's or the operator's attention."""

from flask import Blueprint

from api.attention import find_attention
from api.openapi.operation import Operation, Reply, describe
from api.responses import RouteResponse, list_response
from api.schemas import responses

blueprint = Blueprint("attention", __name__)


@blueprint.get("/attention")
@describe(
    Operation(
        tag="Models and health",
        summary="List what needs your attention",
        description=(
            "Failing jobs, deliveries and webhooks, collections to reindex, and limits that are nearly used; for administrators also "
            "paused queues, missing workers, models that could not be loaded, dead letters, GPUs and the disk. Empty if all is well."
        ),
        replies={200: Reply(description="All of it on one page.", model=responses.AttentionList)},
    )
)
def list_attention() -> RouteResponse:
    return list_response([entry.as_json() for entry in find_attention()])
