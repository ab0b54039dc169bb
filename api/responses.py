"""Responses and JSON that several routes share: jobs, lists, documents, collections. Times are Unix seconds with milliseconds."""

from collections.abc import Mapping, Sequence
from typing import Any

from flask import Response, jsonify, request

from api.queue_state import queue_state
from api.services import services
from shared.documents.models import Collection
from shared.jobs.models import Job, Status
from shared.jobs.serialization import job_view
from shared.jobs.serialization import seconds as milliseconds_to_seconds
from shared.openai.batches import REQUEST_BATCH, RequestBatch, public_id

RouteResponse = tuple[Response, int] | Response

RETRY_AFTER = "1"


def job_json(job: Job) -> dict[str, Any]:
    """A job as its owner sees it."""
    view = job_view(job)
    if job.status is Status.QUEUED:
        view |= queue_state(job)
    if job.kind == REQUEST_BATCH:
        view |= _request_batch_state(job)
    return view


def _request_batch_state(job: Job) -> dict[str, Any]:
    """The fields that only a job of a request batch has."""
    batches = services().request_batches
    batch = RequestBatch(job=job, state=batches.state(job.id))
    return {
        "request_batch": public_id(job.id),
        "request_counts": batch.counts(),
        "estimated_end_at": milliseconds_to_seconds(batch.estimated_end_ms(batches.now_ms())),
    }


def listed_job_json(job: Job) -> dict[str, Any]:
    """A job as an entry of a list, without its result, which may be large."""
    view = job_json(job)
    del view["result"]
    return view


def job_response(job: Job) -> Response:
    """The job, with ``Retry-After`` if it has not ended."""
    response = jsonify(job_json(job))
    if not job.status.final:
        response.headers["Retry-After"] = RETRY_AFTER
    return response


def accepted_response(job: Job, *, replayed: bool = False) -> RouteResponse:
    """202 with the job, its location, and when to poll it."""
    response = job_response(job)
    response.headers["Retry-After"] = RETRY_AFTER
    response.headers["Location"] = f"/jobs/{job.id}"
    return mark_replay(response, replayed), 202


def mark_replay(response: Response, replayed: bool) -> Response:
    """Add ``Idempotent-Replay`` if an earlier request with the same key determined this response."""
    if replayed:
        response.headers["Idempotent-Replay"] = "true"
    return response


def final_or_accepted(job: Job, *, waited: bool = True, replayed: bool = False) -> RouteResponse:
    """200 with the job if the client waited and the job has ended, else 202."""
    if waited and job.status.final:
        return mark_replay(job_response(job), replayed)
    return accepted_response(job, replayed=replayed)


def unless_known(response: Response) -> Response:
    """The response with an ETag, or 304 if the client has sent that ETag."""
    response.add_etag()
    response.make_conditional(request)
    return response


def list_response(entries: Sequence[Mapping[str, Any]], next_cursor: str | None = None, **more: Any) -> Response:
    """A list in the form that all lists have. ``next_cursor`` is the ``after`` of the next page; ``more`` are fields of this list only."""
    return jsonify({"object": "list", "data": list(entries), "has_more": next_cursor is not None, "next": next_cursor, **more})


def collection_json(collection: Collection) -> dict[str, Any]:
    """A collection with the number of its documents."""
    return {**collection.as_json(), "documents": services().documents.count_documents(collection.id)}
