"""The response object: a job, and the request behind it, in OpenAI's form."""

from collections.abc import Mapping
from typing import Any

from shared.jobs.deltas import delta_of_result
from shared.jobs.event_streams import StreamEvent
from shared.jobs.models import Job, Status
from shared.openai.responses.events import ResponseEvents, end_fields
from shared.openai.responses.ids import response_id


def initial_response(job: Job, request: Mapping[str, Any]) -> dict[str, Any]:
    """The response of a job before anything has happened. ``request`` has the fields that repeat the request."""
    return {
        "id": response_id(job.id),
        "object": "response",
        "created_at": job.created_at // 1000,
        "completed_at": None,
        "status": "queued",
        "error": None,
        "incomplete_details": None,
        "model": job.model,
        "output": [],
        "usage": None,
        **request,
    }


def response_of_job(job: Job, request: Mapping[str, Any]) -> dict[str, Any]:
    """The response of a job in any status. Its output is that of the last event of its stream."""
    initial = initial_response(job, request)
    if job.status is not Status.COMPLETED:
        return {**initial, **end_fields(job)}
    events = ResponseEvents(job.id, initial)
    if delta := delta_of_result(job.result or {}):
        events.feed(StreamEvent(1, "delta", job.attempt, job.created_at, delta))
    last: dict[str, Any] = events.feed(StreamEvent(2, "ended", job.attempt, job.created_at, {}), job)[-1]["response"]
    return last
