"""Serialization of jobs: the JSON of ``GET /jobs/<job>`` and of webhooks. Times are Unix seconds with milliseconds.

The API adds the fields that depend on the moment, such as the position of a queued job.
"""

import json
from collections.abc import Mapping
from typing import Any

from shared.jobs.models import AttemptRecord, Job


def job_view(job: Job) -> dict[str, Any]:
    """The public fields of a job record, without its spec."""
    view: dict[str, Any] = {
        "id": job.id,
        "object": "job",
        "kind": job.kind,
        "status": job.status.value,
        "phase": job.phase,
        "phase_at": seconds(job.phase_at),
        "model": job.model or None,
        "priority": job.priority,
        "end_user": job.end_user or None,
        "created_at": seconds(job.created_at),
        "started_at": seconds(job.started_at),
        "ended_at": seconds(job.ended_at),
        "expires_at": seconds(job.expires_at),
        "cancel_requested_at": seconds(job.cancel_requested_at),
        "progress": job.progress,
        "attempts": [_attempt_view(attempt) for attempt in job.attempts],
        "metadata": job.metadata,
        "summary": job.summary,
        "result": job.result,
        "error": job.error,
        "heartbeat_at": seconds(job.heartbeat_at),
        "batch": job.parent or None,
        "retry_of": job.retry_of or None,
        "timings": _timings(job),
        "urls": {"self": f"/jobs/{job.id}", "events": f"/jobs/{job.id}/events", "cancel": f"/jobs/{job.id}/cancel"},
    }
    if job.line_of:
        view["request_batch"] = f"batch_{job.line_of.partition('_')[2]}"
    if job.concurrency_key:
        view["concurrency_key"], view["concurrency_limit"] = job.concurrency_key, job.concurrency_limit
    if job.session:
        view["session"] = job.session
    if job.counts is not None:
        view["counts"], view["sealed"] = job.counts, job.sealed
        if job.not_before is not None:
            view["not_before"] = seconds(job.not_before)
    if job.kind == "generate" and job.result is not None:
        # The field names of the chat_gp_me tutorial.
        view["response"] = job.result["text"]
        view["context_used"] = bool(job.result.get("citations"))
    return view


def summary_view(job: Job) -> dict[str, Any]:
    """The fields of a job that a table shows."""
    return {
        "id": job.id,
        "object": "job",
        "kind": job.kind,
        "status": job.status.value,
        "model": job.model or None,
        "priority": job.priority,
        "created_at": seconds(job.created_at),
        "started_at": seconds(job.started_at),
        "ended_at": seconds(job.ended_at),
        "cancel_requested_at": seconds(job.cancel_requested_at),
        "progress": job.progress,
        "summary": job.summary,
        "error": job.error,
        "batch": job.parent or None,
        "retried_as": job.retried_as or None,
    }


def seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _attempt_view(attempt: AttemptRecord) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "worker": attempt.worker,
        "queue": attempt.queue,
        "started_at": seconds(attempt.started_at),
        "ended_at": seconds(attempt.ended_at),
        "outcome": attempt.outcome,
        "error": attempt.error,
    }


def _timings(job: Job) -> dict[str, float | None]:
    """Seconds from submission to the first claim, the first token and the end."""

    def since(moment: int | None) -> float | None:
        return None if moment is None else (moment - job.created_at) / 1000

    return {"queued": since(job.started_at), "first_token": since(job.first_token_at), "total": since(job.ended_at)}


def to_json(value: Any) -> str:
    """Compact JSON. Mappings other than dict are supported too."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_as_dict)


def _as_dict(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} cannot be stored as JSON")
