"""Actions on single jobs: cancel, retry, delete. A refusal is an error that says why."""

from shared.errors import Conflict, NotFound
from shared.jobs.models import Job, Status
from shared.jobs.submission import JobSubmitter, SubmissionResult
from shared.jobs.transitions import JobTransitions


class JobActions:
    """Cancels, retries and deletes jobs. Safe to use from many threads."""

    def __init__(self, transitions: JobTransitions, submitter: JobSubmitter) -> None:
        self._transitions = transitions
        self._submitter = submitter

    def cancel(self, job: str, owner: str) -> None:
        """Request that a job stops. Raises NotFound, and Conflict if it has ended."""
        outcome, status = self._transitions.cancel(job, owner)
        if outcome == "missing":
            raise job_not_found(job)
        if outcome == "ended":
            raise Conflict(f"Job {job} has already ended: it is {status}.", code="job_ended", details={"status": status})

    def retry(self, job: Job) -> SubmissionResult:
        """Run an ended job again as a new job. Raises Conflict, and what a submission raises."""
        check_retry(job)
        return self._submitter.replay(job)

    def retry_unfinished(self, job: Job) -> SubmissionResult:
        """Run a job again that ended without completing. Raises Conflict also if that was done before, so it may be repeated."""
        if job.retried_as:
            raise Conflict(f"Job {job.id} runs again already, as {job.retried_as}.", code="already_retried")
        if job.status is Status.COMPLETED:
            raise Conflict(f"Job {job.id} is completed.", code="job_completed")
        return self.retry(job)

    def delete(self, job: str, owner: str) -> None:
        """Delete an ended job. Raises NotFound, and Conflict if it has not ended."""
        outcome = self._transitions.delete(job, owner)
        if outcome == "missing":
            raise job_not_found(job)
        if outcome != "deleted":
            raise Conflict(
                f"Job {job} is {outcome}. Cancel it before you delete it.", code="job_not_ended", details={"status": outcome}
            )


def check_retry(job: Job) -> None:
    """Raise Conflict for a job that cannot run again."""
    if not job.status.final:
        raise Conflict(f"Job {job.id} is {job.status}. Retry it once it has ended.", code="job_not_ended")
    if job.kind == "batch":
        raise Conflict(f"Job {job.id} is a batch. Retry the jobs in it that failed.", code="batch_not_retried")
    if job.kind == "request_batch":
        raise Conflict(
            f"Job {job.id} is a batch of requests. Create a new one with POST /v1/batches, with the requests that failed.",
            code="batch_not_retried",
        )


def job_not_found(job: str) -> NotFound:
    """The error for a job that does not exist or belongs to another owner."""
    return NotFound(
        f"Job {job[:80]!r} does not exist. Ended jobs are deleted when their retention period is over.", code="job_not_found"
    )
