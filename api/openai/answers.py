"""Answers of generation calls: submit the jobs, then stream them or wait for them."""

from collections.abc import Callable, Sequence
from typing import Any

from flask import Response, jsonify

from api.openai.request_jobs import submit_jobs
from api.openai.streams import AnswerStream, Chunks
from api.openai.work import Work, generation_submissions
from api.services import services
from shared.jobs.models import Job
from shared.jobs.submission import Submission


def stream_answers(work: Work, make_chunks: Callable[[Job], Chunks]) -> Response:
    """The response that streams the answers. Raises what ``submit_jobs`` raises, with nothing submitted if too many clients wait."""
    release = services().job_waiter.acquire_slot("streams")
    try:
        jobs = submit_jobs(lambda: generation_submissions(work))
        return AnswerStream(jobs, make_chunks).response(release)
    except BaseException:
        release()
        raise


def whole_answers(work: Work, make_body: Callable[[Sequence[Job], int], Any]) -> Response:
    """The response with all answers, once they are complete. Raises what ``submit_jobs`` and ``RequestJobs.wait`` raise."""
    return job_response(lambda: generation_submissions(work), lambda jobs: make_body(jobs, work.copies))


def job_response(make_submissions: Callable[[], list[Submission]], make_body: Callable[[Sequence[Job]], Any]) -> Response:
    """The response made of completed jobs. Raises what ``submit_jobs`` and ``RequestJobs.wait`` raise."""
    release = services().job_waiter.acquire_slot("waits")
    try:
        jobs = submit_jobs(make_submissions)
        response = jsonify(make_body(jobs.wait(services().settings.v1_wait_seconds)))
    finally:
        release()
    response.call_on_close(jobs.end)
    return response
