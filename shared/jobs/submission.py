"""Job submission: new jobs, batches and replays.

The record is written before the wake-up is sent, so a lost wake-up loses no job.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import redis

from shared.errors import (
    BatchSealed,
    BudgetSpent,
    Conflict,
    EnginehouseError,
    IdempotencyConflict,
    NotFound,
    QuotaExceeded,
    TooMany,
    TooManyAtOnce,
    Unavailable,
)
from shared.ids import JOB, is_id, new_id
from shared.jobs.models import Job
from shared.jobs.scripts import JobScripts
from shared.jobs.serialization import to_json
from shared.jobs.wakeups import Wake, send_wakeups
from shared.lua_scripts import Clock, Value
from shared.owners.store import RateState
from shared.redis_connection import PREFIX, redis_time_ms
from shared.sessions.store import SessionFull, session_not_found, turn_not_found
from shared.settings import OWNER_LIMITS, Settings
from shared.work_context import current_work

SUMMARY_CHARACTERS = 120
# Characters in the name of an end user.
MAX_END_USER = 512
# Characters in a concurrency key, and the highest limit of one.
MAX_CONCURRENCY_KEY, MAX_CONCURRENCY_LIMIT = 128, 10_000

# Jobs whose client waits for the result, which may be large. It is kept for this long at most.
SHORT_KINDS = ("embed", "rerank", "tokenize", "draw")
SHORT_RETENTION_SECONDS = 300


# A client that asks to keep nothing fetches the answer at once, if necessary with one more try.
NOT_STORED_RETENTION_SECONDS = 60
# A stream that continues is made of all events, so none may be trimmed.
RESPONSE_EVENT_LIMIT = 10_000_000

# Limits of owners that are checked when jobs are submitted, besides those with their own arguments.
LIMITS_OF_SUBMISSIONS = (
    *("tokens_per_minute", "tokens_per_day", "tokens_per_month"),
    *("end_user_tokens_per_minute", "end_user_tokens_per_day", "end_user_tokens_per_month", "end_user_queued_jobs"),
)
# Jobs of these kinds use tokens, but how many is known only when they end.
LATE_KINDS = ("ingest", "reindex")
TOKEN_REFUSALS = ("budget_spent", "too_many_tokens", "tokens_limited")

# The parent of a turn that follows no other.
FIRST_TURN = "root"


@dataclass(frozen=True, kw_only=True)
class ResponseRecord:
    """What the job of a response keeps besides. Without ``content``, nothing is kept once the job has ended.

    With ``keeps_events``, the events are kept as long as the job, so that its stream can be continued at any time. Once it has
    completed, its items are added to ``conversation``, if that is not empty.
    """

    content: Mapping[str, Any] | None
    in_background: bool = False
    keeps_events: bool = False
    conversation: str = ""

    @property
    def mode(self) -> str:
        """The field ``response`` of the job's record."""
        if self.content is None:
            return "not_stored"
        return "background" if self.in_background else "stored"


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A job to submit.

    ``cost`` is the expected service in tokens. ``keep_seconds`` is how long the job is kept after its end, without its prompt once it has
    completed, instead of what the settings say. The job starts after ``wait_ms`` and within ``expires_ms``, and ends within
    ``timeout_ms``. ``turn`` is what the session keeps of the question besides its text, and ``turn_parent`` the turn before it:
    ``FIRST_TURN`` for none, empty for the current one. ``document`` is the document that fails if the job fails; ``parent`` is the job's batch. ``fingerprint``
    distinguishes requests with the same ``idempotency_key``. ``line_of`` is the request batch whose line this job runs, and
    ``requests`` the state of a new request batch. ``response`` is set for jobs of ``/v1/responses``. ``webhook`` describes where
    events of the job are sent: url, authority (host and port), events, endpoint (the registered endpoint with this URL, or empty),
    secret (or empty). The end users of one owner share what the owner gets. ``tokens`` is what the job may use at most, as far as that is
    known, None if token limits do not apply to it; ``key`` is the id of the API key that it counts for. The job starts only while fewer than
    ``concurrency_limit`` jobs of the owner with its ``concurrency_key`` run, if it has one.
    """

    kind: str
    queue: str
    spec: Mapping[str, Any]
    owner: str
    end_user: str = ""
    id: str = field(default_factory=lambda: new_id(JOB))
    model: str = ""
    session: str = ""
    turn: Mapping[str, Any] = field(default_factory=dict)
    turn_parent: str = ""
    after: str = ""
    document: str = ""
    parent: str = ""
    line_of: str = ""
    requests: Mapping[str, Value] = field(default_factory=dict)
    retry_of: str = ""
    idempotency_key: str = ""
    fingerprint: str = ""
    keep_seconds: int | None = None
    priority: int = 5
    cost: int = 1
    tokens: int | None = None
    key: str = ""
    wait_ms: int = 0
    expires_ms: int | None = None
    timeout_ms: int | None = None
    concurrency_key: str = ""
    concurrency_limit: int = 1
    webhook: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    response: ResponseRecord | None = None


@dataclass(frozen=True)
class SubmissionResult:
    """Result of a submission: the job's id, and whether it is an earlier job with the same Idempotency-Key."""

    id: str
    replayed: bool = False


