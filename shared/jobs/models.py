"""Job records, read-only: only the scripts in ``lua/`` change a job.

The record is the hash ``eh:job:<id>``. Its times are Unix milliseconds; an empty time means "not yet".
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """Status of a job. The last four are final."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def final(self) -> bool:
        return self not in (Status.QUEUED, Status.IN_PROGRESS)


class Outcome(StrEnum):
    """How an attempt ended. An attempt without an outcome is still running."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    HANDED_OVER = "handed_over"
    RELEASED = "released"
    RETRIED = "retried"
    LOST = "lost"


@dataclass(frozen=True)
class AttemptRecord:
    """One attempt. Its number is the fencing token: every write by its worker carries it."""

    number: int
    worker: str
    queue: str
    started_at: int
    ended_at: int | None = None
    outcome: Outcome | None = None
    error: str | None = None


@dataclass(frozen=True)
class Job:
    """A snapshot of one job.

    ``spec`` describes the work and never changes; ``context`` is the data that an earlier phase has handed over, such as the
    retrieved passages of a generation; ``output`` is what earlier attempts have generated. All are empty unless a worker claimed the job.
    ``has_deltas`` says whether clients may have read deltas, of this or an earlier attempt, ``followed`` whether a client has
    followed its events. ``result`` is None in lists. ``summary`` is
    the beginning of the request. ``collection`` is the id of the collection that the job reads or changes. ``line_of`` is the request
    batch whose line this job runs, ``key`` the id of the API key that submitted it. The job starts only
    while fewer than ``concurrency_limit`` jobs of its owner with the same ``concurrency_key`` run. ``response`` says how a response of
    ``/v1`` is kept: ``stored``, ``background``, ``not_stored``; ``conversation`` is the one to which it is added. ``request_id`` and
    ``traceparent`` name the HTTP request and the trace
    that submitted the job. ``counts`` of a batch count its jobs; a ``sealed`` batch accepts no
    further jobs, and one of ``/v1/vector_stores`` has the collection and the files in ``vector_store``.
    """

    id: str
    kind: str
    owner: str
    queue: str
    status: Status
    phase: str
    attempt: int
    created_at: int
    expires_at: int
    phase_at: int
    priority: int = 5
    end_user: str = ""
    summary: str = ""
    model: str = ""
    output: str = ""
    response: str = ""
    conversation: str = ""
    request_id: str = ""
    traceparent: str = ""
    has_deltas: bool = False
    followed: bool = False
    session: str = ""
    collection: str = ""
    document: str = ""
    parent: str = ""
    line_of: str = ""
    key: str = ""
    concurrency_key: str = ""
    concurrency_limit: int = 1
    retry_of: str = ""
    retried_as: str = ""
    first_queue: str = ""
    worker: str = ""
    waiting: str = ""
    lost: int = 0
    retries: int = 0
    seq: int = 0
    cost: int = 1
    counts: Mapping[str, int] | None = None
    sealed: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    progress: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    webhook: Mapping[str, Any] | None = None
    vector_store: Mapping[str, Any] | None = None
    started_at: int | None = None
    ended_at: int | None = None
    first_token_at: int | None = None
    heartbeat_at: int | None = None
    not_before: int | None = None
    cancel_requested_at: int | None = None
    attempts: tuple[AttemptRecord, ...] = ()


_INTEGERS = (
    *("attempt", "created_at", "expires_at", "phase_at", "priority", "lost", "retries", "seq", "cost"),
    "concurrency_limit",
)
_TIMES = ("started_at", "ended_at", "first_token_at", "heartbeat_at", "not_before", "cancel_requested_at")
_JSON = ("spec", "metadata", "context", "progress", "result", "error", "webhook", "vector_store")
_TEXTS = (
    *("id", "kind", "owner", "end_user", "queue", "phase", "model", "session", "collection", "document", "parent", "line_of"),
    *("retry_of", "retried_as", "key", "concurrency_key"),
    *("first_queue", "worker", "waiting", "summary", "output", "response", "conversation", "request_id", "traceparent"),
)
_COUNTS = ("completed", "failed", "cancelled", "expired")


def from_record(record: Mapping[str, str]) -> Job:
    """Parse a job record. Unknown fields, which a newer version may have written, are ignored."""
    values: dict[str, Any] = {name: record[name] for name in _TEXTS if name in record}
    values["status"] = Status(record["status"])
    values.update((name, int(record[name])) for name in _INTEGERS if name in record)
    values.update((name, int(record[name])) for name in _TIMES if record.get(name))
    values.update((name, json.loads(record[name])) for name in _JSON if record.get(name))
    values["has_deltas"] = record.get("shown") == "1"
    values["followed"] = record.get("followed") == "1"
    attempts = [_parse_attempt(text) for name, text in record.items() if name.startswith("attempt:")]
    if "children" in record:
        values["sealed"] = record.get("sealed") == "1"
        values["counts"] = {"total": int(record["children"])} | {name: int(record.get(name, 0)) for name in _COUNTS}
    values["attempts"] = tuple(sorted(attempts, key=lambda attempt: attempt.number))
    return Job(**values)


def _parse_attempt(text: str) -> AttemptRecord:
    values = {name: value for name, value in json.loads(text).items() if name in AttemptRecord.__dataclass_fields__}
    if values.get("outcome"):
        values["outcome"] = Outcome(values["outcome"])
    return AttemptRecord(**values)
