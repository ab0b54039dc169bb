"""Usage: what a job has used, and the ledger of each owner's daily usage, which outlives the jobs.

The transition that ends a job writes the ledger (``lua/lib/usage.lua`` lists its keys), so each job is in it exactly once.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, timedelta
from typing import Any, NamedTuple

import redis

from shared.redis_connection import PREFIX

Group = str
GROUPS: tuple[Group, ...] = ("owner", "end_user", "model", "kind", "day")
# The end user of rows that sum all end users beyond the daily limit.
OTHER_USERS = "(other)"
MAX_DAYS = 1100
# Hashes that are read in one round trip.
READ_AT_ONCE = 500


@dataclass
class Usage:
    """What an attempt has used so far. Its handler counts, also while it may still fail or be cancelled.

    ``gpu_ms`` is the time of the GPUs (or of the CPU, if the engine has none), shared equally by the requests that ran together.
    ``lost_ms`` is how long attempts ran whose worker died, until it last renewed their leases; the scripts count it.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    embedding_tokens: int = 0
    gpu_ms: int = 0
    pages: int = 0
    bytes: int = 0
    lost_ms: int = 0

    def as_text(self) -> str:
        """The numbers as the scripts take them; empty if all are 0."""
        numbers = [getattr(self, name) for name in USAGE_FIELDS]
        return " ".join(map(str, numbers)) if any(numbers) else ""

    @classmethod
    def from_text(cls, text: str) -> "Usage":
        return cls(**dict(zip(USAGE_FIELDS, map(int, text.split()), strict=False)))


# Fields in milliseconds, and what they are called in seconds.
TIMES = {"gpu_ms": "gpu_seconds", "lost_ms": "lost_seconds"}
USAGE_FIELDS = tuple(each.name for each in fields(Usage))


class UsageRow(NamedTuple):
    """What the jobs of one end user, kind and model have used on one day. ``end_user`` is None for jobs without one."""

    day: date
    owner: str
    kind: str
    model: str
    end_user: str | None
    totals: "UsageTotals"


@dataclass
class UsageTotals(Usage):
    """The sum of the usage of jobs, and their number."""

    jobs: int = field(default=0, kw_only=True)

    def add(self, other: "UsageTotals") -> None:
        for name in (*USAGE_FIELDS, "jobs"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @classmethod
    def from_text(cls, text: str) -> "UsageTotals":
        jobs, *numbers = map(int, text.split())
        return cls(**dict(zip(USAGE_FIELDS, numbers, strict=False)), jobs=jobs)

    def as_json(self) -> dict[str, Any]:
        """The numbers by name. Times are in seconds."""
        counts = {name: getattr(self, name) for name in USAGE_FIELDS if name not in TIMES}
        return {"jobs": self.jobs, **counts, **{name: getattr(self, field) / 1000 for field, name in TIMES.items()}}


class UsageLedger:
    """Reads the ledger."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client

    def rows(self, since: date, until: date, owners: Collection[str] | None = None) -> Iterator[UsageRow]:
        """The rows of all days from ``since`` to ``until``, inclusive; of these owners, or of all."""
        days = [since + timedelta(days=number) for number in range((until - since).days + 1)]
        pipeline = self._redis.pipeline(transaction=False)
        for day in days:
            pipeline.smembers(f"{PREFIX}usage:{day}")
        found = zip(days, pipeline.execute(), strict=True)
        hashes = [(day, owner) for day, names in found for owner in sorted(names) if owners is None or owner in owners]
        for start in range(0, len(hashes), READ_AT_ONCE):
            part = hashes[start : start + READ_AT_ONCE]
            for day, owner in part:
                pipeline.hgetall(f"{PREFIX}usage:{day}:{owner}")
            for (day, owner), totals_by_row in zip(part, pipeline.execute(), strict=True):
                yield from _parse_rows(day, owner, totals_by_row)

    def owner_totals(self) -> dict[str, UsageTotals]:
        """The total usage of each owner. The owner '' has the sum of all owners beyond the first hundred."""
        return {owner: UsageTotals.from_text(text) for owner, text in self._redis.hgetall(f"{PREFIX}usage:totals").items()}


def sum_usage(rows: Iterable[UsageRow], groups: Sequence[Group]) -> dict[tuple[Any, ...], UsageTotals]:
    """The totals by the values of ``groups``, such as day and model."""
    sums: dict[tuple[Any, ...], UsageTotals] = {}
    for row in rows:
        key = tuple(getattr(row, group) for group in groups)
        sums.setdefault(key, UsageTotals()).add(row.totals)
    return sums


def _parse_rows(day: date, owner: str, totals_by_row: Mapping[str, str]) -> Iterator[UsageRow]:
    for name, text in totals_by_row.items():
        # The end user comes last, as a client chooses its name.
        match = re.fullmatch(r"([^\n@#]+)\n([^\n]*)\n(|\*|=.*)", name, re.DOTALL)
        if match:
            kind, model, user = match.groups()
            end_user = OTHER_USERS if user == "*" else user.removeprefix("=") or None
            yield UsageRow(day, owner, kind, model, end_user, UsageTotals.from_text(text))
