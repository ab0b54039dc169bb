"""Responses made of jobs: submit them, then stream their output or wait for their results."""

from collections.abc import Callable
from dataclasses import replace

from flask import Response, jsonify

from api.openai.request_jobs import submit_jobs
from api.openai.streams import AnswerStream, Chunks
from api.request_parsing import read_idempotency_key
from api.services import services
from shared.jobs.models import Job
from shared.jobs.submission import Submission
from shared.openai.request_plan import RequestPlan


def streaming_response(plan: RequestPlan, make_chunks: Callable[[Job], Chunks]) -> Response:
    """The response that streams the answers. Raises what ``submit_jobs`` raises, with nothing submitted if too many clients wait."""
    submissions = keyed_submissions(plan)
    release = services().job_waiter.acquire_slot("streams")
    try:
        return AnswerStream(submit_jobs(submissions), make_chunks).response(release)
    except BaseException:
        release()
        raise


def complete_response(plan: RequestPlan) -> Response:
    """The response with all answers, once they are complete. Raises what ``submit_jobs`` and ``RequestJobs.wait`` raise."""
    submissions = keyed_submissions(plan)
    release = services().job_waiter.acquire_slot("waits")
    try:
        jobs = submit_jobs(submissions)
        response = jsonify(plan.response_body(jobs.wait(services().settings.v1_wait_seconds)))
    finally:
        release()
    response.call_on_close(jobs.end)
    return response


def keyed_submissions(plan: RequestPlan) -> list[Submission]:
    """The submissions with the Idempotency-Key of the current request. Raises InvalidValue."""
    key, fingerprint = read_idempotency_key(plan.content)
    if not key:
        return list(plan.submissions)
    return [
        replace(submission, idempotency_key=f"{key} {number}", fingerprint=fingerprint)
        for number, submission in enumerate(plan.submissions)
    ]
