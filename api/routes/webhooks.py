"""``/webhooks`` and ``/deliveries``: addresses that hear of an owner's jobs, their secrets, and what was sent to them."""

from typing import Any

from flask import Blueprint, Response, jsonify, request

from api.request_parsing import body, query_integer
from api.responses import Answer, list_json
from api.routes.jobs import owned_job
from api.schemas.requests import JobWebhook, NewWebhook, WebhookChanges
from api.services import owner, services
from shared.errors import InvalidValue
from shared.ids import is_id
from shared.jobs.serialization import seconds
from shared.webhooks.deliveries import DELIVERY, STATUSES, Delivery, DeliveryAttempt
from shared.webhooks.endpoints import Endpoint, check_secret
from shared.webhooks.ssrf import AddressRefused, Unresolved, parse

blueprint = Blueprint("webhooks", __name__)

RESOLVE_SECONDS = 3.0
DISABLED_BY_OWNER = "by its owner"


@blueprint.post("/webhooks")
def create() -> Answer:
    """Keep an address; the answer has its secret."""
    wanted = body(NewWebhook)
    endpoint = services().endpoints.create(
        owner(),
        url=wanted.url,
        authority=_authority(wanted.url, "url"),
        events=wanted.events,
        job_kinds=wanted.job_kinds,
        description=wanted.description,
        secret=check_secret(wanted.secret, "secret") if wanted.secret else "",
    )
    return _with_secret(endpoint), 201


@blueprint.get("/webhooks")
def index() -> Response:
    """All of the owner's, oldest first, on one page."""
    return list_json([webhook_json(endpoint) for endpoint in services().endpoints.of_owner(owner())], None)


@blueprint.get("/webhooks/secret")
def secret() -> Response:
    """The owner's own secret, for webhooks of jobs that bring none."""
    return jsonify({"object": "webhook_secret", "secret": services().endpoints.owner_secret(owner())})


@blueprint.post("/webhooks/secret/rotate")
def rotate_secret() -> Response:
    """A new one in its place; the old one signs too for 24 hours."""
    return jsonify({"object": "webhook_secret", "secret": services().endpoints.rotate_owner_secret(owner())})


@blueprint.get("/webhooks/<webhook>")
def show(webhook: str) -> Response:
    return jsonify(webhook_json(services().endpoints.get(webhook, owner())))


@blueprint.patch("/webhooks/<webhook>")
def change(webhook: str) -> Response:
    """Change some of it; ``enabled`` also brings back one that a 410 has disabled."""
    services().endpoints.get(webhook, owner())
    wanted = body(WebhookChanges)
    changes: dict[str, Any] = wanted.model_dump(exclude_none=True, exclude={"enabled"})
    if wanted.url is not None:
        changes["authority"] = _authority(wanted.url, "url")
    if wanted.enabled is not None:
        changes["disabled"] = "" if wanted.enabled else DISABLED_BY_OWNER
    return jsonify(webhook_json(services().endpoints.change(webhook, owner(), changes)))


@blueprint.post("/webhooks/<webhook>/rotate")
def rotate(webhook: str) -> Response:
    """A new secret; the old one signs too for 24 hours."""
    return _with_secret(services().endpoints.rotate(webhook, owner()))


@blueprint.delete("/webhooks/<webhook>")
def delete(webhook: str) -> Response:
    """Forget it; what was still to be delivered to it is not."""
    services().endpoints.delete(webhook, owner())
    return jsonify({"id": webhook, "object": "webhook", "deleted": True})


@blueprint.get("/jobs/<job>/deliveries")
def of_job(job: str) -> Response:
    """What was told of a job, to whom, and how that went; oldest first, on one page."""
    found = owned_job(job)
    return list_json([delivery_json(delivery) for delivery in services().deliveries.of_job(found.id)], None)


