"""``/admin/jobs``: list the jobs of all owners, and cancel, retry or delete those that match a filter."""

from dataclasses import replace
from typing import Any

from flask import Blueprint, jsonify

from api.audit import add_audit_details
from api.job_filters import FILTER_PARAMETERS, METADATA_NOTE, filter_of_query
from api.openapi.operation import AFTER, LIMIT, Example, Operation, Reply, describe, in_query
from api.request_parsing import parse_body, query_cursor, query_integer, query_text
from api.responses import RouteResponse, list_response
from api.schemas import responses
from api.schemas.requests.administration import FilterOfJobs, JobAction
from api.services import services
from api.submission import require_disk_space
from shared.errors import InvalidValue
from shared.ids import JOB as JOB_PREFIX
from shared.jobs.administration import MAX_SCANNED, Action
from shared.jobs.job_filter import JobFilter
from shared.jobs.models import Job
from shared.jobs.serialization import job_view

blueprint = Blueprint("admin_jobs", __name__, url_prefix="/admin/jobs")

TAG = "Administration"
ADMIN_ONLY = "Needs the scope `admin`."
MAX_AGE_SECONDS = 10**9
AGE = {"type": "integer", "minimum": 0, "maximum": MAX_AGE_SECONDS}
ACTION = (
    "The newest matching jobs are changed, up to `limit`. While `next` is not null, more may follow: repeat the call with it as `after`. "
    f"With `dry_run` they are only counted. {ADMIN_ONLY}"
)
EXAMPLES = {"count": Example(summary="Count first", body={"filter": {"owner": "ada", "status": "queued"}, "dry_run": True})}


@blueprint.get("")
@describe(
    Operation(
        tag=TAG,
        summary="List the jobs of all owners, newest first, without their results",
        description=f"{METADATA_NOTE} With `collection`, name the owner too. {ADMIN_ONLY}",
        parameters=(
            LIMIT,
            AFTER,
            in_query("owner", {"type": "string"}, "Only jobs of this owner.", "local"),
            in_query("queue", {"type": "string"}, "Only jobs of this queue.", "cpu"),
            *FILTER_PARAMETERS,
            in_query("older_than", AGE, "Only jobs that were submitted more than this many seconds ago.", 0),
            in_query("newer_than", AGE, "Only jobs that were submitted less than this many seconds ago.", 3600),
        ),
        replies={200: Reply(description="One page.", model=responses.AdminJobList)},
    )
)
def list_all_jobs() -> RouteResponse:
    wanted = replace(
        filter_of_query(query_text("owner")),
        queue=query_text("queue"),
        older_than=_age("older_than"),
        newer_than=_age("newer_than"),
    )
    limit, after = query_integer("limit", 20, 1, 100), query_cursor(JOB_PREFIX, "job")
    jobs, next_cursor = services().queries.find_jobs(wanted, limit=limit, after=after, max_scanned=MAX_SCANNED)
    return list_response([_job_json(job) for job in jobs], next_cursor)


@blueprint.post("/cancel")
@describe(
    Operation(
        tag=TAG,
        summary="Cancel the jobs that match a filter",
        description=ACTION,
        request_model=JobAction,
        examples=EXAMPLES,
        replies={200: Reply(description="How many were cancelled, or will stop.", model=responses.JobActionResult)},
    )
)
def cancel_jobs() -> RouteResponse:
    return _act("cancel")


@blueprint.post("/retry")
@describe(
    Operation(
        tag=TAG,
        summary="Run the ended jobs that match a filter, and did not complete, again as new jobs",
        description=ACTION,
        request_model=JobAction,
        examples=EXAMPLES,
        replies={200: Reply(description="How many run again.", model=responses.JobActionResult)},
    )
)
def retry_jobs() -> RouteResponse:
    return _act("retry")


@blueprint.post("/delete")
@describe(
    Operation(
        tag=TAG,
        summary="Delete the ended jobs that match a filter",
        description=ACTION,
        request_model=JobAction,
        examples=EXAMPLES,
        replies={200: Reply(description="How many were deleted.", model=responses.JobActionResult)},
    )
)
def delete_jobs() -> RouteResponse:
    return _act("delete")


def _act(action: Action) -> RouteResponse:
    body = parse_body(JobAction)
    wanted = _filter_of(body.filter)
    if wanted == JobFilter():
        raise InvalidValue("filter: name at least one field; a filter that matches every job is refused", param="filter")
    administration = services().administration
    if body.dry_run:
        outcome = administration.count_jobs(wanted, after=body.after)
    else:
        if action == "retry":
            require_disk_space()
        outcome = administration.change_matching(action, wanted, limit=body.limit, after=body.after)
    add_audit_details(for_owner=body.filter.owner, dry_run=body.dry_run, matched=outcome.matched, changed=outcome.done)
    return jsonify(
        {
            "object": "job_action",
            "action": action,
            "dry_run": body.dry_run,
            "matched": outcome.matched,
            "done": outcome.done,
            "refused": dict(outcome.count_refusals()),
            "next": outcome.next,
        }
    )


def _age(name: str) -> int | None:
    age = query_integer(name, -1, 0, MAX_AGE_SECONDS)
    return None if age < 0 else age


def _filter_of(wanted: FilterOfJobs) -> JobFilter:
    status = wanted.status
    statuses = (status,) if isinstance(status, str) else tuple(status or ())
    return JobFilter(statuses=statuses, **wanted.model_dump(exclude={"status"}))


def _job_json(job: Job) -> dict[str, Any]:
    view = job_view(job)
    del view["result"]
    return {**view, "owner": job.owner, "queue": job.queue or None}
