"""``/admin/dead-letters``: list, replay and remove dead letters."""

from flask import Blueprint, jsonify

from api.openapi.operation import JOB, JOB_HEADERS, Operation, Reply, describe, in_query
from api.operations_state import list_dead_letters_json
from api.request_parsing import query_integer
from api.responses import RouteResponse, accepted_response, list_response
from api.schemas import responses
from api.services import services
from api.submission import require_disk_space, written_job
from shared.errors import NotFound
from shared.jobs.models import Job

blueprint = Blueprint("dead_letters", __name__, url_prefix="/admin/dead-letters")

TAG = "Dead letters"
ADMIN_ONLY = "Needs the scope `admin`."
MAX_LISTED = 1000
LIMIT = in_query(
    "limit", {"type": "integer", "minimum": 1, "maximum": MAX_LISTED, "default": 100}, "Maximum number of entries.", 10
)


@blueprint.get("")
@describe(
    Operation(
        tag=TAG,
        summary="List dead letters, newest first",
        description=ADMIN_ONLY,
        parameters=(LIMIT,),
        replies={200: Reply(description="All dead letters on one page.", model=responses.DeadLetterList)},
    )
)
def list_dead_letters() -> RouteResponse:
    return list_response(list_dead_letters_json(query_integer("limit", 100, 1, MAX_LISTED)))


@blueprint.post("/<job>/replay")
@describe(
    Operation(
        tag=TAG,
        summary="Run a dead letter again as a new job",
        description=ADMIN_ONLY,
        parameters=(JOB,),
        replies={202: Reply(description="The new job.", model=responses.Job, headers=JOB_HEADERS)},
        refusals=(429,),
    )
)
def replay_dead_letter(job: str) -> RouteResponse:
    require_disk_space()
    return accepted_response(written_job(services().submitter.replay(_find_dead_letter(job))))


@blueprint.delete("/<job>")
@describe(
    Operation(
        tag=TAG,
        summary="Remove a dead letter from the list",
        description=ADMIN_ONLY,
        parameters=(JOB,),
        replies={
            200: Reply(
                description="It is removed; the job itself is kept until its retention period is over.",
                model=responses.DeadLetterRemoval,
            )
        },
    )
)
def remove_dead_letter(job: str) -> RouteResponse:
    found = _find_dead_letter(job)
    services().transitions.remove_dead_letter(found.id)
    return jsonify({"id": found.id, "object": "job", "removed": True})


def _find_dead_letter(job_id: str) -> Job:
    job = services().queries.get_dead_letter(job_id)
    if job is None:
        raise NotFound(f"Job {job_id[:80]!r} is not a dead letter.", code="job_not_found")
    return job
