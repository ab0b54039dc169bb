"""``/jobs``: list, show, cancel, retry and delete jobs."""

from dataclasses import asdict
from typing import cast

from flask import Blueprint, jsonify

from api.audit import add_audit_details, add_audit_targets
from api.job_filters import FILTER_PARAMETERS, METADATA_NOTE, filter_of_query, filter_of_selection
from api.job_request import job_request
from api.openapi.operation import (
    AFTER,
    JOB,
    JOB_HEADERS,
    LIMIT,
    NOT_MODIFIED,
    PREFER,
    WAIT,
    Example,
    Operation,
    Reply,
    describe,
    in_query,
)
from api.owned_jobs import find_owned_job, job_rights, require_job
from api.request_parsing import (
    check_password,
    parse_body,
    parse_optional_body,
    query_choice,
    query_cursor,
    query_integer,
    requested_timeout,
)
from api.responses import (
    RouteResponse,
    accepted_response,
    final_or_accepted,
    job_response,
    list_response,
    listed_job_json,
    unless_known,
)
from api.schemas import responses
from api.schemas.requests.jobs import MAX_ACTION_JOBS, JobsAction, JobSelection, RetryRequest
from api.services import owner, services
from api.submission import require_disk_space, written_job
from shared.errors import InvalidValue
from shared.ids import JOB as JOB_PREFIX
from shared.jobs.job_actions import check_retry
from shared.jobs.job_log import read_job_log
from shared.jobs.models import Job
from shared.jobs.serialization import seconds, summary_view
from shared.work_context import trace_id_of

blueprint = Blueprint("jobs", __name__)

TAG = "Jobs"
VIEWS = ("full", "summary")

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
        description=f"{METADATA_NOTE} The response has an `ETag`; sent as `If-None-Match`, the answer is 304 while it is the same.",
        parameters=(
            LIMIT,
            AFTER,
            *FILTER_PARAMETERS,
            in_query("view", {"enum": list(VIEWS)}, "`summary`: only the fields that a table of jobs shows.", "full"),
        ),
        replies={200: Reply(description="One page.", model=responses.JobList), 304: NOT_MODIFIED},
    )
)
def list_jobs() -> RouteResponse:
    limit, after = query_integer("limit", 20, 1, 100), query_cursor(JOB_PREFIX, "job")
    render = summary_view if query_choice("view", VIEWS) == "summary" else listed_job_json
    jobs, next_cursor = services().queries.find_jobs(filter_of_query(owner(), job_rights()), limit=limit, after=after)
    return unless_known(list_response([render(job) for job in jobs], next_cursor))


@blueprint.get("/jobs/counts")
@describe(
    Operation(
        tag=TAG,
        summary="Count jobs by status, kind and model",
        description=f"The filters are those of `GET /jobs`. {METADATA_NOTE}",
        parameters=FILTER_PARAMETERS,
        replies={200: Reply(description="The numbers.", model=responses.JobCounts), 304: NOT_MODIFIED},
    )
)
def count_jobs() -> RouteResponse:
    counts = services().queries.count_jobs(filter_of_query(owner(), job_rights()))
    numbers = {name: dict(sorted(getattr(counts, name).items())) for name in ("status", "kind", "model")}
    return unless_known(jsonify({"object": "job_counts", **numbers, "total": counts.total, "complete": counts.complete}))


@blueprint.post("/jobs/actions")
@describe(
    Operation(
        tag=TAG,
        summary="Cancel, retry or delete many jobs",
        description=f"Up to {MAX_ACTION_JOBS} jobs a call, by their ids or by a filter, then the newest first. While `next` is not null, "
        "more may match: repeat the call with it as `after`. Completed jobs, and jobs that were retried before, are not retried.",
        request_model=JobsAction,
        examples={
            "ids": Example(summary="Some jobs", body={"action": "delete", "ids": ["job_01m84stetzyr7esggznw5rdjds"]}),
            "filter": Example(
                summary="All failed jobs of a collection",
                body={"action": "retry", "filter": {"status": "failed", "kind": "ingest", "since": 1795457629}},
            ),
        },
        replies={200: Reply(description="What became of them.", model=responses.JobsActionResult)},
        refusals=(404,),
    )
)
def change_jobs() -> RouteResponse:
    body = parse_body(JobsAction)
    if body.action == "retry":
        require_disk_space()
    administration = services().administration
    if body.ids is not None:
        outcome = administration.change_jobs(body.action, body.ids, owner(), require_job)
    else:
        wanted = filter_of_selection(cast(JobSelection, body.filter), owner(), job_rights())
        outcome = administration.change_matching(body.action, wanted, limit=body.limit, after=body.after)
    add_audit_details(verb=body.action, matched=outcome.matched, changed=outcome.done)
    add_audit_targets(*body.ids or ())
    failed = [{"id": one.job, "code": one.error.code, "message": one.error.message} for one in outcome.refusals]
    result = {"matched": outcome.matched, "done": outcome.done, "failed": failed, "next": outcome.next}
    return jsonify({"object": "job_action", "action": body.action, **result})


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


@blueprint.get("/jobs/<job>/request")
@describe(
    Operation(
        tag=TAG,
        summary="Show what a job was asked to do",
        description="Its messages or prompt, sampling, collection and retrieval, or the document of an ingest.",
        parameters=(JOB,),
        replies={
            200: Reply(
                description="The request; null if the prompt was deleted, and for a batch of jobs.", model=responses.JobRequest
            )
        },
    )
)
def show_job_request(job: str) -> RouteResponse:
    return jsonify({"request": job_request(find_owned_job(job))})


@blueprint.get("/jobs/<job>/log")
@describe(
    Operation(
        tag=TAG,
        summary="Show what happened to a job and when",
        description="Its attempts, phases, retries and webhook deliveries, and what workers logged for it. It contains no prompts or answers.",
        parameters=(JOB,),
        replies={200: Reply(description="The log.", model=responses.JobLog)},
    )
)
def show_job_log(job: str) -> RouteResponse:
    context, found = services(), find_owned_job(job)
    lines = [
        {**asdict(line), "at": seconds(line.at), "worker": line.worker or None}
        for line in read_job_log(context.redis, context.deliveries, found)
    ]
    origin = {"request_id": found.request_id or None, "trace_id": trace_id_of(found.traceparent) or None}
    return jsonify({"object": "job_log", "job": found.id, **origin, "lines": lines})


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
    services().job_actions.cancel(job, owner())
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
    password = parse_optional_body(RetryRequest).password
    if password is not None:
        check_retry(previous)
        _keep_password(previous, check_password(password.get_secret_value()))
    return accepted_response(written_job(services().job_actions.retry(previous)))


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
    services().job_actions.delete(job, owner())
    return jsonify({"id": job, "object": "job", "deleted": True})


def _keep_password(job: Job, password: str) -> None:
    if not job.document:
        raise InvalidValue(f"password: job {job.id} has no document that could be encrypted", param="password")
    context = services()
    document = context.documents.get(owner(), job.document)
    context.documents.passwords(context.files, context.settings.max_queue_seconds).keep(document.id, password)
