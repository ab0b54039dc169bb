"""JSON of the objects that several routes return. Times are Unix seconds with milliseconds."""

from collections.abc import Mapping, Sequence
from typing import Any

from flask import Response, jsonify, request

from api.services import services
from shared.documents.models import Collection, Document
from shared.jobs.celery_broker import generation_queue
from shared.jobs.models import Job, Status
from shared.jobs.serialization import job_view, seconds

RouteResponse = tuple[Response, int] | Response

RETRY_AFTER = "1"

PAGE_HEADERS = {
    # Trusted types block every way from text to markup, so a document that contains a script stays a document.
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # File names stay the same from version to version: the browser keeps the files and revalidates them each time.
    "Cache-Control": "no-cache",
}


def job_json(job: Job) -> dict[str, Any]:
    """A job as its owner sees it."""
    view = job_view(job)
    if job.status is Status.QUEUED:
        view |= _queue_state(job)
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
    """Add ``Idempotent-Replay`` to an answer that an earlier request with the same key determined."""
    if replayed:
        response.headers["Idempotent-Replay"] = "true"
    return response


def final_or_accepted(job: Job, *, waited: bool = True, replayed: bool = False) -> RouteResponse:
    """200 with the job if the client waited and the job has ended, else 202."""
    if waited and job.status.final:
        return mark_replay(job_response(job), replayed)
    return accepted_response(job, replayed=replayed)


def list_response(entries: Sequence[Mapping[str, Any]], next_cursor: str | None = None) -> Response:
    """A list in the form that all lists have. ``next_cursor`` is the ``after`` of the next page."""
    return jsonify({"object": "list", "data": list(entries), "has_more": next_cursor is not None, "next": next_cursor})


def document_json(document: Document) -> dict[str, Any]:
    times = {name: seconds(getattr(document, name)) for name in ("created_at", "updated_at")}
    return {**document.as_json(), **times}


def collection_json(collection: Collection) -> dict[str, Any]:
    documents = services().documents.count_documents(collection.id)
    return {**collection.as_json(), "created_at": seconds(collection.created_at), "documents": documents}


def page_response(content: str | bytes, content_type: str) -> Response:
    """A file of the web page, or 304 if the browser has it already."""
    response = Response(content, content_type=content_type, headers=PAGE_HEADERS)
    # The ETag is made from the bytes: times and sizes of installed files can be the same for two versions.
    response.add_etag()
    response.make_conditional(request)
    return response


def _queue_state(job: Job) -> dict[str, Any]:
    context = services()
    position = context.queries.queue_position(job)
    return {
        "queue_position": position,
        "estimated_wait": context.queries.estimated_wait(job, position) if position else None,
        "not_before": seconds(job.not_before) if job.waiting == "retry_at" else None,
        "waiting_for": _waiting_for(job),
    }


def _waiting_for(job: Job) -> str:
    """What keeps a queued job from running.

    ``retry_backoff``: the time of its next attempt. ``previous_turn``: the previous turn of its chat. ``model_loading``: its
    model is being loaded. ``gpu_busy``: a GPU that another model occupies. ``model_not_loaded``: an operator has to load its
    model. ``fair_share``: another owner has used less and runs first. ``worker``: no worker is there, or all are busy.
    """
    if job.waiting == "retry_at":
        return "retry_backoff"
    if job.waiting == "after":
        return "previous_turn"
    context = services()
    workers = [worker for worker in context.live_workers() if job.queue in worker.queues and worker.phase != "draining"]
    if not workers and job.queue == generation_queue(job.model):
        return _waiting_for_model(job.model)
    if workers and all(worker.phase in ("loading", "warming") for worker in workers):
        return "model_loading"
    return "worker" if not workers or context.queries.has_least_service(job) else "fair_share"


def _waiting_for_model(model: str) -> str:
    """The reason for a model that no live worker has loaded."""
    context = services()
    assignments = context.active_assignments()
    if any(assignment.desired_model == model for assignment in assignments):
        return "model_loading"
    if any(model in assignment.loadable_models for assignment in assignments):
        return "gpu_busy" if context.settings.load_on_demand else "model_not_loaded"
    return "worker"
