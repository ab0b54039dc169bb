"""Job submission for a request, with an optional wait for the job to end."""

from typing import NamedTuple

from api.services import services
from shared.errors import Conflict, EmbeddingModelMismatch, EnginehouseError, NotFound, Unavailable
from shared.jobs.models import Job
from shared.jobs.submission import Submission, SubmissionResult

# Wait for searches and deletions if the client does not say how long it waits.
SHORT_JOB_SECONDS = 30


# Jobs that hardly write, and may make space.
ALWAYS_ACCEPTED = ("delete", "search", "tokenize", "embed", "rerank")


class SubmittedJob(NamedTuple):
    """A job, and whether an earlier request with the same Idempotency-Key created it."""

    job: Job
    replayed: bool


def submit_job(submission: Submission, timeout: float = 0) -> SubmittedJob:
    """Submit a job and return it once it has ended, or its state after ``timeout`` seconds.

    Raises what ``JobSubmitter.submit_job`` raises, and, with nothing submitted, Unavailable if too many clients are waiting, and
    DiskFull if the disk is nearly full.
    """
    context = services()
    if submission.kind not in ALWAYS_ACCEPTED:
        require_disk_space()
    if timeout <= 0:
        submitted = context.submitter.submit_job(submission)
        return SubmittedJob(written_job(submitted), submitted.replayed)
    # Listen before submitting: the job may end before this thread runs again.
    with context.job_waiter.expect_completion(submission.id) as completed:
        submitted = context.submitter.submit_job(submission)
        if not submitted.replayed:
            completed.wait(timeout)
    if submitted.replayed:
        context.job_waiter.wait_until_final(submitted.id, timeout)
    return SubmittedJob(written_job(submitted), submitted.replayed)


def require_disk_space(size: int = 0) -> None:
    """Raise DiskFull if the disk of the data folder has less free space than the reserve, or would have after ``size`` bytes more.

    Call this before anything is stored.
    """
    services().disk_space.require(size)


def written_job(submitted: SubmissionResult) -> Job:
    """The job that was just submitted. Raises NotFound if it has ended and was deleted since."""
    job = services().queries.get_job(submitted.id)
    if job is None:
        raise NotFound(
            f"Job {submitted.id} was accepted and no longer exists. It was deleted while this request was under way, "
            "or Redis evicts keys.",
            code="job_not_found",
        )
    return job


def short_job_error(job: Job) -> EnginehouseError:
    """The error response for a search or deletion that the client waited for and that did not complete."""
    error = job.error or {"code": job.status.value, "message": f"Job {job.id} of kind {job.kind} ended {job.status.value}."}
    message, code = str(error["message"]), str(error["code"])
    if code == NotFound.code:
        return NotFound(message, param=error.get("param"), details={"job": job.id})
    if code == EmbeddingModelMismatch.code:
        return Conflict(message, code=code, details={"job": job.id})
    return Unavailable(message, code=code, retry_after=5, details={"job": job.id})
