"""``/me``: who the caller is."""

from typing import Any

from flask import Blueprint, jsonify

from api.caller import Caller, caller
from api.caller_limits import caller_limits
from api.openapi.operation import Operation, Reply, describe
from api.responses import RouteResponse
from api.schemas import responses
from api.services import services
from shared.jobs.serialization import seconds
from shared.owners.limits import KeyLimits

blueprint = Blueprint("me", __name__)


@blueprint.get("/me")
@describe(
    Operation(
        tag="Models and health",
        summary="Show who the caller is: owner, API key, rights, and limits with their use",
        replies={200: Reply(description="The account; `key` is null while no key exists.", model=responses.Account)},
    )
)
def show_account() -> RouteResponse:
    made_by = caller()
    key = _key(made_by) if made_by.key_id else None
    limits = caller_limits()
    account = {"owner": made_by.owner, "admin": made_by.admin, "key": key, "rights": made_by.rights.as_json()}
    return jsonify({**account, "limits": limits, "used": services().owner_use.read(made_by.owner, limits)})


def _key(made_by: Caller) -> dict[str, Any]:
    limits = KeyLimits(services().redis).limits(made_by.key_id)
    if made_by.requests_per_second is not None:
        limits["requests_per_second"] = made_by.requests_per_second
    return {"id": made_by.key_id, "name": made_by.key_name, "expires_at": seconds(made_by.expires_at), "limits": limits}
