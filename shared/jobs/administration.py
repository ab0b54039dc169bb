"""Administration of the jobs of all owners: find them by a filter, and cancel, retry or delete what it matches.

Jobs are visited from the newest to the oldest, a limited number in each call, which returns where the next one continues.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import redis

from shared.errors import EnginehouseError
from shared.jobs.models import Job, Status
from shared.jobs.queries import JobQueries
from shared.jobs.submission import JobSubmitter
from shared.jobs.transitions import JobTransitions
from shared.redis_connection import PREFIX, redis_time_ms

BATCH = 200
# How many jobs one call looks at, so that it takes about a second.
MAX_SCANNED = 10_000

Action = Literal["cancel", "retry", "delete"]


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """What a job must have; None means anything. Ages are in seconds since its submission."""

    job: str | None = None
    owner: str | None = None
    queue: str | None = None
    status: str | None = None
    kind: str | None = None
    model: str | None = None
    older_than: float | None = None
    newer_than: float | None = None

    def matches(self, job: Job, now_ms: int) -> bool:
        """Whether a job passes the filter at this time."""
        names = ("owner", "queue", "status", "kind", "model")
        age = (now_ms - job.created_at) / 1000
        return (
            self.job in (None, job.id)
            and all(getattr(self, name) in (None, getattr(job, name)) for name in names)
            and (self.older_than is None or age > self.older_than)
            and (self.newer_than is None or age < self.newer_than)
        )


@dataclass
class Outcome:
    """What became of the jobs that a filter matched. ``refused`` counts the others by error code; ``next`` continues the visit."""

    matched: int = 0
    done: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    next: str | None = None


class JobAdministration:
    """Reads and changes the jobs of all owners in one Redis."""

    def __init__(self, client: redis.Redis, queries: JobQueries, transitions: JobTransitions, submitter: JobSubmitter) -> None:
        self._client: Any = client
        self._queries = queries
        self._transitions = transitions
        self._submitter = submitter

    def list_jobs(self, wanted: JobFilter, *, limit: int, after: str | None = None) -> tuple[list[Job], str | None]:
        """A page of matching jobs, newest first, after the id ``after``, and where the next page starts.

        The jobs have no result. A page may be short, even empty, although more follow: then the second value is not None.
        """
        found: list[Job] = []
        visit = _Visit(self, wanted, after)
        for job in visit:
            if len(found) == limit:
                return found, found[-1].id
            found.append(job)
        return found, visit.next

    def count_jobs(self, wanted: JobFilter, *, after: str | None = None) -> Outcome:
        """Count matching jobs and change nothing."""
        visit = _Visit(self, wanted, after)
        matched = sum(1 for _ in visit)
        return Outcome(matched=matched, next=visit.next)

    def change_jobs(self, action: Action, wanted: JobFilter, *, limit: int, after: str | None = None) -> Outcome:
        """Cancel, retry or delete up to ``limit`` matching jobs. A job to which the action does not apply is counted as refused.

        A job that was retried before is not retried again.
        """
        outcome, last = Outcome(), None
        visit = _Visit(self, wanted, after)
        for job in visit:
            if outcome.matched == limit:
                outcome.next = last
                return outcome
            outcome.matched += 1
            last = job.id
            refusal = self._change(action, job)
            if refusal:
                outcome.refused[refusal] += 1
            else:
                outcome.done += 1
        outcome.next = visit.next
        return outcome

    def _change(self, action: Action, job: Job) -> str:
        """Act on one job; returns "" or the code of the refusal."""
        if action == "cancel":
            result, _ = self._transitions.cancel(job.id, job.owner)
            return {"ended": "job_ended", "missing": "job_not_found"}.get(result, "")
        if action == "delete":
            deleted = self._transitions.delete(job.id, job.owner)
            return {"deleted": "", "missing": "job_not_found"}.get(deleted, "job_not_ended")
        if not job.status.final:
            return "job_not_ended"
        if job.kind == "batch":
            return "batch_not_retried"
        if job.retried_as:
            return "already_retried"
        if job.status is Status.COMPLETED:
            return "job_completed"
        try:
            self._submitter.replay(job)
        except EnginehouseError as error:
            return error.code
        return ""

    def read_jobs(self, wanted: JobFilter, after: str | None) -> Iterator[tuple[list[str], list[Job]]]:
        """Ids from the newest to the oldest, and those of their jobs that match."""
        now_ms = redis_time_ms(self._client)
        for ids in self._ids(wanted, after):
            yield ids, [job for job in self._queries.read_jobs(ids) if wanted.matches(job, now_ms)]

    def _ids(self, wanted: JobFilter, after: str | None) -> Iterator[list[str]]:
        if wanted.job is not None:
            yield [wanted.job]
            return
        owners = [wanted.owner] if wanted.owner is not None else sorted(self._client.smembers(f"{PREFIX}owners"))
        while owners:
            start = f"({after}" if after else "+"
            with self._client.pipeline(transaction=False) as pipeline:
                for owner in owners:
                    pipeline.zrange(f"{PREFIX}owner:{owner}:jobs", start, "-", desc=True, bylex=True, offset=0, num=BATCH)
                pages: list[list[str]] = pipeline.execute()
            # An owner whose page is full may have more jobs than it, which come after its last one.
            bound = max((page[-1] for page in pages if len(page) == BATCH), default="")
            ids = sorted((id for page in pages for id in page if id >= bound), reverse=True)
            for first in range(0, len(ids), BATCH):
                yield ids[first : first + BATCH]
            if not bound:
                return
            owners = [
                owner for owner, page in zip(owners, pages, strict=True) if len(page) == BATCH or (page and page[-1] < bound)
            ]
            after = bound


class _Visit:
    """One visit of the matching jobs. ``next`` is set if it ended before the oldest one."""

    def __init__(self, administration: JobAdministration, wanted: JobFilter, after: str | None) -> None:
        self._administration = administration
        self._wanted = wanted
        self._after = after
        self.next: str | None = None

    def __iter__(self) -> Iterator[Job]:
        scanned, last = 0, None
        for ids, jobs in self._administration.read_jobs(self._wanted, self._after):
            if scanned >= MAX_SCANNED:
                self.next = last
                return
            yield from jobs
            scanned += len(ids)
            last = ids[-1] if ids else last


def filter_from(values: Mapping[str, Any]) -> JobFilter:
    """A filter of the values that are set."""
    return JobFilter(**{name: value for name, value in values.items() if value is not None})
