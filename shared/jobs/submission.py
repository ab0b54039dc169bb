"""Submission: new jobs, batches and replays.

The record is written first and the wake-up is sent second, so that a lost wake-up loses no job.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import redis

from shared.errors import BatchSealed, IdempotencyConflict, NotFound, TooMany
from shared.ids import JOB, is_id, new_id
from shared.jobs.models import Job
from shared.jobs.scripts import JobScripts
from shared.jobs.serialization import to_json
from shared.jobs.wakeups import Wake, send_wakeups
from shared.lua_scripts import Clock, Value
from shared.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A job to be made. ``cost`` is the service it is expected to use, in tokens. It starts after ``wait_ms`` and within
    ``expires_ms``, and has ended within ``timeout_ms``. ``document`` is the document that fails when the job does, ``parent``
    the batch that it belongs to; ``fingerprint`` tells requests with the same ``idempotency_key`` apart. ``webhook`` is told
    of the job: url, place (host and port), events, endpoint (the kept one with this url, or empty), secret (or empty)."""

    kind: str
    queue: str
    spec: Mapping[str, Any]
    owner: str
    id: str = field(default_factory=lambda: new_id(JOB))
    model: str = ""
    session: str = ""
    after: str = ""
    document: str = ""
    parent: str = ""
    retry_of: str = ""
    idempotency_key: str = ""
    fingerprint: str = ""
    priority: int = 5
    cost: int = 1
    wait_ms: int = 0
    expires_ms: int | None = None
    timeout_ms: int | None = None
    webhook: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Submitted:
    """What became of a submission: the job, and whether an earlier one with the same Idempotency-Key answers for it."""

    id: str
    replayed: bool = False


class JobSubmitter:
    """Creates jobs and batches. Safe to use from many threads; ``clock`` gives Unix milliseconds and is for tests."""

    def __init__(self, client: redis.Redis, settings: Settings, wake: Wake, *, clock: Clock | None = None) -> None:
        self._settings = settings
        self._wake = wake
        self._scripts = JobScripts(client, clock=clock)

    def submit_job(self, submission: Submission) -> Submitted:
        """Write the job and ring for it. Sending the same submission again makes no second job.

        Raises NotFound when its session is gone, IdempotencyConflict, and TooMany when the queue is full.
        """
        settings = self._settings
        expires_ms = settings.max_queue_seconds * 1000
        if submission.expires_ms is not None:
            expires_ms = min(expires_ms, submission.expires_ms)
        record: dict[str, Value] = {
            "kind": submission.kind,
            "queue": submission.queue,
            "model": submission.model,
            "document": submission.document,
            "retry_of": submission.retry_of,
            "priority": submission.priority,
            "cost": submission.cost,
            "spec": to_json(submission.spec),
            "metadata": to_json(submission.metadata),
            "max_attempts": settings.max_attempts,
            "max_retries": settings.max_retries,
            **_told(submission.webhook),
            **self._keeping(),
        }
        answer, queue, about = self._scripts.submit(
            id=submission.id,
            owner=submission.owner,
            session=submission.session,
            after=submission.after,
            parent=submission.parent,
            wait_ms=submission.wait_ms,
            expires_ms=expires_ms,
            timeout_ms=submission.timeout_ms,
            idempotency=submission.idempotency_key,
            fingerprint=submission.fingerprint,
            queue_limit=settings.max_queued,
            owner_limit=settings.max_queued_per_owner,
            record=record,
        )
        if answer == "no_session":
            raise NotFound(f"there is no session {submission.session!r}", code="session_not_found", param="sessionId")
        if answer == "conflict":
            raise _conflict(submission.idempotency_key, about)
        if answer in ("queue_full", "owner_full"):
            whose, limit = ("", settings.max_queued) if answer == "queue_full" else (" of yours", settings.max_queued_per_owner)
            raise TooMany(
                f"{about} jobs{whose} wait in queue {submission.queue} already, and {limit} is the limit; wait until some have ended",
                code=answer,
                retry_after=5,
                details={"limit": limit},
            )
        send_wakeups(self._wake, [queue] if queue else [])
        return Submitted(about, answer == "replayed")

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
    ) -> Submitted:
        """Write a job that stands for others: ``parent`` of those submitted next. It ends with the last of them, once sealed.

        Raises IdempotencyConflict.
        """
        record: dict[str, Value] = {
            "spec": to_json(spec),
            "metadata": to_json(metadata or {}),
            "priority": 5,
            **_told(webhook),
            **self._keeping(),
        }
        answer, batch = self._scripts.open_batch(
            id=id or new_id(JOB),
            owner=owner,
            idempotency=idempotency_key,
            fingerprint=fingerprint,
            seal_ms=int(1000 * self._settings.seal_seconds),
            record=record,
        )
        if answer == "conflict":
            raise _conflict(idempotency_key, batch)
        return Submitted(batch, answer == "replayed")

    def join_batch(self, batch: str, owner: str, *, idempotency_key: str = "", fingerprint: str = "") -> None:
        """Say that jobs are about to be submitted into a batch that was opened earlier: the janitor's time to seal it begins anew.

        Raises NotFound, BatchSealed, and IdempotencyConflict.
        """
        answer, about = "missing", ""
        if is_id(JOB, batch):
            answer, about = self._scripts.join_batch(id=batch, owner=owner, idempotency=idempotency_key, fingerprint=fingerprint)
        if answer == "missing":
            raise NotFound(f"batch: there is no batch {batch[:80]!r}", code="job_not_found", param="batch")
        if answer == "sealed":
            raise BatchSealed(
                f"batch: no more can join {batch}, which is sealed and {about}; open another one",
                param="batch",
                details={"status": about},
            )
        if answer == "conflict":
            raise _conflict(idempotency_key, about)

    def seal_batch(self, batch: str) -> None:
        """No further job will join this batch."""
        self._scripts.seal_batch(id=batch)

    def replay(self, job: Job) -> Submitted:
        """Do an ended job again as a new job, which says of which it is the retry; a dead one leaves the list of the dead.

        Raises what ``submit`` does.
        """
        submitted = self.submit_job(
            Submission(
                kind=job.kind,
                queue=job.first_queue,
                spec=job.spec,
                owner=job.owner,
                model=job.model,
                session=job.session,
                document=job.document,
                retry_of=job.id,
                priority=job.priority,
                cost=job.cost,
                webhook=job.webhook,
                metadata=job.metadata,
            )
        )
        self._scripts.remove_dead_letter(id=job.id)
        return submitted

    def _keeping(self) -> dict[str, str | int]:
        return {"retention_ms": self._settings.job_retention_seconds * 1000, "event_limit": self._settings.event_limit}


def _told(webhook: Mapping[str, Any] | None) -> dict[str, str]:
    return {} if webhook is None else {"webhook": to_json(webhook)}


def _conflict(key: str, job: str) -> IdempotencyConflict:
    return IdempotencyConflict(
        f"Idempotency-Key {key[:80]!r} was used for another request, which made {job}; use a new key for a new request",
        param="Idempotency-Key",
        details={"job": job},
    )
