"""From what the verbs return to the JSON that clients see. Times are Unix seconds with milliseconds."""

from collections.abc import Mapping, Sequence
from typing import Any

from flask import Response, jsonify

from api.services import services
from shared.jobs.celery_broker import generation_queue
from shared.jobs.models import Job, Status
from shared.jobs.queries import estimated_wait, has_least_service, queue_position
from shared.jobs.serialization import job_view, seconds

Answer = tuple[Response, int] | Response

RETRY_AFTER = "1"


def job_json(job: Job) -> dict[str, Any]:
    """One job as its owner sees it."""
    view = job_view(job)
    if job.status is Status.QUEUED:
        view |= _queued(job)
    return view


def job_answer(job: Job) -> Answer:
    """The job as it stands, with when to look again if it has not ended."""
    response = jsonify(job_json(job))
    if not job.status.final:
        response.headers["Retry-After"] = RETRY_AFTER
    return response


def accepted(job: Job) -> Answer:
    """202: the job was taken; where and when to look."""
    response = jsonify(job_json(job))
    response.headers["Retry-After"] = RETRY_AFTER
    response.headers["Location"] = f"/jobs/{job.id}"
    return response, 202


def list_json(data: Sequence[Mapping[str, Any]], following: str | None) -> Response:
    """Every list has this form; ``next`` is what ``after`` must be to go on."""
    return jsonify({"object": "list", "data": list(data), "has_more": following is not None, "next": following})


def _queued(job: Job) -> dict[str, Any]:
    """Where a queued job stands and what it waits for."""
    here = services()
    position = queue_position(here.redis, job)
    return {
        "queue_position": position,
        "estimated_wait": estimated_wait(here.redis, job, position) if position else None,
        "not_before": seconds(job.not_before) if job.waiting == "retry_at" else None,
        "waiting_for": _waiting_for(job),
    }


def _waiting_for(job: Job) -> str:
    """In words: ``retry_backoff`` (a time), ``previous_turn`` (of its session), ``model_loading``, ``gpu_busy`` (one that another model
    can give up), ``model_not_loaded`` (and nobody will load it unless told), ``worker`` (none is there, or all are busy),
    ``fair_share`` (another owner has had less)."""
    if job.waiting == "retry_at":
        return "retry_backoff"
    if job.waiting == "after":
        return "previous_turn"
    here = services()
    alive = here.worker_registry.alive(3 * here.settings.renew_seconds)
    serving = [worker for worker in alive if job.queue in worker.queues and worker.phase != "draining"]
    if not serving and job.queue == generation_queue(job.model):
        return _waiting_for_model(job.model)
    if serving and all(worker.phase in ("loading", "warming") for worker in serving):
        return "model_loading"
    return "worker" if not serving or has_least_service(here.redis, job) else "fair_share"


def _waiting_for_model(model: str) -> str:
    """Of a model that no living worker holds."""
    here = services()
    assignments = here.active_assignments()
    if any(assignment.desired_model == model for assignment in assignments):
        return "model_loading"
    if any(model in assignment.loadable_models for assignment in assignments):
        return "gpu_busy" if here.settings.load_on_demand else "model_not_loaded"
    return "worker"