class Requester(Protocol):
    """Who submits jobs, in the current thread."""

    def key_id(self) -> str:
        """The id of the API key, or empty."""

    def note_token_rate(self, state: RateState) -> None:
        """Receive the state of the tightest token rate."""


class JobSubmitter:
    """Creates jobs and batches. Safe to use from many threads; ``clock`` gives Unix milliseconds and is for tests.

    ``requester`` says for whom jobs are submitted, and receives the state of the token rate.
    """

    def __init__(
        self,
        client: redis.Redis,
        settings: Settings,
        wake: Wake,
        *,
        clock: Clock | None = None,
        requester: Requester | None = None,
    ) -> None:
        self._client: Any = client
        self._requester = requester
        self._defaults = to_json({name: getattr(settings, OWNER_LIMITS[name]) for name in LIMITS_OF_SUBMISSIONS})
        self._settings = settings
        self._wake = wake
        self._scripts = JobScripts(client, clock=clock)

    def submit_job(self, submission: Submission) -> SubmissionResult:
        """Submit one job. Raises what ``submit_jobs`` raises."""
        [submitted] = self.submit_jobs([submission])
        return submitted

    def submit_jobs(self, submissions: Sequence[Submission]) -> list[SubmissionResult]:
        """Write the jobs of one owner, all or none, and wake workers. Submitting the same submission again creates no second job.

        Raises NotFound if the session or turn does not exist, SessionFull, IdempotencyConflict, TooMany if the queue or the owner's share of
        memory has not enough room for all, or the token rate, BudgetSpent, and Unavailable if Redis has no memory for a large job.
        """
        settings = self._settings
        requester = self._requester
        key = submissions[0].key or (requester.key_id() if requester is not None else "")
        rows = [self._row(submission, key) for submission in submissions]
        outcome, queues, values, *ids = self._scripts.submit(
            owner=submissions[0].owner,
            key=key,
            defaults=self._defaults,
            queue_limit=settings.max_queued,
            owner_limit=settings.max_queued_per_owner,
            bytes_limit=settings.max_bytes_per_owner,
            turns_limit=settings.max_session_turns,
            turn_bytes_limit=settings.max_session_bytes,
            jobs=rows,
        )
        if requester is not None and (rate := _token_rate(outcome, values, ids)) is not None:
            requester.note_token_rate(rate)
        if outcome in TOKEN_REFUSALS:
            raise _token_refusal(outcome, values)
        if outcome != "created":
            size = sum(len(str(row["spec"]).encode()) for row in rows)
            raise _refusal(outcome, values[0] if values else "", submissions, size)
        send_wakeups(self._wake, queues)
        return [SubmissionResult(id, each == "replayed") for each, id in zip(values, ids[0], strict=True)]

    def _row(self, submission: Submission, key: str) -> dict[str, Value]:
        settings = self._settings
        expires_ms = settings.max_queue_seconds * 1000 + submission.wait_ms
        if submission.expires_ms is not None:
            expires_ms = min(expires_ms, submission.expires_ms)
        record: dict[str, Value] = {
            "kind": submission.kind,
            "queue": submission.queue,
            "model": submission.model,
            "document": submission.document,
            **_collection_field(submission.spec),
            "line_of": submission.line_of,
            "retry_of": submission.retry_of,
            **({"end_user": submission.end_user} if submission.end_user else {}),
            **({"key": key} if key else {}),
            **_concurrency_fields(submission),
            "priority": submission.priority,
            "cost": submission.cost,
            "summary": summarize(submission.spec),
            "keep_input": int(settings.keep_prompts and submission.keep_seconds is None),
            "metadata": to_json(submission.metadata),
            **_origin_fields(),
            "max_attempts": settings.max_attempts,
            "max_retries": settings.max_retries,
            **_webhook_field(submission.webhook),
            # The result of a line is kept until it is in the output, however long no worker is there to write it.
            **self._retention_fields("" if submission.line_of else submission.kind, submission.keep_seconds),
            **self._response_fields(submission.response),
        }
        response = submission.response
        return {
            "id": submission.id,
            "session": submission.session,
            "after": submission.after,
            "parent": submission.parent,
            "wait_ms": submission.wait_ms,
            "expires_ms": expires_ms,
            "timeout_ms": "" if submission.timeout_ms is None else submission.timeout_ms,
            "idempotency": submission.idempotency_key,
            "fingerprint": submission.fingerprint,
            "spec": to_json(submission.spec),
            "requests": to_json(submission.requests) if submission.requests else "",
            "response": to_json(response.content) if response is not None and response.content is not None else "",
            "record": to_json(record),
            "turn": to_json({"message": submission.spec.get("message", ""), **submission.turn}) if submission.session else "",
            "turn_parent": submission.turn_parent,
            "tokens": _limited_tokens(submission),
        }

    def open_batch(
        self,
        owner: str,
        *,
        spec: Mapping[str, Any],
        idempotency_key: str = "",
        fingerprint: str = "",
        webhook: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        id: str = "",
        vector_store: Mapping[str, Any] | None = None,
        wait_ms: int = 0,
    ) -> SubmissionResult:
        """Create a batch: a job that is the ``parent`` of other jobs. Once sealed, it ends with the last of them.

        Jobs that join it start after ``wait_ms``. ``vector_store`` says which files of ``/v1/files`` it puts into which collection (``collection_id``, ``files``).

        Raises IdempotencyConflict and QuotaExceeded.
        """
        record: dict[str, Value] = {
            "metadata": to_json(metadata or {}),
            "priority": 5,
            **_webhook_field(webhook),
            **self._retention_fields("batch"),
        }
        if vector_store is not None:
            record["vector_store"] = to_json(vector_store)
        if wait_ms > 0:
            record["not_before"] = redis_time_ms(self._client) + wait_ms
        outcome, batch = self._scripts.open_batch(
            id=id or new_id(JOB),
            owner=owner,
            idempotency=idempotency_key,
            fingerprint=fingerprint,
            seal_ms=int(1000 * self._settings.seal_seconds),
            limit=self._settings.max_open_batches,
            record=record,
        )
        if outcome == "conflict":
            raise _conflict(idempotency_key, batch)
        if outcome == "full":
            raise QuotaExceeded("open_batches", int(batch))
        return SubmissionResult(batch, outcome == "replayed")

    def delay_of_batch(self, batch: str) -> int:
        """How long jobs that join this batch must wait, in milliseconds."""
        not_before = self._client.hget(f"{PREFIX}job:{batch}", "not_before")
        return max(0, int(not_before) - redis_time_ms(self._client)) if not_before else 0

    def join_batch(self, batch: str, owner: str, *, idempotency_key: str = "", fingerprint: str = "") -> None:
        """Announce more jobs for an open batch. This restarts the time after which maintenance seals it.

        Raises NotFound, BatchSealed and IdempotencyConflict.
        """
        outcome, value = "missing", ""
        if is_id(JOB, batch):
            outcome, value = self._scripts.join_batch(id=batch, owner=owner, idempotency=idempotency_key, fingerprint=fingerprint)
        if outcome == "missing":
            raise NotFound(f"batch: There is no batch {batch[:80]!r}.", code="job_not_found", param="batch")
        if outcome == "sealed":
            raise BatchSealed(
                f"batch: Batch {batch} is sealed (status {value}), so no more jobs can join it. Open another batch.",
                param="batch",
                details={"status": value},
            )
        if outcome == "conflict":
            raise _conflict(idempotency_key, value)

    def seal_batch(self, batch: str) -> None:
        """Seal a batch: no further job can join it."""
        self._scripts.seal_batch(id=batch)

    def replay(self, job: Job) -> SubmissionResult:
        """Submit an ended job again as a new job with ``retry_of`` set, and remove the old one from the dead letters.

        Raises Conflict if the prompt of the old one was dropped when it completed, and the errors of ``submit_job``.
        """
        spec = self._client.hget(f"{PREFIX}job:{job.id}:input", "spec")
        if spec is None:
            raise Conflict(
                f"The prompt of job {job.id} was not kept, because it was too long or because the server keeps no prompts of"
                " completed jobs (ENGINEHOUSE_KEEP_PROMPTS=0). Submit it as a new job.",
                code="prompt_not_kept",
            )
        submitted = self.submit_job(
            Submission(
                kind=job.kind,
                queue=job.first_queue,
                spec=json.loads(spec),
                owner=job.owner,
                end_user=job.end_user,
                model=job.model,
                session=job.session,
                document=job.document,
                retry_of=job.id,
                priority=job.priority,
                cost=job.cost,
                tokens=job.cost if job.kind in ("generate", "embed", "rerank") else None,
                key=job.key,
                concurrency_key=job.concurrency_key,
                concurrency_limit=job.concurrency_limit,
                webhook=job.webhook,
                metadata=job.metadata,
            )
        )
        self._scripts.remove_dead_letter(id=job.id)
        return submitted

    def _retention_fields(self, kind: str, keep_seconds: int | None = None) -> dict[str, str | int]:
        settings = self._settings
        kept = settings.job_retention_seconds if keep_seconds is None else keep_seconds
        if kind in SHORT_KINDS:
            kept = min(kept, SHORT_RETENTION_SECONDS)
        return {
            "retention_ms": kept * 1000,
            "failed_retention_ms": min(settings.failed_retention_seconds, kept) * 1000,
            "event_limit": settings.event_limit,
            "event_retention_ms": min(settings.event_retention_seconds, kept) * 1000,
            "usage_days": settings.usage_retention_days,
        }

    def _response_fields(self, response: ResponseRecord | None) -> dict[str, str | int]:
        if response is None:
            return {}
        stored = response.content is not None
        kept_ms = (self._settings.response_retention_seconds if stored else NOT_STORED_RETENTION_SECONDS) * 1000
        fields: dict[str, str | int] = {
            "response": response.mode,
            "retention_ms": kept_ms,
            "failed_retention_ms": kept_ms,
            "event_limit": RESPONSE_EVENT_LIMIT,
            **({"conversation": response.conversation} if response.conversation else {}),
        }
        # An empty time means that the stream is deleted with the job.
        return {**fields, "event_retention_ms": ""} if response.keeps_events else fields


