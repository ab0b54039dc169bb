"""``/webhooks`` and ``/deliveries``: registered webhooks of an owner, their secrets, and their deliveries."""

from typing import Any

from flask import Blueprint, Response, jsonify, request

from api.audit import add_audit_targets
from api.job_webhook import check_url
from api.openapi.operation import (
    AFTER,
    DELIVERY,
    JOB,
    LIMIT,
    WEBHOOK,
    Example,
    Operation,
    Reply,
    describe,
    in_query,
)
from api.owned_jobs import find_owned_job
from api.request_parsing import parse_body, query_choice, query_cursor, query_integer
from api.responses import RouteResponse, list_response
from api.schemas import responses
from api.schemas.requests.webhooks import NewWebhook, WebhookChanges
from api.services import owner, services
from shared.jobs.serialization import seconds
from shared.webhooks.deliveries import DELIVERY as DELIVERY_PREFIX
from shared.webhooks.deliveries import STATUSES, Delivery, DeliveryAttempt
from shared.webhooks.endpoints import DISABLED_BY_OWNER, Endpoint, check_secret

blueprint = Blueprint("webhooks", __name__)

TAG = "Webhooks"
ROTATION = "Deliveries are also signed with the old secret for 24 hours."


@blueprint.post("/webhooks")
@describe(
    Operation(
        tag=TAG,
        summary="Register a webhook for all your jobs",
        description="The response has the secret that signs its deliveries. The secret is not shown again.",
        request_model=NewWebhook,
        examples={
            "expired": Example(
                summary="Only jobs that expired, sent to a receiver on the server's own machine",
                body={"url": "http://127.0.0.1:8765/", "events": ["job.expired"], "description": "the pager"},
            ),
        },
        replies={201: Reply(description="The registered webhook.", model=responses.WebhookWithSecret)},
        refusals=(409,),
    )
)
def create_webhook() -> RouteResponse:
    body = parse_body(NewWebhook)
    endpoint = services().endpoints.create(
        owner(),
        url=body.url,
        authority=check_url(body.url, "url"),
        events=body.events,
        job_kinds=body.job_kinds,
        description=body.description,
        secret=check_secret(body.secret, "secret") if body.secret else "",
    )
    add_audit_targets(endpoint.id)
    return _response_with_secret(endpoint), 201


@blueprint.get("/webhooks")
@describe(
    Operation(
        tag=TAG,
        summary="List registered webhooks, oldest first",
        replies={200: Reply(description="All webhooks on one page.", model=responses.WebhookList)},
    )
)
def list_webhooks() -> RouteResponse:
    return list_response([_webhook_json(endpoint) for endpoint in services().endpoints.list_for_owner(owner())])


@blueprint.get("/webhooks/<webhook>")
@describe(
    Operation(
        tag=TAG,
        summary="Get a registered webhook",
        parameters=(WEBHOOK,),
        replies={200: Reply(description="The webhook.", model=responses.Webhook)},
    )
)
def show_webhook(webhook: str) -> RouteResponse:
    return jsonify(_webhook_json(services().endpoints.get(webhook, owner())))


@blueprint.patch("/webhooks/<webhook>")
@describe(
    Operation(
        tag=TAG,
        summary="Change a registered webhook",
        description="Omitted fields keep their value. `enabled` also enables a webhook that was disabled by a response of 410.",
        parameters=(WEBHOOK,),
        request_model=WebhookChanges,
        examples={"events": Example(summary="Failures as well", body={"events": ["job.expired", "job.failed"]})},
        replies={200: Reply(description="The changed webhook.", model=responses.Webhook)},
    )
)
def change_webhook(webhook: str) -> RouteResponse:
    services().endpoints.get(webhook, owner())
    body = parse_body(WebhookChanges)
    changes: dict[str, Any] = body.model_dump(exclude_none=True, exclude={"enabled"})
    if body.url is not None:
        changes["authority"] = check_url(body.url, "url")
    if body.enabled is not None:
        changes["disabled"] = "" if body.enabled else DISABLED_BY_OWNER
    return jsonify(_webhook_json(services().endpoints.change(webhook, owner(), changes)))


@blueprint.delete("/webhooks/<webhook>")
@describe(
    Operation(
        tag=TAG,
        summary="Delete a registered webhook",
        description="Its pending deliveries fail.",
        parameters=(WEBHOOK,),
        replies={200: Reply(description="The webhook is deleted.", model=responses.Deletion)},
    )
)
def delete_webhook(webhook: str) -> RouteResponse:
    services().endpoints.delete(webhook, owner())
    return jsonify({"id": webhook, "object": "webhook", "deleted": True})


