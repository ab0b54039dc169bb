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
from shared.redis_connection import PREFIX, Scripts
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
        self._clock = clock
        self._scripts = Scripts(client, "shared.jobs.lua")

    def submit_job(self, submission: Submission) -> Submitted:
        """Write the job and ring for it. Sending the same submission again makes no second job.

        Raises NotFound when its session is gone, IdempotencyConflict, and TooMany when the queue is full.
        """
        settings = self._settings
        expires_ms = settings.max_queue_seconds * 1000
        if submission.expires_ms is not None:
            expires_ms = min(expires_ms, submission.expires_ms)
        fields: dict[str, str | int] = {
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
        answer, queue, about = self._run(
            "submit",
            submission.id,
            submission.owner,
            submission.session,
            submission.after,
            submission.wait_ms,
            expires_ms,
            "" if submission.timeout_ms is None else submission.timeout_ms,
            submission.idempotency_key,
            submission.fingerprint,
            settings.max_queued,
            settings.max_queued_per_owner,
            submission.parent,
            *(item for pair in fields.items() for item in pair),
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
        fields: dict[str, str | int] = {
            "spec": _json(spec),
            "metadata": _json(metadata or {}),
            "priority": 5,
            **_told(webhook),
            **self._keeping(),
        }
        pairs = [item for pair in fields.items() for item in pair]
        seal_ms = int(1000 * self._settings.seal_seconds)
        answer, batch = self._run("open_batch", id or new_id(JOB), owner, idempotency_key, fingerprint, seal_ms, *pairs)
        if answer == "conflict":
            raise _conflict(idempotency_key, batch)
        return Submitted(batch, answer == "replayed")

    def join_batch(self, batch: str, owner: str, *, idempotency_key: str = "", fingerprint: str = "") -> None:
        """Say that jobs are about to be submitted into a batch that was opened earlier: the janitor's time to seal it begins anew.

        Raises NotFound, BatchSealed, and IdempotencyConflict.
        """
        answer, about = "missing", ""
        if is_id(JOB, batch):
            answer, about = self._run("join_batch", batch, owner, idempotency_key, fingerprint)
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
        self._run("seal_batch", batch)

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
        return bool(self._run("remove_dead_letter", job))

    def dead_letters(self, limit: int = 100) -> list[Job]:
        """Jobs that lost too many attempts, the latest first."""
        ids: Any = self._client.zrange(f"{PREFIX}jobs:dead_letters", 0, limit - 1, desc=True)
        return [job for job in map(self.get_job, ids) if job is not None]

    def _keeping(self) -> dict[str, str | int]:
        return {"retention_ms": self._settings.job_retention_seconds * 1000, "event_limit": self._settings.event_limit}

    def claim(self, queue: str, worker: str, token: str) -> Job | None:
        """The next job of a queue, now held by this worker under a lease; None when there is none."""
        record, rung = self._run("claim", queue, worker, token, int(self._settings.lease_seconds * 1000))
        self._wake_for(rung)
        return from_record(_pairs(record)) if record else None

    def renew(self, worker: str, leases: Sequence[Lease]) -> list[Literal["ok", "cancel", "timeout", "lost"]]:
        """Keep leases; one word for each (see ``renew.lua``)."""
        if not leases:
            return []
        flat = [item for lease in leases for item in lease]
        words: list[Literal["ok", "cancel", "timeout", "lost"]]
        words = self._run("renew", worker, int(self._settings.lease_seconds * 1000), *flat)
        return words

    def append_events(self, events: Sequence[Event]) -> list[TransitionResult]:
        """Put events of many jobs on their streams in one go; one word for each."""
        if not events:
            return []
        flat: list[str | int] = []
        for event in events:
            flat += [event.job, event.attempt, event.index, event.type, _json(event.data), event.phase]
        words: list[TransitionResult] = self._run("append", *flat)
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
        answer, rung = self._run(
            "finish",
            *lease,
            status.value,
            _json(result) if result is not None else "",
            _json(error) if error is not None else "",
            str(error["code"]) if error is not None else "",
            "" if service is None else service,
            last.index if last else 0,
            _json(last.data) if last else "",
            *(_json(message) for message in messages),
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
        answer, rung = self._run("hand_over", *lease, outcome, queue, context)
        self._wake_for(rung)
        return answer

    def retry(self, lease: Lease, retries: int, error: Mapping[str, Any]) -> Literal["ok", "failed", "lost"]:
        """Try a job again later, after a fault that may pass: 1, 4, 16 … seconds and up to half as much again."""
        delay_ms = int(min(1000 * 4**retries, 60_000) * random.uniform(1, 1.5))
        answer: Literal["ok", "failed", "lost"]
        answer, rung = self._run("retry", *lease, delay_ms, _json(error), str(error["code"]))
        self._wake_for(rung)
        return answer

    def cancel(self, job: str, owner: str) -> tuple[Literal["cancelled", "requested", "ended", "missing"], str]:
        """Wish a job away; what became of the wish, and the job's status."""
        answer, status, rung = self._run("cancel", job, owner)
        self._wake_for(rung)
        return answer, status

    def delete(self, job: str, owner: str) -> str:
        """Forget an ended job: 'deleted', 'missing', or the status of a job that has not ended."""
        answer: str = self._run("delete", job, owner)
        return answer

    def reap(
        self, *, limit: int = 200, leases: bool = True, gap_ms: int | None = None, grace_ms: int = 0
    ) -> tuple[int, list[str]]:
        """Attend to jobs whose time has come; how many, and which attempts were lost. ``leases=False`` judges no lease.

        When nobody has reaped for ``gap_ms``, no lease is judged for ``grace_ms``, as nobody could renew one either.
        """
        looked_at, lost, rung = self._run("reap", limit, 1 if leases else 0, "" if gap_ms is None else gap_ms, grace_ms)
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
        lost, rung = self._run("mark_worker_dead", worker)
        self._wake_for(rung)
        return list(lost)

    def missing_wakeups(self, interval_ms: int) -> dict[str, int]:
        """Issue the tickets that queues lack; how many for which queue."""
        flat = self._run("missing_wakeups", interval_ms)
        missing = {queue: int(count) for queue, count in zip(flat[::2], flat[1::2], strict=True)}
        for queue, count in missing.items():
            self._wake(queue, count)
        return missing

    def schedule_models(self, *, patience_ms: int, limit: int = 200) -> tuple[dict[str, str], list[str]]:
        """Wish for the models that jobs wait for and nobody holds: model and worker's name. And the jobs that were ended as no
        living worker could hold their model. A silent worker keeps its seat for ``patience_ms``."""
        settings = self._settings
        alive_ms, unschedulable_ms = int(3000 * settings.renew_seconds), int(1000 * settings.unschedulable_seconds)
        given, ended, rung = self._run(
            "schedule_models", alive_ms, patience_ms, int(settings.load_on_demand), unschedulable_ms, limit
        )
        self._wake_for(rung)
        return dict(zip(given[::2], given[1::2], strict=True)), list(ended)

    def purge(self, limit: int = 200) -> int:
        """Drop what is left of jobs that have outlived their retention; how many traces."""
        return int(self._run("purge", limit))

    def get_job(self, job: str) -> Job | None:
        """The job as it stands."""
        record: Any = self._client.hgetall(PREFIX + "job:" + job)
        return from_record(record) if record else None

    def _run(self, name: str, *arguments: str | int | float) -> Any:
        return self._scripts.run(name, [self._clock() if self._clock else "", *arguments])

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
