"""Spans of an attempt: the wait before it, and the attempt itself, under the request that submitted the job."""

from contextlib import AbstractContextManager

from shared.jobs.models import Job
from shared.tracing import Span, is_tracing, span, start_span

FAILED_OUTCOMES = ("failed", "lost", "retried")


def attempt_span(job: Job) -> AbstractContextManager[Span]:
    """The span of an attempt that has just been claimed. The wait for it becomes a span too."""
    attributes: dict[str, str | int] = {
        "enginehouse.job.id": job.id,
        "enginehouse.job.kind": job.kind,
        "enginehouse.job.attempt": job.attempt,
        "enginehouse.queue": job.queue,
    }
    if job.model:
        attributes["gen_ai.request.model"] = job.model
    if is_tracing():
        current = next((attempt for attempt in job.attempts if attempt.number == job.attempt), None)
        queued_at = max([job.created_at, *(attempt.ended_at or 0 for attempt in job.attempts)])
        if current is not None:
            wait = start_span(f"wait {job.queue}", attributes=attributes, at_seconds=queued_at / 1000)
            wait.end(current.started_at / 1000)
    return span(f"{job.kind} attempt", "consumer", attributes)


def end_attempt_span(span: Span, outcome: str, error_code: str) -> None:
    """Record the outcome of an attempt."""
    span.set_attributes({"enginehouse.outcome": str(outcome)})
    if outcome in FAILED_OUTCOMES:
        span.fail(error_code or str(outcome))
