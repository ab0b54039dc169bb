"""``/jobs``: look at jobs, wait for them, cancel and delete them."""

from flask import Blueprint, Response, jsonify, request

from api.request_parsing import body, check_password, query_integer, wait_seconds
from api.responses import Answer, accepted, job_answer, job_json, list_json
from api.schemas.requests import Retry
from api.services import owner, services
from api.submission import job_of
from shared.errors import Conflict, InvalidValue, NotFound
from shared.ids import JOB, is_id
from shared.jobs.models import Job, Status
from shared.jobs.queries import page

blueprint = Blueprint("jobs", __name__)


@blueprint.get("/jobs/<job>")
def show(job: str) -> Answer:
    """One job; ``?wait=N`` answers when it has ended, at the latest after N seconds."""
    return job_answer(owned_job(job, wait_seconds() or 0))


@blueprint.get("/jobs")
def index() -> Response:
    """The owner's jobs, newest first, filtered by ``status``, ``kind``, ``model`` and ``batch``; pages go on with ``after``."""
    limit = query_integer("limit", 20, 1, 100)
    after = request.args.get("after")
    if after is not None and not is_id(JOB, after):
        raise InvalidValue(f"after: must be the id of a job, not {after[:80]!r}", param="after")
    status = request.args.get("status")
    if status is not None and status not in [known.value for known in Status]:
        raise InvalidValue(f"status: must be one of {', '.join(Status)}, not {status[:80]!r}", param="status")
    filters = {"kind": request.args.get("kind"), "model": request.args.get("model"), "status": status}
    filters["parent"] = request.args.get("batch")

    def wanted(job: Job) -> bool:
        return all(value is None or getattr(job, name) == value for name, value in filters.items())

    jobs, following = page(services().redis, owner(), limit=limit, after=after, wanted=wanted)
    return list_json([job_json(job) for job in jobs], following)


@blueprint.post("/jobs/<job>/cancel")
def cancel(job: str) -> Answer:
    """Wish a job away: 200 when it was queued and is gone, 202 when it runs and will stop."""
    owned_job(job)
    answer, status = services().lifecycle.cancel(job, owner())
    if answer == "missing":
        raise _no_job(job)
    if answer == "ended":
        raise Conflict(f"job {job} has ended already: it is {status}", code="job_ended", details={"status": status})
    found = owned_job(job)
    return job_answer(found) if found.status.final else accepted(found)


@blueprint.post("/jobs/<job>/retry")
def retry(job: str) -> Answer:
    """Do an ended job again, as a new job that names this one in ``retry_of``; that of an encrypted document with a password."""
    found = owned_job(job)
    if not found.status.final:
        raise Conflict(f"job {job} is {found.status}; it can be retried once it has ended", code="job_not_ended")
    if found.kind == "batch":
        raise Conflict(f"job {job} is a batch; retry those of its jobs that failed", code="batch_not_retried")
    wanted = body(Retry) if request.content_length else Retry()
    if wanted.password is not None:
        if not found.document:
            raise InvalidValue(f"password: job {job} is about no document that could be encrypted", param="password")
        here = services()
        document = here.documents.get(owner(), found.document)
        passwords = here.documents.passwords(here.files, here.settings.max_queue_seconds)
        passwords.keep(document.id, check_password(wanted.password.get_secret_value()))
    return accepted(job_of(services().lifecycle.replay(found)))


@blueprint.delete("/jobs/<job>")
def delete(job: str) -> Response:
    """Forget an ended job, its result and its events."""
    answer = services().lifecycle.delete(job, owner())
    if answer == "missing":
        raise _no_job(job)
    if answer != "deleted":
        raise Conflict(f"job {job} is {answer}; cancel it before you delete it", code="job_not_ended", details={"status": answer})
    return jsonify({"id": job, "object": "job", "deleted": True})


def owned_job(job: str, wait: float = 0) -> Job:
    """The owner's job of this id, once it has ended or after ``wait`` seconds. Raises NotFound."""
    found = services().waiting.until_ended(job, wait) if is_id(JOB, job) else None
    if found is None or found.owner != owner():
        raise _no_job(job)
    return found


def _no_job(job: str) -> NotFound:
    return NotFound(f"there is no job {job[:80]!r}; ended jobs are kept for a time only", code="job_not_found")
