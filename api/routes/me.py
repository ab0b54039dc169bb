"""``/me``: who the caller is."""

from flask import Blueprint, jsonify

from api.caller import caller
from api.openapi.operation import Operation, Reply, describe
from api.responses import RouteResponse
from api.schemas import responses
from api.services import services

blueprint = Blueprint("me", __name__)


@blueprint.get("/me")
@describe(
    Operation(
        tag="Models and health",
        summary="Show who the caller is: owner, API key and limits",
        replies={200: Reply(description="The account; `key` is null while no key exists.", model=responses.Account)},
    )
)
def show_account() -> RouteResponse:
    made_by = caller()
    key = {"id": made_by.key_id, "name": made_by.key_name} if made_by.key_id else None
    limits = made_by.effective_limits(services().settings)
    return jsonify({"owner": made_by.owner, "admin": made_by.admin, "key": key, "limits": limits})