@blueprint.get("/deliveries")
def deliveries() -> Response:
    """The owner's deliveries, newest first, filtered by ``status`` and ``webhook``; pages go on with ``after``."""
    limit = query_integer("limit", 20, 1, 100)
    after, status = request.args.get("after"), request.args.get("status")
    if after is not None and not is_id(DELIVERY, after):
        raise InvalidValue(f"after: must be the id of a delivery, not {after[:80]!r}", param="after")
    if status is not None and status not in STATUSES:
        raise InvalidValue(f"status: must be one of {', '.join(STATUSES)}, not {status[:80]!r}", param="status")
    found, following = services().deliveries.page(
        owner(), limit=limit, after=after, status=status, endpoint=request.args.get("webhook")
    )
    return list_json([delivery_json(delivery) for delivery in found], following)


@blueprint.get("/deliveries/<delivery>")
def show_delivery(delivery: str) -> Response:
    return jsonify(delivery_json(services().deliveries.get(delivery, owner())))


@blueprint.post("/deliveries/<delivery>/redeliver")
def redeliver(delivery: str) -> Answer:
    """Send it again now, under its id, and begin its schedule anew."""
    return jsonify(delivery_json(services().deliveries.redeliver(delivery, owner()))), 202


def job_webhook(wanted: JobWebhook | None) -> dict[str, Any] | None:
    """What a job's record keeps of its webhook. Raises InvalidValue when its address must not be called."""
    if wanted is None:
        return None
    kept = next((endpoint for endpoint in services().endpoints.of_owner(owner()) if endpoint.url == wanted.url), None)
    return {
        "url": wanted.url,
        "authority": _authority(wanted.url, "webhook.url"),
        "events": wanted.events,
        "endpoint": kept.id if kept is not None and not kept.disabled else "",
        "secret": check_secret(wanted.secret, "webhook.secret") if wanted.secret else "",
    }


def webhook_json(endpoint: Endpoint) -> dict[str, Any]:
    """A kept webhook, without its secret."""
    return {
        "id": endpoint.id,
        "object": "webhook",
        "url": endpoint.url,
        "events": endpoint.events,
        "job_kinds": endpoint.job_kinds,
        "description": endpoint.description,
        "enabled": not endpoint.disabled,
        "disabled_reason": endpoint.disabled or None,
        "previous_secret_until": seconds(endpoint.previous_until),
        "created_at": seconds(endpoint.created_at),
        "updated_at": seconds(endpoint.updated_at),
    }


def delivery_json(delivery: Delivery) -> dict[str, Any]:
    """A delivery with all its tries."""
    return {
        "id": delivery.id,
        "object": "delivery",
        "event": delivery.event,
        "job": delivery.job,
        "webhook": delivery.endpoint or None,
        "url": delivery.url,
        "status": delivery.status,
        "reason": delivery.reason or None,
        "created_at": seconds(delivery.created_at),
        "next_try_at": seconds(delivery.next_at),
        "ended_at": seconds(delivery.ended_at),
        "tries": [_try_json(one) for one in delivery.attempts],
    }


def _try_json(one: DeliveryAttempt) -> dict[str, Any]:
    return {
        "number": one.number,
        "worker": one.worker,
        "started_at": seconds(one.started_at),
        "ended_at": seconds(one.ended_at),
        "outcome": one.outcome,
        "status": one.status,
        "latency": seconds(one.latency_ms),
        "answer": one.answer,
        "error": one.error,
    }


def _with_secret(endpoint: Endpoint) -> Response:
    return jsonify({**webhook_json(endpoint), "secret": endpoint.secret})


def _authority(url: str, param: str) -> str:
    """Host and port of an address that may be called, as far as can be told now; it is checked again at every try."""
    try:
        target = parse(url)
        services().guard.addresses(target, RESOLVE_SECONDS)
    except AddressRefused as error:
        raise InvalidValue(f"{param}: {error}", param=param) from None
    except Unresolved as error:
        # A resolver that is away for a moment must not refuse a job; a name that is known not to exist is a slip.
        if error.unknown:
            raise InvalidValue(f"{param}: {error}", param=param) from None
    return target.authority
