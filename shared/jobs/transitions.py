"""Every move of a job, by its verb. Each is one Lua script (``lua/``, whose headers say what each promises).

A move that makes jobs claimable rings for them afterwards: the record comes first, the ticket second, and the janitor
issues what was not rung. Nothing here knows HTTP, engines or documents.
"""

import json
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import redis

from shared.errors import BatchSealed, IdempotencyConflict, NotFound, TooMany
from shared.ids import JOB, is_id, new_id
from shared.jobs.models import Job, Status, from_record
from shared.jobs.scripts import JobScripts
from shared.lua_scripts import Value
from shared.redis_connection import PREFIX
from shared.settings import Settings

logger = logging.getLogger(__name__)

Wake = Callable[[str, int], None]
Lease = tuple[str, int]  # job id, attempt number

# What an ended attempt may answer: the job moved, or the attempt was no longer the current one.
TransitionResult = Literal["ok", "lost"]


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


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that an attempt tells while it runs; ``index`` counts them from 1 within the attempt."""

    job: str
    attempt: int
    index: int
    type: Literal["delta", "progress"]
    data: Mapping[str, Any]
    phase: str = ""


@dataclass(frozen=True)
class Submitted:
    """What became of a submission: the job, and whether an earlier one with the same Idempotency-Key answers for it."""

    id: str
    replayed: bool = False


class Lifecycle:
    """The verbs, over one Redis. Safe to use from many threads.

    ``ring`` issues tickets (queue, how many); ``clock`` gives Unix milliseconds and is for tests: in service Redis' own
    clock rules, as a worker's may be wrong by an hour.
    """

    def __init__(self, client: redis.Redis, settings: Settings, ring: Wake, *, clock: Callable[[], int] | None = None) -> None:
        self._client = client
        self._settings = settings
        self._wake = ring
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
            "spec": _json(submission.spec),
            "metadata": _json(submission.metadata),
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
        self._wake_for([queue] if queue else [])
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
            "spec": _json(spec),
            "metadata": _json(metadata or {}),
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
        self.remove_dead_letter(job.id)
        return submitted

    def remove_dead_letter(self, job: str) -> bool:
        """Take a job off the list of the dead; whether it was there. Its record stays."""
        return bool(self._scripts.remove_dead_letter(id=job))

    def dead_letters(self, limit: int = 100) -> list[Job]:
        """Jobs that lost too many attempts, the latest first."""
        ids: Any = self._client.zrange(f"{PREFIX}jobs:dead_letters", 0, limit - 1, desc=True)
        return [job for job in map(self.get_job, ids) if job is not None]

    def _keeping(self) -> dict[str, str | int]:
        return {"retention_ms": self._settings.job_retention_seconds * 1000, "event_limit": self._settings.event_limit}

    def claim(self, queue: str, worker: str, token: str) -> Job | None:
        """The next job of a queue, now held by this worker under a lease; None when there is none."""
        record, rung = self._scripts.claim(
            queue=queue, worker=worker, token=token, lease_ms=int(self._settings.lease_seconds * 1000)
        )
        self._wake_for(rung)
        return from_record(_pairs(record)) if record else None

    def renew(self, worker: str, leases: Sequence[Lease]) -> list[Literal["ok", "cancel", "timeout", "lost"]]:
        """Keep leases; one word for each (see ``renew.lua``)."""
        if not leases:
            return []
        words: list[Literal["ok", "cancel", "timeout", "lost"]]
        words = self._scripts.renew(
            lease_ms=int(self._settings.lease_seconds * 1000),
            leases=[{"id": job, "attempt": attempt} for job, attempt in leases],
        )
        return words

    def append_events(self, events: Sequence[Event]) -> list[TransitionResult]:
        """Put events of many jobs on their streams in one go; one word for each."""
        if not events:
            return []
        words: list[TransitionResult] = self._scripts.append(
            events=[
                {
                    "job": event.job,
                    "attempt": event.attempt,
                    "index": event.index,
                    "kind": event.type,
                    "data": _json(event.data),
                    "phase": event.phase,
                }
                for event in events
            ]
        )
        return words

    def finish(
        self,
        lease: Lease,
        status: Literal[Status.COMPLETED, Status.FAILED, Status.CANCELLED],
        *,
        result: Mapping[str, Any] | None = None,
        error: Mapping[str, Any] | None = None,
        service: int | None = None,
        last: Event | None = None,
        messages: Iterable[Mapping[str, Any]] = (),
    ) -> TransitionResult:
        """End a job: its last delta, status, result and session messages in one move. ``service`` is what it has used."""
        answer: TransitionResult
        answer, rung = self._scripts.finish(
            id=lease[0],
            attempt=lease[1],
            status=status.value,
            result=_json(result) if result is not None else "",
            error=_json(error) if error is not None else "",
            code=str(error["code"]) if error is not None else "",
            service=service,
            index=last.index if last else 0,
            delta=_json(last.data) if last else "",
            messages=[_json(message) for message in messages],
        )
        self._wake_for(rung)
        return answer

    def hand_over(self, lease: Lease, queue: str, context: Mapping[str, Any]) -> TransitionResult:
        """Give a job to the queue of its next phase, with what this phase has found out."""
        return self._hand_over(lease, "handed_over", queue, _json(context))

    def release(self, lease: Lease, queue: str) -> TransitionResult:
        """Give a job back unfinished because this worker stops; costs the job nothing."""
        return self._hand_over(lease, "released", queue, "")

    def _hand_over(self, lease: Lease, outcome: str, queue: str, context: str) -> TransitionResult:
        answer: TransitionResult
        answer, rung = self._scripts.hand_over(id=lease[0], attempt=lease[1], outcome=outcome, queue=queue, context=context)
        self._wake_for(rung)
        return answer

    def retry(self, lease: Lease, retries: int, error: Mapping[str, Any]) -> Literal["ok", "failed", "lost"]:
        """Try a job again later, after a fault that may pass: 1, 4, 16 … seconds and up to half as much again."""
        delay_ms = int(min(1000 * 4**retries, 60_000) * random.uniform(1, 1.5))
        answer: Literal["ok", "failed", "lost"]
        answer, rung = self._scripts.retry(
            id=lease[0], attempt=lease[1], delay_ms=delay_ms, error=_json(error), code=str(error["code"])
        )
        self._wake_for(rung)
        return answer

    def cancel(self, job: str, owner: str) -> tuple[Literal["cancelled", "requested", "ended", "missing"], str]:
        """Wish a job away; what became of the wish, and the job's status."""
        answer, status, rung = self._scripts.cancel(id=job, owner=owner)
        self._wake_for(rung)
        return answer, status

    def delete(self, job: str, owner: str) -> str:
        """Forget an ended job: 'deleted', 'missing', or the status of a job that has not ended."""
        answer: str = self._scripts.delete(id=job, owner=owner)
        return answer

    def reap(
        self, *, limit: int = 200, leases: bool = True, gap_ms: int | None = None, grace_ms: int = 0
    ) -> tuple[int, list[str]]:
        """Attend to jobs whose time has come; how many, and which attempts were lost. ``leases=False`` judges no lease.

        When nobody has reaped for ``gap_ms``, no lease is judged for ``grace_ms``, as nobody could renew one either.
        """
        looked_at, lost, rung = self._scripts.reap(limit=limit, leases=int(leases), gap_ms=gap_ms, grace_ms=grace_ms)
        self._wake_for(rung)
        return looked_at, lost

    def reaps_steadily(self) -> bool:
        """Whether somebody has been reaping without a gap; after one, silence proves nobody's death."""
        with self._client.pipeline() as pipeline:
            pipeline.exists(PREFIX + "reaping")
            pipeline.exists(PREFIX + "reaping:resumed")
            return pipeline.execute() == [1, 0]

    def mark_worker_dead(self, worker: str) -> list[str]:
        """Take all jobs from a worker known to be dead; their ids."""
        lost, rung = self._scripts.mark_worker_dead(worker=worker)
        self._wake_for(rung)
        return list(lost)

    def missing_wakeups(self, interval_ms: int) -> dict[str, int]:
        """Issue the tickets that queues lack; how many for which queue."""
        flat = self._scripts.missing_wakeups(interval_ms=interval_ms)
        missing = {queue: int(count) for queue, count in zip(flat[::2], flat[1::2], strict=True)}
        for queue, count in missing.items():
            self._wake(queue, count)
        return missing

    def schedule_models(self, *, patience_ms: int, limit: int = 200) -> tuple[dict[str, str], list[str]]:
        """Wish for the models that jobs wait for and nobody holds: model and worker's name. And the jobs that were ended as no
        living worker could hold their model. A silent worker keeps its seat for ``patience_ms``."""
        settings = self._settings
        given, ended, rung = self._scripts.schedule_models(
            alive_ms=int(3000 * settings.renew_seconds),
            patience_ms=patience_ms,
            on_demand=int(settings.load_on_demand),
            unschedulable_ms=int(1000 * settings.unschedulable_seconds),
            limit=limit,
        )
        self._wake_for(rung)
        return dict(zip(given[::2], given[1::2], strict=True)), list(ended)

    def purge(self, limit: int = 200) -> int:
        """Drop what is left of jobs that have outlived their retention; how many traces."""
        return int(self._scripts.purge(limit=limit))

    def get_job(self, job: str) -> Job | None:
        """The job as it stands."""
        record: Any = self._client.hgetall(PREFIX + "job:" + job)
        return from_record(record) if record else None

    def _wake_for(self, queues: Sequence[str]) -> None:
        for queue in set(queues):
            try:
                self._wake(queue, queues.count(queue))
            except Exception as error:  # noqa: BLE001 the job is safe: its record is written, and the janitor rings for it
                logger.warning("no ticket for queue %s (%s); the janitor will issue it", queue, error)


def _told(webhook: Mapping[str, Any] | None) -> dict[str, str]:
    return {} if webhook is None else {"webhook": _json(webhook)}


def _conflict(key: str, job: str) -> IdempotencyConflict:
    return IdempotencyConflict(
        f"Idempotency-Key {key[:80]!r} was used for another request, which made {job}; use a new key for a new request",
        param="Idempotency-Key",
        details={"job": job},
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} cannot be stored as JSON")


def _pairs(flat: Sequence[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
