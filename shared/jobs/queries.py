"""Job queries: single records, pages of an owner's jobs, and the position of a queued job.

Queries change nothing. They leave out a job whose record expired after its id was read from an index.
"""

import json
from collections.abc import Iterator
from typing import Any

import redis

from shared.jobs.job_filter import JobFilter
from shared.jobs.job_index import BATCH, JobCounts, JobIndex
from shared.jobs.models import Job, Status, from_record
from shared.jobs.queue_snapshot import QueueSnapshot, read_snapshot, user_digest
from shared.jobs.worker_registry import WorkerRegistry
from shared.lua_scripts import Clock
from shared.redis_connection import PREFIX, redis_time_ms

DEAD_LETTERS = f"{PREFIX}jobs:dead_letters"

# Of the owners who wait in a queue, this many with the least service are examined.
WAITING_OWNERS = 100

# How many records one call reads for a filter that the index cannot answer alone, so that it takes a fraction of a second.
MAX_SCANNED = 2000


class JobQueries:
    """Reads jobs from one Redis. Safe to use from many threads; ``clock`` gives Unix milliseconds and is for tests."""

    def __init__(self, client: redis.Redis, *, clock: Clock | None = None) -> None:
        self._client: Any = client  # redis-py types every response as possibly awaitable
        self._clock = clock
        self._now_ms = clock or (lambda: redis_time_ms(client))
        self._index = JobIndex(client)

    def list_jobs(self, owner: str, *, limit: int, after: str | None = None) -> tuple[list[Job], str | None]:
        """A page of the owner's jobs, as ``find_jobs``."""
        return self.find_jobs(JobFilter(owner=owner), limit=limit, after=after)

    def find_jobs(
        self, wanted: JobFilter, *, limit: int, after: str | None = None, max_scanned: int = MAX_SCANNED
    ) -> tuple[list[Job], str | None]:
        """A page of matching jobs, newest first, after the id ``after``, and where the next page starts.

        The jobs have no result, so that a list costs little however large its jobs are. A page may be short, even empty, although
        more follow: then the second value is not None.
        """
        found: list[Job] = []
        # If the index knows what matches, one record more than the page has is enough.
        batch = BATCH if wanted.reads_records else min(BATCH, limit + 1)
        visit = JobVisit(self, wanted, after, max_scanned, batch)
        for job in visit:
            if len(found) == limit:
                return found, found[-1].id
            found.append(job)
        return found, visit.next

    def count_jobs(self, wanted: JobFilter, *, max_scanned: int = MAX_SCANNED) -> JobCounts:
        """Numbers of matching jobs by status, kind and model."""
        if not wanted.reads_records:
            return self._index.count(wanted)
        counts, visit = JobCounts(), JobVisit(self, wanted, None, max_scanned)
        for job in visit:
            counts.add(job.status.value, job.kind, job.model)
        counts.complete = visit.next is None
        return counts

    def read_matching(self, wanted: JobFilter, after: str | None, batch: int) -> Iterator[tuple[list[str], list[Job]]]:
        """Ids from the newest to the oldest, as the index finds them, and those of their jobs that match."""
        now_ms = self._now_ms()
        for ids in self._index.walk(wanted, after, batch):
            # An older worker may have changed the status of a job and not the index.
            yield ids, [job for job in self.read_jobs(ids) if wanted.matches(job, now_ms)]

    def read_spec(self, job: str) -> dict[str, Any] | None:
        """What a job was asked to do, or None if that was dropped."""
        spec = self._client.hget(f"{PREFIX}job:{job}:input", "spec")
        return None if spec is None else json.loads(spec)

    def get_job(self, job: str) -> Job | None:
        """The job with this id and its result, or None."""
        return read_job(self._client, job)

    def dead_letters(self, limit: int = 100) -> list[Job]:
        """Jobs that lost too many attempts, newest first, without results."""
        return self.read_jobs(self._client.zrange(DEAD_LETTERS, 0, limit - 1, desc=True))

    def get_dead_letter(self, job: str) -> Job | None:
        """The job with this id, or None if it is not a dead letter."""
        return self.get_job(job) if self._client.zscore(DEAD_LETTERS, job) is not None else None

    def read_jobs(self, ids: list[str]) -> list[Job]:
        """Those of the jobs that exist, without results."""
        with self._client.pipeline(transaction=False) as pipeline:
            for job in ids:
                pipeline.hgetall(f"{PREFIX}job:{job}")
            return [from_record(record) for record in pipeline.execute() if record]

    def get_jobs(self, ids: list[str]) -> list[Job]:
        """Those of the jobs that exist, with their results."""
        with self._client.pipeline(transaction=False) as pipeline:
            for job in ids:
                pipeline.hgetall(f"{PREFIX}job:{job}").get(f"{PREFIX}job:{job}:result")
            replies = pipeline.execute()
        pairs = zip(replies[::2], replies[1::2], strict=True)
        return [from_record(record if result is None else {**record, "result": result}) for record, result in pairs if record]

    def statuses(self, ids: list[str]) -> list[Status | None]:
        """The status of each of the jobs, None for one that does not exist."""
        with self._client.pipeline(transaction=False) as pipeline:
            for job in ids:
                pipeline.hget(f"{PREFIX}job:{job}", "status")
            return [None if status is None else Status(status) for status in pipeline.execute()]

    def unended(self, ids: list[str]) -> list[bool]:
        """Whether each of the jobs exists and has not ended. One command, where ``statuses`` takes one for each job."""
        scores: Any = self._client.zmscore(f"{PREFIX}jobs:due", ids) if ids else []
        return [score is not None for score in scores]

    def queue_snapshot(self, job: Job) -> QueueSnapshot:
        """What one round trip says about a queued job."""
        return read_snapshot(self._client, job, self._clock)

    def must_give_way(self, job: Job) -> bool:
        """Whether a running job should return its slot: an owner waits who has no running job in this queue."""
        waiting = set(self._client.zrange(f"{PREFIX}queue:{job.queue}:owners", 0, WAITING_OWNERS - 1)) - {job.owner}
        return bool(waiting and waiting - self._running_owners(job.queue))

    def _running_owners(self, queue: str) -> set[str]:
        workers = [worker.id for worker in WorkerRegistry(self._client).workers() if queue in worker.queues]
        with self._client.pipeline(transaction=False) as pipeline:
            for worker in workers:
                pipeline.hkeys(f"{PREFIX}worker:{worker}:owners")
            return {owner for owners in pipeline.execute() for owner in owners}

    def is_at_running_limit(self, job: Job, *, of_owner: int, of_user: int) -> bool:
        """Whether the job's owner has ``of_owner`` running jobs, or its end user ``of_user``; 0 means no limit."""
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.hgetall(f"{PREFIX}jobs:groups:{job.owner}")
            pipeline.hget(f"{PREFIX}owner:{job.owner}:running_users", user_digest(job.end_user))
            groups, of_its_user = pipeline.execute()
        kinds = {group: group.split()[:2] for group in groups}
        running = sum(
            int(groups[group])
            for group, (status, kind) in kinds.items()
            if status == Status.IN_PROGRESS and kind not in ("batch", "request_batch")
        )
        return bool((of_owner and running >= of_owner) or (of_user and int(of_its_user or 0) >= of_user))


class JobVisit:
    """One visit of the matching jobs, newest first. ``next`` is set if it ended before the oldest one."""

    def __init__(self, queries: JobQueries, wanted: JobFilter, after: str | None, max_scanned: int, batch: int = BATCH) -> None:
        self._queries = queries
        self._wanted = wanted
        self._after = after
        self._max_scanned = max_scanned
        self._batch = batch
        self.next: str | None = None

    def __iter__(self) -> Iterator[Job]:
        scanned, last = 0, None
        for ids, jobs in self._queries.read_matching(self._wanted, self._after, self._batch):
            if scanned >= self._max_scanned:
                self.next = last
                return
            yield from jobs
            scanned += len(ids)
            last = ids[-1] if ids else last


def read_job(client: redis.Redis, job: str) -> Job | None:
    """The job with this id and its result, or None."""
    with client.pipeline() as pipeline:
        pipeline.hgetall(f"{PREFIX}job:{job}")
        pipeline.get(f"{PREFIX}job:{job}:result")
        record, result = pipeline.execute()
    if not record:
        return None
    return from_record(record if result is None else {**record, "result": result})
