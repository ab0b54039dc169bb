"""Responses made of jobs: submit them, then stream their output or wait for their results."""

from collections.abc import Callable, Sequence
from typing import Any

from flask import Response, jsonify

from api.openai.generation_plan import GenerationPlan, build_submissions
from api.openai.request_jobs import submit_jobs
from api.openai.streams import AnswerStream, Chunks
from api.services import services
from shared.jobs.models import Job
from shared.jobs.submission import Submission


def streaming_response(plan: GenerationPlan, make_chunks: Callable[[Job], Chunks]) -> Response:
    """The response that streams the answers. Raises what ``submit_jobs`` raises, with nothing submitted if too many clients wait."""
    release = services().job_waiter.acquire_slot("streams")
    try:
        jobs = submit_jobs(lambda: build_submissions(plan))
        return AnswerStream(jobs, make_chunks).response(release)
    except BaseException:
        release()
        raise


def complete_response(plan: GenerationPlan, make_body: Callable[[Sequence[Job], int], Any]) -> Response:
    """The response with all answers, once they are complete. Raises what ``submit_jobs`` and ``RequestJobs.wait`` raise."""
    return response_of_jobs(lambda: build_submissions(plan), lambda jobs: make_body(jobs, plan.copies))


def response_of_jobs(make_submissions: Callable[[], list[Submission]], make_body: Callable[[Sequence[Job]], Any]) -> Response:
    """The response made of completed jobs. Raises what ``submit_jobs`` and ``RequestJobs.wait`` raise."""
    release = services().job_waiter.acquire_slot("waits")
    try:
        jobs = submit_jobs(make_submissions)
        response = jsonify(make_body(jobs.wait(services().settings.v1_wait_seconds)))
    finally:
        release()
    response.call_on_close(jobs.end)
    return response
