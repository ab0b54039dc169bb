"""The log of a job: what happened to it and when, as readable lines. It contains no prompts or answers.

It is built when it is read: from the record and its attempts, from the events that are still kept, from the deliveries, and from what
workers logged while they ran the job. So it costs nothing while the job runs, apart from the workers' lines.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import redis

from shared.jobs.event_streams import StreamEvent, read_events
from shared.jobs.models import AttemptRecord, Job, Status
from shared.redis_connection import PREFIX
from shared.webhooks.deliveries import Deliveries, Delivery

MAX_EVENTS = 12_000
PAGE = 1000
# The number of lines returned, the most recent ones.
MAX_LINES = 1000


@dataclass(frozen=True, kw_only=True)
class JobLogLine:
    """One line. ``at`` is in Unix milliseconds; Only a worker's line has ``worker`` and ``attempt``."""

    at: int
    level: str = "info"
    message: str
    attempt: int | None = None
    worker: str = ""


def read_job_log(client: redis.Redis, deliveries: Deliveries, job: Job) -> list[JobLogLine]:
    """The lines of a job, oldest first."""
    progress, moves = _lines_of_events(_notable_events(client, job))
    # In the order in which they happen within one millisecond, as the sort keeps it.
    lines = [
        *_beginnings(job),
        *progress,
        *_lines_of_workers(client, job),
        *(_end_of_attempt(attempt) for attempt in job.attempts if attempt.ended_at is not None),
        *moves,
        *_end(job),
        *(line for delivery in deliveries.list_for_job(job.id) for line in _lines_of_delivery(delivery)),
    ]
    return sorted(lines, key=lambda line: line.at)[-MAX_LINES:]


def _beginnings(job: Job) -> Iterator[JobLogLine]:
    yield JobLogLine(
        at=job.created_at, message=f"submitted to {job.first_queue or job.queue or 'no queue'}, priority {job.priority}"
    )
    for attempt in job.attempts:
        yield JobLogLine(
            at=attempt.started_at, message=f"attempt {attempt.number} started on {attempt.worker} from {attempt.queue}"
        )
    if job.first_token_at is not None:
        yield JobLogLine(at=job.first_token_at, message="the first text was written")
    if job.cancel_requested_at is not None:
        yield JobLogLine(at=job.cancel_requested_at, message="its cancellation was requested")


def _end(job: Job) -> Iterator[JobLogLine]:
    if job.ended_at is not None:
        problem = f": {job.error['code']}: {job.error['message']}" if job.error else ""
        is_good = job.status in (Status.COMPLETED, Status.CANCELLED)
        yield JobLogLine(at=job.ended_at, level="info" if is_good else "error", message=f"{job.status.value}{problem}")


def _end_of_attempt(attempt: AttemptRecord) -> JobLogLine:
    error = f" ({attempt.error})" if attempt.error else ""
    level = "warning" if attempt.outcome in ("lost", "retried", "failed") else "info"
    assert attempt.ended_at is not None
    return JobLogLine(at=attempt.ended_at, level=level, message=f"attempt {attempt.number} ended: {attempt.outcome}{error}")


def _notable_events(client: redis.Redis, job: Job) -> Iterator[StreamEvent]:
    """The events of a job except for its text, of which there are thousands."""
    after = count = 0
    while count < MAX_EVENTS and (events := read_events(client, job.id, after, PAGE)):
        yield from (event for event in events if event.type in ("progress", "requeued", "restart"))
        after, count = events[-1].sequence, count + len(events)


def _lines_of_events(events: Iterable[StreamEvent]) -> tuple[list[JobLogLine], list[JobLogLine]]:
    """Lines of progress (of a phase, its beginning and the last one), and of what moved the job or its text."""
    progress: list[JobLogLine] = []
    moves: list[JobLogLine] = []
    phase, latest = "", None
    for event in events:
        if event.type == "progress" and event.data["phase"] == phase:
            latest = _progress(event)
            continue
        progress += [latest] if latest is not None else []
        phase, latest = "", None
        if event.type == "progress":
            phase = event.data["phase"]
            progress.append(JobLogLine(at=event.at, message=f"phase {phase}"))
            latest = _progress(event) if event.data["done"] else None
        else:
            message = _requeued(event.data) if event.type == "requeued" else "its text starts over"
            moves.append(JobLogLine(at=event.at, message=message))
    return progress + ([latest] if latest is not None else []), moves


def _requeued(data: Any) -> str:
    delay = f", not before {data['delay_ms'] / 1000:.1f} s have passed" if data["delay_ms"] else ""
    return f"queued again ({data['why']}){delay}"


def _progress(event: StreamEvent) -> JobLogLine:
    data = event.data
    total = f" of {data['total']}" if data["total"] else ""
    return JobLogLine(at=event.at, message=f"phase {data['phase']}: {data['done']}{total} {data['unit']}")


def _lines_of_workers(client: Any, job: Job) -> Iterator[JobLogLine]:
    for text in client.lrange(f"{PREFIX}job:{job.id}:log", 0, -1):
        yield JobLogLine(**json.loads(text))


def _lines_of_delivery(delivery: Delivery) -> Iterator[JobLogLine]:
    for attempt in delivery.attempts:
        if attempt.ended_at is not None:
            answer = attempt.status or attempt.error or attempt.outcome
            level = "info" if attempt.outcome == "delivered" else "warning"
            message = f"webhook {delivery.event} ({delivery.id}), attempt {attempt.number}: {answer}"
            yield JobLogLine(at=attempt.ended_at, level=level, message=message)
