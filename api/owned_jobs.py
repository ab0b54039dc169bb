"""Jobs that the key of the current request may see."""

from api.caller import caller
from api.services import owner, services
from shared.ids import JOB, is_id
from shared.jobs.job_actions import job_not_found
from shared.jobs.job_rights import JobRights, job_rights_of
from shared.jobs.models import Job


def find_owned_job(job_id: str, timeout: float = 0) -> Job:
    """The owner's job, once it has ended or after ``timeout`` seconds. Raises NotFound, also for another owner's job,
    and Forbidden for one that the key may not see."""
    context = services()
    # A malformed id could be the key of something else. Never wait for another owner's job.
    job = context.queries.get_job(job_id) if is_id(JOB, job_id) else None
    if job is None or job.owner != owner():
        raise job_not_found(job_id)
    require_job(job)
    if timeout <= 0 or job.status.final:
        return job
    return context.job_waiter.wait_until_final(job_id, timeout) or job


def job_rights() -> JobRights | None:
    """A filter for the owner's jobs that the caller's key may see; None if it may see all."""
    return job_rights_of(caller().rights, owner(), services().documents)


def require_job(job: Job) -> None:
    """Raise Forbidden unless the caller's key may see and change a job of its owner."""
    rights = job_rights()
    if rights is not None:
        rights.require(job, services().queries.read_spec)
