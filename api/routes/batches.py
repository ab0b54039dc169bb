"""Batches that a client opens by itself, to have one job count what it uploads in many requests (``api.routes.uploads`` joins them)."""

from flask import Blueprint, jsonify, request

from api.request_parsing import body
from api.responses import Answer, accepted, job_answer, job_json
from api.routes.jobs import owned_job
from api.routes.webhooks import job_webhook
from api.schemas.requests import NewBatch
from api.services import owner, services
from api.submission import idempotency, job_of
from shared.errors import Conflict

blueprint = Blueprint("batches", __name__)


@blueprint.post("/batches")
def open_batch() -> Answer:
    """Open a batch: 201 with its job, which uploads join until it is sealed."""
    wanted = body(NewBatch) if request.content_length else NewBatch()
    webhook = job_webhook(wanted.webhook)
    repeatable = idempotency([webhook, wanted.metadata])
    batch = services().lifecycle.open_batch(
        owner(),
        spec={},
        webhook=webhook,
        metadata=wanted.metadata,
        idempotency_key=repeatable.key,
        fingerprint=repeatable.fingerprint,
    )
    response = jsonify(job_json(job_of(batch)))
    response.headers["Location"] = f"/jobs/{batch.id}"
    if batch.replayed:
        response.headers["Idempotent-Replay"] = "true"
    return response, 201


@blueprint.post("/jobs/<job>/seal")
def seal(job: str) -> Answer:
    """No more jobs will join a batch: 200 when it has ended, 202 when it goes on with those that it has."""
    found = owned_job(job)
    if found.kind != "batch":
        raise Conflict(f"job {job} is no batch, and nothing can join it; it is of kind {found.kind}", code="not_a_batch")
    services().lifecycle.seal_batch(job)
    found = owned_job(job)
    return job_answer(found) if found.status.final else accepted(found)
