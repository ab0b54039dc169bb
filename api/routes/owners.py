"""``/admin/owners``: read and change the weights and limits of single owners."""

from typing import Any

from flask import Blueprint, jsonify

from api.openapi.operation import Example, Operation, Parameter, Reply, describe
from api.request_parsing import parse_body
from api.responses import RouteResponse, list_response
from api.schemas import responses
from api.schemas.requests.administration import OwnerChange
from api.services import services
from shared.owners.limits import OwnerLimits, effective_limits
from shared.owners.store import check_name

blueprint = Blueprint("owners", __name__, url_prefix="/admin/owners")

TAG = "Administration"
ADMIN_ONLY = "Needs the scope `admin`."
OWNER = Parameter(
    name="owner", location="path", schema={"type": "string"}, description="Name of the owner.", example="local", required=True
)


@blueprint.get("")
@describe(
    Operation(
        tag=TAG,
        summary="List the owners with their own weight or limits",
        description=ADMIN_ONLY,
        replies={200: Reply(description="All of them on one page.", model=responses.OwnerList)},
    )
)
def list_limited_owners() -> RouteResponse:
    store = OwnerLimits(services().redis)
    return list_response([_owner_json(store, owner) for owner in store.owners()])


@blueprint.get("/<owner>")
@describe(
    Operation(
        tag=TAG,
        summary="Get the weight and the limits of an owner",
        description=ADMIN_ONLY,
        parameters=(OWNER,),
        replies={200: Reply(description="The owner.", model=responses.Owner)},
    )
)
def show_owner(owner: str) -> RouteResponse:
    check_name(owner, "owner")
    return jsonify(_owner_json(OwnerLimits(services().redis), owner))


@blueprint.patch("/<owner>")
@describe(
    Operation(
        tag=TAG,
        summary="Change the weight and the limits of an owner",
        description=f"Omitted limits stay unchanged. {ADMIN_ONLY}",
        parameters=(OWNER,),
        request_model=OwnerChange,
        examples={"budget": Example(summary="A budget", body={"limits": {"tokens_per_month": 5_000_000_000}})},
        replies={200: Reply(description="The owner.", model=responses.Owner)},
    )
)
def change_owner(owner: str) -> RouteResponse:
    check_name(owner, "owner")
    body, store = parse_body(OwnerChange), OwnerLimits(services().redis)
    if body.limits is not None:
        store.set_limits(owner, body.limits)
    if body.weight is not None:
        store.set_weight(owner, body.weight)
    return jsonify(_owner_json(store, owner))


def _owner_json(store: OwnerLimits, owner: str) -> dict[str, Any]:
    own = store.limits(owner)
    effective = effective_limits(own, services().settings)
    return {"object": "owner", "owner": owner, "weight": store.weight(owner), "limits": own, "effective_limits": effective}
