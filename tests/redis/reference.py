"""Reference implementation of the job transitions, in plain Python and without optimizations.

The state machine test sends every transition to Redis and to this model and compares the results. Times are Unix milliseconds,
or ``inf`` if there is none.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from shared.jobs.queue_snapshot import user_digest
from shared.jobs.submission import Submission
from shared.jobs.usage import USAGE_FIELDS, Usage, UsageTotals
from shared.settings import Settings

FINAL = ("completed", "failed", "cancelled", "expired")
RECANCEL_MS = 1000
WATCH_MS = 30_000

Lease = tuple[str, int]


@dataclass
class Job:
    """One job, or a batch of jobs if ``kind`` is "batch". ``due`` is None once it has ended."""

    id: str
    owner: str
    created_at: int
    expires_at: float
    kind: str = "generate"
    queue: str = ""
    first_queue: str = ""
    end_user: str = ""
    user_cost: int = 0
    model: str = ""
    priority: int = 5
    cost: int = 1
    usage: Usage = field(default_factory=Usage)
    timeout_at: float = inf
    concurrency_key: str = ""
    concurrency_limit: int = 1
    session: str = ""
    after: str = ""
    parent: str = ""
    status: str = "queued"
    waiting: str = ""
    left_to_reap: bool = False
    not_before: float = -inf
    due: float | None = inf
    attempt: int = 0
    attempt_started_at: int = 0
    renewed_at: int = 0
    worker: str = ""
    lost: int = 0
    retries: int = 0
    started: bool = False
    cancel_requested: bool = False
    written: int = 0
    shown: bool = False
    result: object = None
    code: str | None = None
    outcomes: dict[int, str] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    sealed: bool = False
    children: int = 0
    open: set[str] = field(default_factory=set)
    ended_children: Counter[str] = field(default_factory=Counter)

    @property
    def sharer(self) -> tuple[str, str, str]:
        """Queue, owner and end user."""
        return self.queue, self.owner, user_digest(self.end_user)

    @property
    def final(self) -> bool:
        return self.status in FINAL

    @property
    def claimable(self) -> bool:
        return self.status == "queued" and self.waiting == "worker" and not self.left_to_reap

    @property
    def urgency(self) -> tuple[int, int, str]:
        """Sort key among the jobs of one owner."""
        return self.priority, self.created_at, self.id

    def deadline(self) -> float:
        """When a queued job must be reaped. A job that has been started does not expire; it only has a timeout."""
        return min(self.timeout_at, inf if self.started else self.expires_at)


class Reference:
    """All jobs, with a method per transition that returns the expected result."""

    def __init__(self, clock: Callable[[], int], settings: Settings, weights: dict[str, float]) -> None:
        self._clock = clock
        self._settings = settings
        self._weights = weights
        self.jobs: dict[str, Job] = {}
        self.index: dict[str, str] = {}  # job -> owner, until purged
        self.dead: set[str] = set()
        self.service: Counter[tuple[str, str]] = Counter()  # by queue and owner: tokens / weight
        self.level: Counter[str] = Counter()  # by queue: the service of the owner whose job was claimed last
        # By queue, owner and end user: tokens received, and those that running jobs are expected to use, which are part of them.
        self.user_service: Counter[tuple[str, str, str]] = Counter()
        self.user_running: Counter[tuple[str, str, str]] = Counter()
        self.user_level: dict[tuple[str, str], float] = {}  # by queue and owner: from where new end users start
        self.by_user: set[tuple[str, str]] = set()  # queues and owners with jobs of end users
        self.wakeups: Counter[str] = Counter()  # by queue: how often a job has become claimable
        self.ledger: dict[tuple[str, str, str, str | None], UsageTotals] = {}  # by owner, kind, model and end user
        self._tokens: dict[str, Lease] = {}
        self._keys: dict[tuple[str, str], tuple[str, str]] = {}
        self._newest: dict[str, str] = {}  # session -> job

    def claimable(self, queue: str, owner: str | None = None) -> list[Job]:
        return [job for job in self.jobs.values() if job.claimable and job.queue == queue and owner in (None, job.owner)]

    def find_earlier(self, job: str, owner: str, key: str, fingerprint: str) -> tuple[str, str] | None:
        """The result for an id or Idempotency-Key that was used before."""
        if job in self.jobs:
            return "exists", job
        if not key or (owner, key) not in self._keys:
            return None
        earlier, earlier_fingerprint = self._keys[owner, key]
        return ("replayed" if earlier_fingerprint == fingerprint else "conflict"), earlier

    def submit(self, submission: Submission) -> tuple[str, str]:
        owner, queue, now = submission.owner, submission.queue, self._clock()
        earlier = self.find_earlier(submission.id, owner, submission.idempotency_key, submission.fingerprint)
        if earlier:
            return earlier
        if len(self.claimable(queue, owner)) >= self._settings.max_queued_per_owner:
            return "owner_full", ""
        if len(self.claimable(queue)) >= self._settings.max_queued:
            return "queue_full", ""
        max_queue_ms = 1000 * self._settings.max_queue_seconds
        job = Job(
            id=submission.id,
            owner=owner,
            created_at=now,
            expires_at=now + (max_queue_ms + submission.wait_ms if submission.expires_ms is None else submission.expires_ms),
            timeout_at=inf if submission.timeout_ms is None else now + submission.timeout_ms,
            not_before=now + submission.wait_ms,
            queue=queue,
            first_queue=queue,
            end_user=submission.end_user,
            kind=submission.kind,
            model=submission.model,
            priority=submission.priority,
            cost=submission.cost,
            concurrency_key=submission.concurrency_key,
            concurrency_limit=submission.concurrency_limit,
            session=submission.session,
            parent=submission.parent,
        )
        if job.session:
            job.after = self._newest.get(job.session, "")
            self._newest[job.session] = job.id
        self._write(job, "queued", submission.idempotency_key, submission.fingerprint)
        batch = self.jobs.get(job.parent)
        if batch and not batch.final:
            batch.open.add(job.id)
            batch.children += 1
            self._keep_open(batch)
        predecessor = self.jobs.get(job.after)
        if batch and batch.cancel_requested:
            self._finish(job, "cancelled")
        elif predecessor and not predecessor.final:
            job.waiting, job.due = "after", job.deadline()
        else:
            self._make_ready(job)
        return "created", job.id

    def submit_together(self, submissions: Sequence[Submission]) -> str:
        """Submit new jobs of one owner to one queue, all or none; returns "created" or the refusal."""
        owner, queue, number = submissions[0].owner, submissions[0].queue, len(submissions)
        if len(self.claimable(queue, owner)) + number > self._settings.max_queued_per_owner:
            return "owner_full"
        if len(self.claimable(queue)) + number > self._settings.max_queued:
            return "queue_full"
        for submission in submissions:
            self.submit(submission)
        return "created"

    def open_batch(self, batch: Job, *, key: str = "", fingerprint: str = "") -> tuple[str, str]:
        earlier = self.find_earlier(batch.id, batch.owner, key, fingerprint)
        if earlier:
            return earlier
        self._write(batch, "started", key, fingerprint)
        batch.kind, batch.status, batch.started = "batch", "in_progress", True
        self._keep_open(batch)
        return "created", batch.id

    def join(self, batch_id: str, owner: str, *, key: str = "", fingerprint: str = "") -> tuple[str, str]:
        batch = self.jobs.get(batch_id)
        if batch is None or batch.kind != "batch" or batch.owner != owner:
            return "missing", ""
        if batch.final or batch.sealed:
            return "sealed", batch.status
        earlier, earlier_fingerprint = self._keys.setdefault((owner, key), (batch_id, fingerprint)) if key else ("", fingerprint)
        if earlier_fingerprint != fingerprint:
            return "conflict", earlier
        self._keep_open(batch)
        return "joined", ""

    def seal(self, batch_id: str) -> None:
        batch = self.jobs.get(batch_id)
        if batch and not batch.final and not batch.sealed:
            batch.sealed, batch.due = True, inf
            self._finish_batch_if_done(batch)

    def claim(self, queue: str, worker: str, token: str) -> Lease | None:
        if token in self._tokens:
            job_id, attempt = self._tokens[token]
            job = self.jobs.get(job_id)
            return (job_id, attempt) if job and job.attempt == attempt and job.status == "in_progress" else None
        while waiting := self.claimable(queue):
            owner = min((self.service[queue, job.owner], job.owner) for job in waiting)[1]
            mine = [job for job in waiting if job.owner == owner]
            if (queue, owner) in self.by_user:
                user = min((self.user_service[job.sharer], job.sharer) for job in mine)[1]
                mine = [job for job in mine if job.sharer == user]
            job = min(mine, key=lambda job: job.urgency)
            if job.deadline() <= self._clock():
                job.left_to_reap, job.due = True, self._clock()
            elif job.concurrency_key and self._running(job) >= job.concurrency_limit:
                job.waiting, job.due = "concurrency", job.deadline()
                self._watch_first(job)
            else:
                self._start(job, worker)
                self._tokens[token] = (job.id, job.attempt)
                return job.id, job.attempt
        return None

    def append(self, lease: Lease, index: int) -> str:
        job = self._held(lease)
        if job is None:
            return "lost"
        if index > job.written:
            job.written, job.shown = index, True
            job.events.append("delta")
        return "ok"

    def renew(self, lease: Lease) -> str:
        job = self._held(lease)
        if job is None:
            return "lost" if self._outcome(lease) in (None, "lost") else "settled"
        job.renewed_at = self._clock()
        job.due = self._clock() + 1000 * self._settings.lease_seconds
        return "cancel" if job.cancel_requested else "timeout" if job.timeout_at <= self._clock() else "ok"

    def end(self, lease: Lease, status: str, *, result: object, code: str | None, service: int | None, usage: Usage) -> str:
        job = self._held(lease)
        if job is None:
            return "ok" if self._outcome(lease) == status else "lost"
        self._use(job, usage)
        self._stop(job)
        if service is not None:
            self._add_service(job, service - job.cost)
            self._add_user_service(job, service - job.user_cost)
        job.outcomes[job.attempt] = status
        self._finish(job, status, result=result, code=code)
        return "ok"

    def hand_over(self, lease: Lease, outcome: str, queue: str, usage: Usage) -> str:
        job = self._held(lease)
        if job is None:
            return "ok" if self._outcome(lease) == outcome else "lost"
        self._use(job, usage)
        self._stop(job)
        job.outcomes[job.attempt] = outcome
        job.queue = queue
        if job.cancel_requested:
            self._finish(job, "cancelled")
        else:
            self._requeue(job, 0)
        return "ok"

    def retry(self, lease: Lease, delay_ms: int, code: str, usage: Usage) -> str:
        job = self._held(lease)
        if job is None:
            return {"retried": "ok", "cancelled": "ok", "failed": "failed"}.get(self._outcome(lease) or "", "lost")
        self._use(job, usage)
        self._stop(job)
        if job.cancel_requested:
            job.outcomes[job.attempt] = "cancelled"
            self._finish(job, "cancelled")
        elif job.retries >= self._settings.max_retries:
            job.outcomes[job.attempt] = "failed"
            self._finish(job, "failed", code=code)
            return "failed"
        else:
            job.outcomes[job.attempt] = "retried"
            job.retries += 1
            self._requeue(job, delay_ms)
        return "ok"

    def cancel(self, job_id: str, owner: str) -> tuple[str, str]:
        job = self.jobs.get(job_id)
        if job is None or job.owner != owner:
            return "missing", ""
        if job.final:
            return "ended", job.status
        self._cancel(job)
        return ("cancelled" if job.final else "requested"), job.status

    def reap(self, *, leases: bool) -> tuple[int, list[str]]:
        now, processed = self._clock(), 0
        lost: list[str] = []
        due = sorted((job.due, job.id) for job in self.jobs.values() if job.due is not None and job.due <= now)
        for _, job_id in due:
            job = self.jobs[job_id]
            processed += 1
            if job.final:
                continue
            if job.kind == "batch" and job.cancel_requested:
                self._cancel(job)
            elif job.kind == "batch" and job.open:
                self._keep_open(job)
            elif job.kind == "batch":
                job.due = inf
                job.sealed = True
                self._finish_batch_if_done(job)
            elif job.status == "in_progress":
                if leases:
                    lost.append(job.id)
                    self._mark_attempt_lost(job)
                else:
                    processed -= 1
            elif job.timeout_at <= now:
                self._finish(job, "failed", code="timeout")
            elif job.expires_at <= now and not job.started:
                self._finish(job, "expired")
            elif job.waiting == "concurrency":
                job.due = job.deadline()
                self._wake(job)
            elif job.waiting == "retry_at" and job.not_before <= now:
                self._enqueue(job)
            else:  # another job of this round has made it claimable
                job.due = job.deadline()
        return processed, lost

    def mark_worker_dead(self, worker: str) -> list[str]:
        held = sorted(job.id for job in self.jobs.values() if job.worker == worker and job.status == "in_progress")
        for job_id in held:
            self._mark_attempt_lost(self.jobs[job_id])
        return held

    def delete(self, job_id: str, owner: str) -> str:
        job = self.jobs.get(job_id)
        if job is None or job.owner != owner:
            return "missing"
        if not job.final:
            return job.status
        del self.jobs[job_id]
        del self.index[job_id]
        self.dead.discard(job_id)
        # An Idempotency-Key is forgotten with its job.
        self._keys = {key: request for key, request in self._keys.items() if request[0] != job_id}
        return "deleted"

    def rename(self, job_id: str, new_id: str) -> None:
        """Give a job the id that the server generated."""
        job = self.jobs.pop(job_id)
        job.id = new_id
        self.jobs[new_id] = job
        self.index[new_id] = self.index.pop(job_id)
        if self._newest.get(job.session) == job_id:
            self._newest[job.session] = new_id

    def remove_dead_letter(self, job_id: str) -> bool:
        existed = job_id in self.dead
        self.dead.discard(job_id)
        return existed

    def _write(self, job: Job, event: str, key: str, fingerprint: str) -> None:
        self.jobs[job.id] = job
        self.index[job.id] = job.owner
        job.events.append(event)
        if key:
            self._keys[job.owner, key] = (job.id, fingerprint)

    def _held(self, lease: Lease) -> Job | None:
        """The job of a lease, if the lease is current."""
        job = self.jobs.get(lease[0])
        return job if job and job.status == "in_progress" and job.attempt == lease[1] else None

    def _outcome(self, lease: Lease) -> str | None:
        job = self.jobs.get(lease[0])
        return job.outcomes.get(lease[1]) if job else None

    def _use(self, job: Job, usage: Usage) -> None:
        before = replace(job.usage)
        for name in USAGE_FIELDS:
            combine = sum if name in ("embedding_tokens", "gpu_ms", "lost_ms") else max
            setattr(job.usage, name, combine((getattr(before, name), getattr(usage, name))))

    def _add_service(self, job: Job, tokens: int) -> None:
        self.service[job.queue, job.owner] += tokens / self._weights.get(job.owner, 1)  # type: ignore[assignment]

    def _add_user_service(self, job: Job, tokens: int) -> None:
        if not job.end_user and not self._shares_by_user(job):
            return
        if not self._waits(job.sharer):
            self._level_user(job.sharer)
        self.user_service[job.sharer] += tokens

    def _shares_by_user(self, job: Job) -> bool:
        share = job.queue, job.owner
        return share in self.user_level or (share in self.by_user and bool(self.claimable(*share)))

    def _waits(self, sharer: tuple[str, str, str]) -> bool:
        return any(job.sharer == sharer for job in self.claimable(sharer[0], sharer[1]))

    def _level_user(self, sharer: tuple[str, str, str]) -> None:
        """Give an end user without a job in the queue what a new one starts with."""
        start = self.user_level.get(sharer[:2], 0) + self.user_running[sharer]
        self.user_service[sharer] = max(self.user_service[sharer], start)  # type: ignore[assignment]

    def _enqueue(self, job: Job) -> None:
        others = [self.service[job.queue, other.owner] for other in self.claimable(job.queue)]
        if not self.claimable(job.queue, job.owner):
            minimum = min(others, default=self.level[job.queue])
            self.service[job.queue, job.owner] = max(self.service[job.queue, job.owner], minimum)
        share = job.queue, job.owner
        if not self.claimable(*share):
            self.by_user.discard(share)
        if job.end_user and share not in self.by_user:
            self.by_user.add(share)
            if self.claimable(*share):
                self._level_user((*share, user_digest("")))
        if share in self.by_user and not self._waits(job.sharer):
            self._level_user(job.sharer)
        job.waiting, job.due = "worker", job.deadline()
        self.wakeups[job.queue] += 1

    def _make_ready(self, job: Job) -> None:
        if job.not_before > self._clock():
            job.waiting, job.due = "retry_at", min(job.not_before, job.deadline())
        else:
            self._enqueue(job)

    def _start(self, job: Job, worker: str) -> None:
        self.level[job.queue] = self.service[job.queue, job.owner]
        by_user = (job.queue, job.owner) in self.by_user
        settled = self.user_service[job.sharer] - self.user_running[job.sharer]
        job.user_cost = job.cost if by_user else 0
        job.status, job.waiting = "in_progress", ""
        self._add_service(job, job.cost)
        if by_user:
            self._add_user_service(job, job.cost)
            self.user_running[job.sharer] += job.cost
            self.user_level[job.queue, job.owner] = max(self.user_level.get((job.queue, job.owner), 0), settled)
        job.status, job.waiting, job.worker, job.started = "in_progress", "", worker, True
        job.attempt += 1
        job.attempt_started_at = job.renewed_at = self._clock()
        job.written = 0
        job.due = self._clock() + 1000 * self._settings.lease_seconds
        job.events.append("started")

    def _requeue(self, job: Job, delay_ms: int) -> None:
        job.status = "queued"
        job.events.append("requeued")
        job.not_before = self._clock() + delay_ms
        self._make_ready(job)

    def _running(self, job: Job) -> int:
        """How many jobs with the concurrency key of this job run."""
        key = job.owner, job.concurrency_key
        return sum(other.status == "in_progress" and (other.owner, other.concurrency_key) == key for other in self.jobs.values())

    def _parked(self, job: Job) -> list[Job]:
        """The jobs with the concurrency key of this job that wait for others, in their order."""
        key = job.owner, job.concurrency_key
        parked = (other for other in self.jobs.values() if other.waiting == "concurrency")
        return sorted((other for other in parked if (other.owner, other.concurrency_key) == key), key=lambda job: job.urgency)

    def _watch_first(self, job: Job) -> None:
        for first in self._parked(job)[:1]:
            first.due = min(self._clock() + WATCH_MS, first.deadline())

    def _wake(self, job: Job) -> None:
        """Return as many parked jobs with the concurrency key of this job to their queues as may start."""
        running = self._running(job)
        for parked in self._parked(job):
            if running >= parked.concurrency_limit:
                break
            self._enqueue(parked)
            running += 1
        self._watch_first(job)

    def _stop(self, job: Job) -> None:
        """A job in progress leaves its worker."""
        self.user_running[job.sharer] -= job.user_cost
        job.status = "stopping"
        if job.concurrency_key:
            self._wake(job)

    def _mark_attempt_lost(self, job: Job) -> None:
        self._stop(job)
        self._use(job, Usage(lost_ms=job.renewed_at - job.attempt_started_at))
        job.outcomes[job.attempt] = "lost"
        job.lost += 1
        job.events.append("attempt_lost")
        if job.cancel_requested:
            self._finish(job, "cancelled")
        elif job.lost >= self._settings.max_attempts:
            self.dead.add(job.id)
            self._finish(job, "failed", code="worker_lost")
        else:
            self._requeue(job, 0 if job.lost == 1 else min(1000 * 2 ** (job.lost - 1), 60_000))

    def _cancel(self, job: Job) -> None:
        job.cancel_requested = True
        if job.status == "queued":
            self._finish(job, "cancelled")
        elif job.kind == "batch":
            job.sealed, job.due = True, self._clock() + RECANCEL_MS
            for child in sorted(job.open):
                self._cancel(self.jobs[child])
            self._finish_batch_if_done(job)

    def _keep_open(self, batch: Job) -> None:
        if not batch.final and not batch.sealed:
            batch.due = self._clock() + 1000 * self._settings.seal_seconds

    def _finish_batch_if_done(self, batch: Job) -> None:
        if not batch.final and batch.sealed and not batch.open:
            self._finish(batch, "cancelled" if batch.cancel_requested else "completed")

    def _finish(self, job: Job, status: str, *, result: object = None, code: str | None = None) -> None:
        waited_for = self.jobs.get(job.after) if job.waiting == "after" else None
        was_queued, was_parked = job.status == "queued", job.waiting == "concurrency"
        job.status, job.waiting, job.due, job.result, job.code = status, "", None, result, code
        if job.concurrency_key and was_queued and not was_parked:
            self._wake(job)
        job.events.append("ended")
        totals = self.ledger.setdefault((job.owner, job.kind, job.model, job.end_user or None), UsageTotals())
        totals.add(UsageTotals(**vars(job.usage), jobs=1))
        for successor in self._successors(job):
            if waited_for and not waited_for.final:
                successor.after = waited_for.id
            else:
                self._make_ready(successor)
        batch = self.jobs.get(job.parent)
        if batch and job.id in batch.open:
            batch.open.remove(job.id)
            batch.ended_children[status] += 1
            self._keep_open(batch)
            self._finish_batch_if_done(batch)

    def _successors(self, job: Job) -> Iterable[Job]:
        return [other for other in self.jobs.values() if other.waiting == "after" and other.after == job.id]