@blueprint.post("/webhooks/<webhook>/rotate")
@describe(
    Operation(
        tag=TAG,
        summary="Rotate the secret of a registered webhook",
        description=ROTATION,
        parameters=(WEBHOOK,),
        replies={200: Reply(description="The webhook, with its new secret.", model=responses.WebhookWithSecret)},
    )
)
def rotate_webhook_secret(webhook: str) -> RouteResponse:
    return _response_with_secret(services().endpoints.rotate(webhook, owner()))


@blueprint.get("/webhooks/secret")
@describe(
    Operation(
        tag=TAG,
        summary="Get the secret for webhooks of jobs that have no secret of their own",
        replies={200: Reply(description="The secret.", model=responses.WebhookSecret)},
    )
)
def show_owner_secret() -> RouteResponse:
    return jsonify({"object": "webhook_secret", "secret": services().endpoints.owner_secret(owner())})


@blueprint.post("/webhooks/secret/rotate")
@describe(
    Operation(
        tag=TAG,
        summary="Rotate the secret for webhooks of jobs",
        description=ROTATION,
        replies={200: Reply(description="The new secret.", model=responses.WebhookSecret)},
    )
)
def rotate_owner_secret() -> RouteResponse:
    return jsonify({"object": "webhook_secret", "secret": services().endpoints.rotate_owner_secret(owner())})


@blueprint.get("/jobs/<job>/deliveries")
@describe(
    Operation(
        tag=TAG,
        summary="List the deliveries of a job, oldest first",
        parameters=(JOB,),
        replies={200: Reply(description="All deliveries on one page.", model=responses.DeliveryList)},
    )
)
def list_job_deliveries(job: str) -> RouteResponse:
    found = find_owned_job(job)
    return list_response([_delivery_json(delivery) for delivery in services().deliveries.list_for_job(found.id)])


@blueprint.get("/deliveries")
@describe(
    Operation(
        tag=TAG,
        summary="List your deliveries, newest first",
        parameters=(
            in_query("status", {"enum": list(STATUSES)}, "Only deliveries with this status.", "pending"),
            in_query("webhook", {"type": "string"}, "Only deliveries to this registered webhook."),
            LIMIT,
            AFTER,
        ),
        replies={200: Reply(description="One page.", model=responses.DeliveryList)},
    )
)
def list_deliveries() -> RouteResponse:
    limit = query_integer("limit", 20, 1, 100)
    after = query_cursor(DELIVERY_PREFIX, "delivery")
    status = query_choice("status", STATUSES)
    deliveries, next_cursor = services().deliveries.list_deliveries(
        owner(), limit=limit, after=after, status=status, endpoint=request.args.get("webhook")
    )
    return list_response([_delivery_json(delivery) for delivery in deliveries], next_cursor)


@blueprint.get("/deliveries/<delivery>")
@describe(
    Operation(
        tag=TAG,
        summary="Get a delivery with all its attempts",
        parameters=(DELIVERY,),
        replies={200: Reply(description="The delivery.", model=responses.Delivery)},
    )
)
def show_delivery(delivery: str) -> RouteResponse:
    return jsonify(_delivery_json(services().deliveries.get(delivery, owner())))


@blueprint.post("/deliveries/<delivery>/redeliver")
@describe(
    Operation(
        tag=TAG,
        summary="Send a delivery again now",
        description="Keeps its `webhook-id`, works for every status, and restarts its retry schedule.",
        parameters=(DELIVERY,),
        replies={202: Reply(description="The delivery, which is attempted immediately.", model=responses.Delivery)},
        refusals=(409,),
    )
)
def redeliver(delivery: str) -> RouteResponse:
    return jsonify(_delivery_json(services().deliveries.redeliver(delivery, owner()))), 202


def _webhook_json(endpoint: Endpoint) -> dict[str, Any]:
    """A registered webhook without its secret."""
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


def _delivery_json(delivery: Delivery) -> dict[str, Any]:
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
        "next_attempt_at": seconds(delivery.next_at),
        "ended_at": seconds(delivery.ended_at),
        "attempts": [_attempt_json(attempt) for attempt in delivery.attempts],
    }


def _attempt_json(attempt: DeliveryAttempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "worker": attempt.worker,
        "started_at": seconds(attempt.started_at),
        "ended_at": seconds(attempt.ended_at),
        "outcome": attempt.outcome,
        "status": attempt.status,
        "latency": seconds(attempt.latency_ms),
        "answer": attempt.answer,
        "error": attempt.error,
    }


def _response_with_secret(endpoint: Endpoint) -> Response:
    return jsonify({**_webhook_json(endpoint), "secret": endpoint.secret})
