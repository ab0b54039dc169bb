"""``/jobs``: list, show, cancel, retry and delete jobs."""

from typing import get_args

from flask import Blueprint, jsonify, request

from api.openapi.operation import (
    AFTER,
    JOB,
    JOB_HEADERS,
    LIMIT,
    PREFER,
    WAIT,
    Operation,
    Reply,
    describe,
    in_query,
)
from api.request_parsing import (
    check_password,
    parse_optional_body,
    query_choice,
    query_cursor,
    query_integer,
    requested_timeout,
)
from api.responses import RouteResponse, accepted_response, final_or_accepted, job_response, list_response, listed_job_json
from api.schemas import responses
from api.schemas.requests.jobs import RetryRequest
from api.services import find_owned_job, job_not_found, owner, services
from api.submission import require_disk_space, written_job
from shared.errors import Conflict, InvalidValue
from shared.ids import JOB as JOB_PREFIX
from shared.jobs.models import Job, Status
from shared.openai.batches import REQUEST_BATCH

blueprint = Blueprint("jobs", __name__)

TAG = "Jobs"
STATUSES = tuple(status.value for status in Status)
KINDS = get_args(responses.JobKind)

COMPLETED_JOB = {
    "id": "job_01m84stetzyr7esggznw5rdjds",
    "object": "job",
    "kind": "generate",
    "status": "completed",
    "phase": "completed",
    "phase_at": 1795457629.063,
    "model": "gemma-3-270m",
    "priority": 5,
    "end_user": None,
    "created_at": 1795457629.024,
    "started_at": 1795457629.056,
    "ended_at": 1795457629.063,
    "expires_at": 1795544029.024,
    "cancel_requested_at": None,
    "progress": None,
    "attempts": [
        {
            "number": 1,
            "worker": "gpu0@vm/15283",
            "queue": "gpu.gemma-3-270m",
            "started_at": 1795457629.056,
            "ended_at": 1795457629.063,
            "outcome": "completed",
            "error": None,
        }
    ],
    "metadata": {"order": "17"},
    "result": {
        "text": "Paris.",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 16, "completion_tokens": 3, "total_tokens": 19},
    },
    "error": None,
    "heartbeat_at": 1795457629.061,
    "batch": None,
    "retry_of": None,
    "summary": "What is the capital of France?",
    "timings": {"queued": 0.032, "first_token": 0.039, "total": 0.039},
    "urls": {
        "self": "/jobs/job_01m84stetzyr7esggznw5rdjds",
        "events": "/jobs/job_01m84stetzyr7esggznw5rdjds/events",
        "cancel": "/jobs/job_01m84stetzyr7esggznw5rdjds/cancel",
    },
    "response": "Paris.",
    "context_used": False,
}


@blueprint.get("/jobs")
@describe(
    Operation(
        tag=TAG,
        summary="List jobs, newest first, without their results",
        parameters=(
            LIMIT,
            AFTER,
            in_query("status", {"enum": list(STATUSES)}, "Only jobs with this status.", "completed"),
            in_query("kind", {"enum": list(KINDS)}, "Only jobs of this kind.", "generate"),
            in_query("model", {"type": "string"}, "Only jobs of this model."),
            in_query("batch", {"type": "string"}, "Only jobs of this batch."),
        ),
        replies={200: Reply(description="One page.", model=responses.JobList)},
    )
)
def list_jobs() -> RouteResponse:
    limit = query_integer("limit", 20, 1, 100)
    after = query_cursor(JOB_PREFIX, "job")
    filters = {
        "kind": query_choice("kind", KINDS),
        "model": request.args.get("model"),
        "status": query_choice("status", STATUSES),
    }
    filters["parent"] = request.args.get("batch")

    def matches(job: Job) -> bool:
        return all(value is None or getattr(job, name) == value for name, value in filters.items())

    jobs, next_cursor = services().queries.list_jobs(owner(), limit=limit, after=after, matches=matches)
    return list_response([listed_job_json(job) for job in jobs], next_cursor)


@blueprint.get("/jobs/<job>")
@describe(
    Operation(
        tag=TAG,
        summary="Get a job",
        description="With a wait, the call returns when the job has ended, or when the wait is over.",
        parameters=(JOB, WAIT, PREFER),
        replies={
            200: Reply(
                description="The job, with `Retry-After` if it has not ended.",
                model=responses.Job,
                headers=("Retry-After",),
                example=COMPLETED_JOB,
            )
        },
    )
)
def show_job(job: str) -> RouteResponse:
    return job_response(find_owned_job(job, requested_timeout(0)))


@blueprint.post("/jobs/<job>/cancel")
@describe(
    Operation(
        tag=TAG,
        summary="Cancel a job",
        parameters=(JOB,),
        replies={
            200: Reply(description="The job was queued and will not run.", model=responses.Job),
            202: Reply(description="The job is running and will stop.", model=responses.Job, headers=JOB_HEADERS),
        },
        refusals=(409,),
    )
)
def cancel_job(job: str) -> RouteResponse:
    find_owned_job(job)
    outcome, status = services().transitions.cancel(job, owner())
    if outcome == "missing":
        raise job_not_found(job)
    if outcome == "ended":
        raise Conflict(f"Job {job} has already ended: it is {status}.", code="job_ended", details={"status": status})
    return final_or_accepted(find_owned_job(job))


@blueprint.post("/jobs/<job>/retry")
@describe(
    Operation(
        tag=TAG,
        summary="Run an ended job again as a new job",
        description="For a document that ended as `encrypted`, the body may contain its password.",
        parameters=(JOB,),
        request_model=RetryRequest,
        body_required=False,
        replies={202: Reply(description="The new job; `retry_of` names the old one.", model=responses.Job, headers=JOB_HEADERS)},
        refusals=(409, 429),
    )
)
def retry_job(job: str) -> RouteResponse:
    require_disk_space()
    previous = find_owned_job(job)
    if not previous.status.final:
        raise Conflict(f"Job {job} is {previous.status}. Retry it once it has ended.", code="job_not_ended")
    if previous.kind == "batch":
        raise Conflict(f"Job {job} is a batch. Retry the jobs in it that failed.", code="batch_not_retried")
    if previous.kind == REQUEST_BATCH:
        raise Conflict(
            f"Job {job} is a batch of requests. Create a new one with POST /v1/batches, with the requests that failed.",
            code="batch_not_retried",
        )
    password = parse_optional_body(RetryRequest).password
    if password is not None:
        _keep_password(previous, check_password(password.get_secret_value()))
    return accepted_response(written_job(services().submitter.replay(previous)))


@blueprint.delete("/jobs/<job>")
@describe(
    Operation(
        tag=TAG,
        summary="Delete an ended job, its result and its events",
        parameters=(JOB,),
        replies={200: Reply(description="The job is deleted.", model=responses.Deletion)},
        refusals=(409,),
    )
)
def delete_job(job: str) -> RouteResponse:
    find_owned_job(job)
    outcome = services().transitions.delete(job, owner())
    if outcome == "missing":
        raise job_not_found(job)
    if outcome != "deleted":
        raise Conflict(
            f"Job {job} is {outcome}. Cancel it before you delete it.", code="job_not_ended", details={"status": outcome}
        )
    return jsonify({"id": job, "object": "job", "deleted": True})


def _keep_password(job: Job, password: str) -> None:
    if not job.document:
        raise InvalidValue(f"password: job {job.id} has no document that could be encrypted", param="password")
    context = services()
    document = context.documents.get(owner(), job.document)
    context.documents.passwords(context.files, context.settings.max_queue_seconds).keep(document.id, password)
