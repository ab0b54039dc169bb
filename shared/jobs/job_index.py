"""The index of jobs: ids and numbers of the jobs that match a filter. ``lua/lib/job_index.lua`` maintains it.

In each scope (an owner, or a collection or batch of an owner) a job is in the group of its status, kind and model. A filter selects groups,
and a list is a merge of them. docs/decisions/job-index.md has the reasons.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from shared.jobs.job_filter import JobFilter
from shared.jobs.scripts import JobScripts
from shared.redis_connection import PREFIX

BATCH = 200
# Of each of many groups, at least this many ids are read at once.
MIN_BATCH = 20
INDEXED_AT_ONCE = 500


@dataclass
class JobCounts:
    """Numbers of matching jobs. Without ``complete``, they are those of the newest jobs only."""

    status: Counter[str] = field(default_factory=Counter)
    kind: Counter[str] = field(default_factory=Counter)
    model: Counter[str] = field(default_factory=Counter)
    total: int = 0
    complete: bool = True

    def add(self, status: str, kind: str, model: str, number: int = 1) -> None:
        """Count jobs of this status, kind and model, which is "" for jobs without a model."""
        self.status[status] += number
        self.kind[kind] += number
        if model:
            self.model[model] += number
        self.total += number


@dataclass(frozen=True)
class _Group:
    """The jobs of one status, kind and model in a scope, and how many there are."""

    scope: str
    name: str
    number: int

    @property
    def parts(self) -> tuple[str, str, str]:
        status, kind, model = self.name.split(" ", 2)
        return status, kind, model

    @property
    def key(self) -> str:
        return f"{PREFIX}jobs:group:{self.scope}:{self.name}"


class JobIndex:
    """Reads the index in one Redis. Safe to use from many threads."""

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client
        self._scripts = JobScripts(client)

    def walk(self, wanted: JobFilter, after: str | None, batch: int) -> Iterator[list[str]]:
        """Ids of the jobs that match as far as the index can tell, from the newest to the oldest, after the id ``after``.

        They come in lists of up to ``batch``.
        """
        if wanted.job is not None:
            yield [wanted.job]
            return
        owners = self._owners(wanted)
        keys = [group.key for group in self._groups(wanted, owners)] if wanted.uses_groups else list(map(_owner_key, owners))
        yield from self._merge(keys, wanted, after, batch)

    def count(self, wanted: JobFilter) -> JobCounts:
        """Numbers of matching jobs, for a filter that does not read records."""
        groups = self._groups(wanted, self._owners(wanted))
        numbers = [group.number for group in groups]
        if wanted.first_id or wanted.end_id:
            with self._client.pipeline(transaction=False) as pipeline:
                for group in groups:
                    pipeline.zlexcount(group.key, f"[{wanted.first_id}" if wanted.first_id else "-", _before(wanted.end_id))
                numbers = pipeline.execute()
        counts = JobCounts()
        for group, number in zip(groups, numbers, strict=True):
            if number > 0:
                counts.add(*group.parts, number)
        return counts

    def add_missing(self) -> int:
        """Enter the jobs that a version without the index has written; return their number. Jobs may run meanwhile."""
        added = 0
        for owner in sorted(self._client.smembers(f"{PREFIX}owners")):
            for ids in self._merge([_owner_key(owner)], JobFilter(), None, INDEXED_AT_ONCE):
                added += self._scripts.index_jobs(ids=ids)
        return added

    def _owners(self, wanted: JobFilter) -> list[str]:
        return [wanted.owner] if wanted.owner is not None else sorted(self._client.smembers(f"{PREFIX}owners"))

    def _groups(self, wanted: JobFilter, owners: Sequence[str]) -> list[_Group]:
        """The groups that a filter selects. With a collection and a batch, those of the batch."""
        part = wanted.batch or wanted.collection
        scopes = [f"{owner}:{part}" if part else owner for owner in owners]
        with self._client.pipeline(transaction=False) as pipeline:
            for scope in scopes:
                pipeline.hgetall(f"{PREFIX}jobs:groups:{scope}")
            replies = pipeline.execute()
        groups = [
            _Group(scope, name, int(number))
            for scope, reply in zip(scopes, replies, strict=True)
            for name, number in reply.items()
        ]
        return [group for group in groups if wanted.matches_group(*group.parts)]

    def _merge(self, keys: Sequence[str], wanted: JobFilter, after: str | None, batch: int) -> Iterator[list[str]]:
        """Ids of several sorted sets in one descending order."""
        start = min(filter(None, (after, wanted.end_id)), default="")
        left, size = list(keys), max(MIN_BATCH, batch // max(1, len(keys)))
        while left:
            with self._client.pipeline(transaction=False) as pipeline:
                for key in left:
                    last = f"[{wanted.first_id}" if wanted.first_id else "-"
                    pipeline.zrange(key, f"({start}" if start else "+", last, desc=True, bylex=True, offset=0, num=size)
                pages: list[list[str]] = pipeline.execute()
            # A set whose page is full may have more ids than it, which come after its last one.
            bound = max((page[-1] for page in pages if len(page) == size), default="")
            ids = sorted((id for page in pages for id in page if id >= bound), reverse=True)
            for first in range(0, len(ids), batch):
                yield ids[first : first + batch]
            if not bound:
                return
            left = [key for key, page in zip(left, pages, strict=True) if len(page) == size or (page and page[-1] < bound)]
            start = bound


def _owner_key(owner: str) -> str:
    return f"{PREFIX}owner:{owner}:jobs"


def _before(end_id: str) -> str:
    return f"({end_id}" if end_id else "+"
