"""``/admin``: the list of the dead, for those whose key may administer."""

from flask import Blueprint, Response, jsonify

from api.auth import require_admin
from api.request_parsing import query_integer
from api.responses import Answer, accepted, job_json, list_json
from api.services import services
from api.submission import job_of
from shared.errors import NotFound
from shared.jobs.models import Job

blueprint = Blueprint("admin", __name__, url_prefix="/admin")
blueprint.before_request(require_admin)


@blueprint.get("/dead-letters")
def index() -> Response:
    """Jobs whose workers died again and again, the latest first."""
    dead = services().lifecycle.dead_letters(query_integer("limit", 100, 1, 1000))
    return list_json([{**job_json(job), "owner": job.owner} for job in dead], None)


@blueprint.post("/dead-letters/<job>/replay")
def replay(job: str) -> Answer:
    """Do a dead job again as a new one."""
    return accepted(job_of(services().lifecycle.replay(_dead(job))))


@blueprint.delete("/dead-letters/<job>")
def drop(job: str) -> Response:
    """Take a job off the list; its record stays until its retention is over."""
    found = _dead(job)
    services().lifecycle.remove_dead_letter(found.id)
    return jsonify({"id": found.id, "object": "job", "removed": True})


def _dead(job: str) -> Job:
    for dead in services().lifecycle.dead_letters(1000):
        if dead.id == job:
            return dead
    raise NotFound(f"job {job[:80]!r} is not on the list of the dead", code="job_not_found")