def summarize(spec: Mapping[str, Any]) -> str:
    """The beginning of a request, on one line: its last message, prompt, query or file name."""
    messages = spec.get("messages") or [{}]
    text = spec.get("message") or spec.get("prompt") or messages[-1].get("content") or spec.get("query") or spec.get("name") or ""
    return " ".join(str(text)[: 4 * SUMMARY_CHARACTERS].split())[:SUMMARY_CHARACTERS]


def _collection_field(spec: Mapping[str, Any]) -> dict[str, str]:
    collection = spec.get("collection_id") or spec.get("collection")
    return {"collection": str(collection)} if collection else {}


def _origin_fields() -> dict[str, str]:
    """The request and the trace that the job comes from, as far as they are known."""
    work = current_work()
    fields = {"request_id": work.request_id, "traceparent": work.traceparent}
    return {name: value for name, value in fields.items() if value}


def _concurrency_fields(submission: Submission) -> dict[str, Value]:
    if not submission.concurrency_key:
        return {}
    return {"concurrency_key": submission.concurrency_key, "concurrency_limit": submission.concurrency_limit}


def _webhook_field(webhook: Mapping[str, Any] | None) -> dict[str, str]:
    return {} if webhook is None else {"webhook": to_json(webhook)}


def _refusal(outcome: str, value: str, submissions: Sequence[Submission], size: int) -> EnginehouseError:
    """The error for jobs that were not accepted. ``value`` is the limit, the job of the request with the same key, or a turn."""
    first, number = submissions[0], len(submissions)
    if outcome == "no_session":
        return session_not_found(first.session)
    if outcome == "no_turn":
        return turn_not_found(value, first.session, param="parent")
    if outcome in ("turns_full", "turn_bytes_full"):
        return SessionFull(first.session, int(value), "turns" if outcome == "turns_full" else "bytes")
    if outcome == "conflict":
        return _conflict(first.idempotency_key, value)
    if outcome == "memory_full":
        return Unavailable("Redis has no memory for large jobs now. Try again later.", code=outcome, retry_after=30)
    limit: dict[str, object] = {"limit": int(value)}
    if outcome == "user_full":
        return TooMany(
            f"end_user: queue {first.queue} may hold {value} jobs of each end user of your account. Retry when some of them have ended.",
            code=outcome,
            param="end_user",
            retry_after=5,
            details=limit,
        )
    if outcome == "bytes_full":
        theirs, they = ("this one", "they") if number == 1 else (f"these {number}", "all of them")
        return TooMany(
            f"Your jobs, queued and ended, and chats may occupy {value} bytes, and with the {size} of {theirs} {they} would occupy"
            " more. Delete chats, or jobs that have ended, or wait until older ones have outlived their retention.",
            code=outcome,
            retry_after=60,
            details=limit,
        )
    jobs = "jobs" if outcome == "queue_full" else "of your jobs"
    if number > int(value):
        return TooManyAtOnce(
            f"Queue {first.queue} may hold {value} {jobs}, and this request needs {number}. Send it in parts.",
            code=outcome,
            details=limit,
        )
    holds = (
        f"already holds {value} {jobs}, which is the limit"
        if number == 1
        else f"has no room for {number} more; its limit is {value} {jobs}"
    )
    return TooMany(
        f"Queue {first.queue} {holds}. Retry when some of them have ended.", code=outcome, retry_after=5, details=limit
    )


