"""Submitting jobs for a request: its Idempotency-Key, its wait, and the answer."""

import hashlib
import json
from typing import Any, NamedTuple

from flask import g, request

from api.responses import Answer, accepted, job_answer
from api.services import services
from shared.errors import InternalError, InvalidValue
from shared.jobs.models import Job
from shared.jobs.transitions import Submission, Submitted

LONGEST_KEY = 255


class Repeatable(NamedTuple):
    """An Idempotency-Key and the fingerprint of the request that it is for; both empty when the client sent none."""

    key: str
    fingerprint: str


def idempotency(content: Any) -> Repeatable:
    """What makes a submission of this request repeatable, if the client wants that.

    ``content`` is the checked body, so that two ways to write the same are the same. Raises InvalidValue.
    """
    key = request.headers.get("Idempotency-Key", "")
    if not key:
        return Repeatable("", "")
    if len(key) > LONGEST_KEY or not key.isprintable():
        raise InvalidValue(f"Idempotency-Key: must be 1 to {LONGEST_KEY} printable characters", param="Idempotency-Key")
    text = json.dumps([request.method, request.path, content], sort_keys=True, ensure_ascii=False, default=str)
    return Repeatable(key, hashlib.sha256(text.encode()).hexdigest())


def submit(submission: Submission, wait: float) -> Job:
    """Submit a job and wait so many seconds for its end; the job as it then stands. Raises what ``Lifecycle.submit_job`` does."""
    submitted, job = services().waiting.submit(submission, wait)
    g.replayed = submitted.replayed
    return _written(submitted, job)


def job_of(submitted: Submitted) -> Job:
    """The job that was just written."""
    return _written(submitted, services().lifecycle.get_job(submitted.id))


def answer(job: Job, wait: float) -> Answer:
    """200 with the job when the client waited for its end, else 202; with the header that tells of a replay."""
    response = job_answer(job) if wait and job.status.final else accepted(job)
    if g.get("replayed"):
        (response[0] if isinstance(response, tuple) else response).headers["Idempotent-Replay"] = "true"
    return response


def _written(submitted: Submitted, job: Job | None) -> Job:
    if job is None:
        raise InternalError(f"job {submitted.id} was written but cannot be read: does Redis evict keys?")
    return job
