"""Responses over HTTP: create, retrieve, cancel and delete them, and page through their input."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import redis
from flask import Response, g, jsonify

from api.openai.job_responses import keyed_submissions
from api.openai.request_jobs import RequestJobs, submit_jobs
from api.openai.response_streams import ResponseStream
from api.owned_jobs import require_job
from api.services import owner, services
from shared.errors import Conflict, EnginehouseError, InvalidRequest, NotFound
from shared.jobs.models import Job
from shared.openai.job_errors import CONTEXT_LENGTH_EXCEEDED
from shared.openai.requests import ResponseRequest
from shared.openai.response_plan import ResponsePlan
from shared.openai.responses.store import StoredResponse

# A worker stops a job within a few steps of its model.
CANCEL_SECONDS = 10.0


def create_response(request: ResponseRequest, plan: ResponsePlan) -> Response:
    """The answer to a request, in the way that it asks for. Raises what ``submit_jobs`` and ``RequestJobs.wait`` raise."""
    if request.stream:
        return _streamed(plan, keep=bool(request.background))
    if request.background:
        jobs = submit_jobs(keyed_submissions(plan), keep=True)
        response = jsonify(plan.response_body([jobs.read(jobs.ids[0])]))
        response.call_on_close(jobs.end)
        return response
    return _complete(plan)


def find_response(response_id: str) -> StoredResponse:
    """The owner's response. Raises NotFound, and Forbidden if the key may not see it."""
    stored = services().responses.find(response_id, owner())
    require_job(stored.job)
    g.job_ids = [stored.job.id]
    return stored


def cancel_response(stored: StoredResponse) -> StoredResponse:
    """The response, cancelled unless it has ended before. Raises InvalidRequest if it does not run in the background."""
    if stored.job.response != "background":
        raise InvalidRequest(
            "Only a response that was created with background: true can be cancelled. Close the connection of any other one.",
            code="not_in_background",
        )
    return _stop(stored)


def delete_response(stored: StoredResponse) -> None:
    """Delete a response with its job, which is cancelled if it has not ended. Raises Conflict if it does not stop."""
    stopped, job = _stop(stored), stored.job.id
    services().conversations.add_response(stopped.job)
    outcome = services().transitions.delete(job, owner())
    if outcome not in ("deleted", "missing"):
        raise Conflict(
            f"The response is {outcome}, and is stopping. Delete it again in a moment.",
            code="job_not_ended",
            details={"status": stopped.job.status.value},
        )


def page_of_items(items: Sequence[Mapping[str, Any]], *, after: str | None, limit: int, newest_first: bool) -> dict[str, Any]:
    """List a page of conversation items. Raises NotFound if the item ``after`` does not exist."""
    ordered = list(reversed(items)) if newest_first else list(items)
    if after is not None:
        start = next((number for number, item in enumerate(ordered, 1) if item["id"] == after), None)
        if start is None:
            raise NotFound(f"after: this response has no input item {after[:80]!r}", code="item_not_found", param="after")
        ordered = ordered[start:]
    page = ordered[:limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(ordered) > limit,
    }


def _streamed(plan: ResponsePlan, *, keep: bool) -> Response:
    submissions = keyed_submissions(plan)
    release = services().job_waiter.acquire_slot("streams")
    try:
        return ResponseStream(submit_jobs(submissions, keep=keep), plan.request).response(release)
    except BaseException:
        release()
        raise


def _complete(plan: ResponsePlan) -> Response:
    submissions = keyed_submissions(plan)
    release = services().job_waiter.acquire_slot("waits")
    try:
        jobs = submit_jobs(submissions)
        try:
            ended = jobs.wait(services().settings.v1_wait_seconds)
        except EnginehouseError as error:
            if error.code == CONTEXT_LENGTH_EXCEEDED:
                error.param = "input"
            raise
        response = jsonify(plan.response_body(ended))
    finally:
        release()
    _add_to_conversation(ended[0])
    response.call_on_close(jobs.end)
    if ended[0].response == "not_stored":
        response.call_on_close(partial(_forget, jobs))
    return response


def _add_to_conversation(job: Job) -> None:
    """Add a response to its conversation, before its job may be deleted. If Redis is away, that happens when the conversation is read."""
    with suppress(redis.RedisError):
        services().conversations.add_response(job)


def _forget(jobs: RequestJobs) -> None:
    """Delete a response that is not to be stored, unless its client may have missed it."""
    if not jobs.may_be_repeated():
        jobs.delete()


def _stop(stored: StoredResponse) -> StoredResponse:
    context, job = services(), stored.job
    if job.status.final:
        return stored
    outcome, _ = context.transitions.cancel(job.id, owner())
    if outcome == "requested":
        context.job_waiter.wait_until_final(job.id, CANCEL_SECONDS)
    return stored._replace(job=context.queries.get_job(job.id) or job)
