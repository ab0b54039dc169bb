"""Errors of requests of ``/v1`` whose jobs did not complete."""

from typing import Any

from shared.errors import Conflict, EnginehouseError, InvalidRequest, InvalidValue, Unavailable
from shared.jobs.models import Job, Status

# Clients recognize this code, shorten the conversation, and send it again.
CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"


class AnswerFailed(EnginehouseError):
    """The job of an answer failed. The server has already retried it, so the client should not."""

    status = 500
    code = "answer_failed"
    should_retry = False


class AnswerCancelled(Conflict):
    """The job of an answer was cancelled by another call."""

    code = "answer_cancelled"
    should_retry = False


class AnswerTimeout(EnginehouseError):
    """The job of an answer took longer than the settings allow. It is cancelled."""

    status = 504
    code = "answer_timeout"
    should_retry = False


def error_of_job(job: Job) -> EnginehouseError:
    """The error response for a job that did not complete."""
    details: dict[str, object] = {"job": job.id}
    if job.status is Status.CANCELLED:
        return AnswerCancelled(f"Job {job.id} was cancelled.", details=details)
    if job.status is Status.EXPIRED:
        return AnswerTimeout(f"Job {job.id} expired, because no worker started it in time.", details=details)
    error: dict[str, Any] = dict(job.error or {"code": "answer_failed", "message": f"Job {job.id} ended as {job.status.value}."})
    message, code, param = str(error["message"]), str(error["code"]), error.get("param")
    if code == "prompt_too_long":
        param = "prompt" if error.get("param") is None else param
        return InvalidValue(message, code=CONTEXT_LENGTH_EXCEEDED, param=param, details=details)
    if error.get("type") == InvalidRequest.type:
        return InvalidValue(message, code=code, param=param, details=details)
    if error.get("type") == Unavailable.type:
        return Unavailable(message, code=code, param=param, retry_after=5, details=details)
    return AnswerFailed(message, code=code, param=param, details=details)