def _limited_tokens(submission: Submission) -> Value:
    if submission.tokens is not None:
        return submission.tokens
    return 0 if submission.kind in LATE_KINDS else ""


def _token_rate(outcome: str, values: Sequence[str], rest: Sequence[Any]) -> RateState | None:
    """The state of the token rate after a submission; None without one."""
    limit, remaining, reset_ms = 0, 0, 0
    if outcome == "created":
        limit, remaining, reset_ms = map(int, rest[1])
    elif outcome == "tokens_limited":
        limit, remaining, reset_ms = int(values[2]), int(values[3]), int(values[5])
    return RateState(limit, remaining, reset_ms / 1000) if limit else None


HOLDERS = {"owner": "your account", "api_key": "your API key", "end_user": "an end user of your account"}


def _token_refusal(outcome: str, values: Sequence[str]) -> EnginehouseError:
    """The error for jobs that need more tokens than are left. ``values`` come from ``reserve_tokens`` in Lua."""
    holder, quota, limit, number, wait_ms = values[:5]
    details: dict[str, object] = {"quota": quota, "limit": int(limit), "of": holder}
    whose, seconds = HOLDERS[holder], math.ceil(int(wait_ms) / 1000)
    if outcome == "budget_spent":
        return BudgetSpent(
            f"{quota}: {whose} may use {limit} tokens, and {number} are left. Send less, wait until the limit starts again, or ask the "
            "operator of the server for a higher limit.",
            retry_after=seconds,
            details={**details, "left": int(number)},
        )
    if outcome == "too_many_tokens":
        return TooManyAtOnce(
            f"{quota}: {whose} may use {limit} tokens per minute, and this request may need {number}. Send a shorter prompt, or reduce "
            "max_tokens.",
            code="rate_limited",
            details=details,
        )
    return TooMany(
        f"{quota}: the jobs of your account, API key or end user would use more than {limit} tokens per minute, of which {number} are left. "
        "Retry later.",
        code="rate_limited",
        retry_after=seconds,
        details=details,
    )


def _conflict(key: str, job: str) -> IdempotencyConflict:
    return IdempotencyConflict(
        f"Idempotency-Key {key[:80]!r} was used for another request, which created {job}. Use a new key for a new request.",
        param="Idempotency-Key",
        details={"job": job},
    )
