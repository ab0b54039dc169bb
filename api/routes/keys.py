"""``/admin/keys``: list, create, change, rotate and revoke API keys."""

from typing import Any

from flask import Blueprint, jsonify

from api.audit import add_audit_details, add_audit_targets
from api.openapi.operation import Example, Operation, Reply, describe, in_path
from api.request_parsing import parse_body, parse_optional_body
from api.responses import RouteResponse, list_response
from api.schemas import responses
from api.schemas.requests.keys import KeyChanges, KeyRights, KeyRotation, NewKey
from api.services import services
from shared.owners.limits import KeyLimits, check_key_limits
from shared.owners.store import ApiKey, KeyOptions
from shared.redis_connection import redis_time_ms

blueprint = Blueprint("keys", __name__, url_prefix="/admin/keys")

TAG = "API keys"
ADMIN_ONLY = "Needs the scope `admin`."
KEY = in_path("key", "Id of an API key.", "key_01m84stetzyr7esggznw5rdjds")
SHOWN_ONCE = "The secret is shown once, and only its SHA-256 is stored."


@blueprint.get("")
@describe(
    Operation(
        tag=TAG,
        summary="List all keys, oldest first",
        description=f"Includes revoked and expired keys. {ADMIN_ONLY}",
        replies={200: Reply(description="All keys on one page.", model=responses.ApiKeyList)},
    )
)
def list_keys() -> RouteResponse:
    store = services().keys
    keys, uses = store.list_keys(), store.last_uses()
    limits = KeyLimits(services().redis).limits_of([key.id for key in keys])
    return list_response([key.as_json(uses.get(key.id), limits[key.id]) for key in keys])


@blueprint.post("")
@describe(
    Operation(
        tag=TAG,
        summary="Create a key",
        description=f"{SHOWN_ONCE} Once a key exists, every call needs one. {ADMIN_ONLY}",
        request_model=NewKey,
        examples={
            "search": Example(
                summary="A key that only searches one collection for 30 days",
                body={"name": "website", "scopes": ["search"], "collections": ["handbook"], "expires_in": 2592000},
            ),
        },
        replies={201: Reply(description="The key with its secret.", model=responses.ApiKeyWithSecret)},
    )
)
def create_key() -> RouteResponse:
    body = parse_body(NewKey)
    limits = body.limits or {}
    check_key_limits(limits)
    key, secret = services().keys.create(body.name, owner=body.owner or "", **_options(body))
    KeyLimits(services().redis).set_limits(key.id, limits)
    add_audit_targets(key.id)
    add_audit_details(**_audited(key))
    return jsonify({**_key_json(key), "secret": secret}), 201


@blueprint.get("/<key>")
@describe(
    Operation(
        tag=TAG,
        summary="Get a key",
        description=ADMIN_ONLY,
        parameters=(KEY,),
        replies={200: Reply(description="The key.", model=responses.ApiKey)},
    )
)
def show_key(key: str) -> RouteResponse:
    return _key_response(services().keys.get(key))


@blueprint.patch("/<key>")
@describe(
    Operation(
        tag=TAG,
        summary="Change the name, the rights or the expiry of a key",
        description=f"Omitted fields and limits stay unchanged. The new rights apply to the next request with the key. {ADMIN_ONLY}",
        parameters=(KEY,),
        request_model=KeyChanges,
        examples={"narrow": Example(summary="Fewer scopes", body={"scopes": ["generate"]})},
        replies={200: Reply(description="The key.", model=responses.ApiKey)},
        refusals=(409,),
    )
)
def change_key(key: str) -> RouteResponse:
    body = parse_body(KeyChanges)
    limits = body.limits or {}
    check_key_limits(limits)
    changed = services().keys.change(key, _options(body), name=body.name)
    KeyLimits(services().redis).set_limits(changed.id, limits)
    add_audit_details(**_audited(changed))
    return _key_response(changed)


@blueprint.post("/<key>/rotate")
@describe(
    Operation(
        tag=TAG,
        summary="Replace a key by one with the same rights",
        description=f"The old key expires after `overlap`, by default after a day. {SHOWN_ONCE} {ADMIN_ONLY}",
        parameters=(KEY,),
        request_model=KeyRotation,
        body_required=False,
        examples={"hour": Example(summary="With an overlap of an hour", body={"overlap": 3600})},
        replies={201: Reply(description="The new key with its secret.", model=responses.ApiKeyWithSecret)},
        refusals=(409,),
    )
)
def rotate_key(key: str) -> RouteResponse:
    body = parse_optional_body(KeyRotation)
    new, secret = services().keys.rotate(key, overlap_seconds=body.overlap)
    add_audit_targets(new.id)
    return jsonify({**_key_json(new), "secret": secret}), 201


@blueprint.delete("/<key>")
@describe(
    Operation(
        tag=TAG,
        summary="Revoke a key",
        description=f"It is rejected immediately, and its open streams end within a second or at their next event. {ADMIN_ONLY}",
        parameters=(KEY,),
        replies={200: Reply(description="The key, which stays in the list.", model=responses.ApiKey)},
    )
)
def revoke_key(key: str) -> RouteResponse:
    return _key_response(services().keys.revoke(key))


def _options(body: KeyRights) -> KeyOptions:
    """The fields of a key that the body has."""
    given, options = body.model_fields_set, KeyOptions()
    if "scopes" in given:
        options["scopes"] = body.scopes
    if "models" in given:
        options["models"] = body.models
    if "collections" in given:
        options["collections"] = body.collections
    if "requests_per_second" in given:
        options["requests_per_second"] = body.requests_per_second
    if body.expires_in is not None:
        options["expires_at"] = redis_time_ms(services().redis) + int(1000 * body.expires_in)
    elif "expires_at" in given:
        options["expires_at"] = None if body.expires_at is None else int(1000 * body.expires_at)
    return options


def _audited(key: ApiKey) -> dict[str, Any]:
    rights = {**key.rights.as_json(), "expires_at": key.expires_at and key.expires_at / 1000}
    limits = KeyLimits(services().redis).limits(key.id)
    return {"name": key.name, "for_owner": key.owner, **rights, **({"limits": limits} if limits else {})}


def _key_response(key: ApiKey) -> RouteResponse:
    return jsonify(_key_json(key))


def _key_json(key: ApiKey) -> dict[str, Any]:
    limits = KeyLimits(services().redis).limits(key.id)
    return key.as_json(services().keys.last_uses().get(key.id), limits)
