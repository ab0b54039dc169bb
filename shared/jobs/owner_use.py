"""How much of its limits an owner uses now: jobs, bytes, documents and tokens.

The Lua scripts check limits against the same records. Streams and waits are counted by each API process, and are not among it.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any

import redis

from shared.jobs.stats import StatsReader
from shared.jobs.usage import UsageLedger, UsageTotals
from shared.lua_scripts import Clock
from shared.redis_connection import PREFIX, redis_time_ms

MINUTE_MS = 60_000
# Jobs that only wait for others do not run.
WAITING_KINDS = ("batch", "request_batch")


class OwnerUse:
    """Reads what owners use. Safe to use from many threads. ``clock`` returns Unix milliseconds and is for tests."""

    def __init__(self, client: redis.Redis, *, clock: Clock | None = None) -> None:
        self._redis: Any = client
        self._clock = clock
        self._stats_reader = StatsReader(client)
        self._ledger = UsageLedger(client)

    def read(self, owner: str, limits: Mapping[str, int], names: Iterable[str] | None = None) -> dict[str, int]:
        """What the owner uses, by limit: those of ``names``, or all that are counted. ``limits`` are the values of its limits.

        ``queued_jobs`` is that of the queue in which most of its jobs wait, as each queue has this limit.
        """
        readers: dict[str, Callable[[], int]] = {
            "tokens_per_minute": lambda: self._tokens_of_minute(owner, limits["tokens_per_minute"]),
            "tokens_per_day": lambda: self._tokens_since(owner, self._today(), self._today().isoformat()),
            "tokens_per_month": lambda: self._tokens_since(owner, self._today().replace(day=1), f"{self._today():%Y-%m}"),
            "running_jobs": lambda: self._running_jobs(owner),
            "queued_jobs": lambda: self._queued_jobs(owner),
            "job_bytes": lambda: self._job_bytes(owner) + self._session_bytes(owner),
            "kept_jobs": lambda: int(self._redis.zcard(f"{PREFIX}owner:{owner}:jobs")),
            "kept_bytes": lambda: self._job_bytes(owner),
            "open_batches": lambda: int(self._redis.scard(f"{PREFIX}owner:{owner}:open_batches")),
            "stored_bytes": lambda: self._stored(owner, "bytes"),
            "documents": lambda: self._stored(owner, "documents"),
            "collections": lambda: int(self._redis.hlen(f"{PREFIX}collections:{owner}")),
            "sessions": lambda: int(self._redis.zcount(f"{PREFIX}owner:{owner}:sessions", self._now_ms(), "+inf")),
        }
        return {name: readers[name]() for name in (readers if names is None else names)}

    def _now_ms(self) -> int:
        return self._clock() if self._clock else redis_time_ms(self._redis)

    def _today(self) -> date:
        return datetime.fromtimestamp(self._now_ms() / 1000, UTC).date()

    def _tokens_of_minute(self, owner: str, limit: int) -> int:
        full_at = float(self._redis.get(f"{PREFIX}rate:tokens:owner:{owner}") or 0)
        return round(max(0.0, full_at - self._now_ms()) * limit / MINUTE_MS)

    def _tokens_since(self, owner: str, first: date, period: str) -> int:
        """Tokens of a day or month: those that count against its limit, if it has one, else those of the ledger."""
        spent = self._redis.get(f"{PREFIX}spent:owner:{owner}:{period}")
        if spent is not None:
            return int(float(spent))
        total = UsageTotals()
        for row in self._ledger.rows(first, self._today(), (owner,)):
            total.add(row.totals)
        return total.prompt_tokens + total.completion_tokens + total.embedding_tokens

    def _running_jobs(self, owner: str) -> int:
        groups = self._redis.hgetall(f"{PREFIX}jobs:groups:{owner}")
        running = (
            int(number)
            for group, number in groups.items()
            if group.startswith("in_progress ") and group.split(" ")[1] not in WAITING_KINDS
        )
        return sum(running)

    def _queued_jobs(self, owner: str) -> int:
        with self._redis.pipeline(transaction=False) as pipeline:
            for queue in self._stats_reader.queues_of(owner):
                pipeline.zcard(f"{PREFIX}queue:{queue}:jobs:{owner}")
            return max(map(int, pipeline.execute()), default=0)

    def _job_bytes(self, owner: str) -> int:
        return int(self._redis.hget(f"{PREFIX}owner_bytes", owner) or 0)

    def _session_bytes(self, owner: str) -> int:
        return int(self._redis.hget(f"{PREFIX}session:{owner}:bytes", "total") or 0)

    def _stored(self, owner: str, name: str) -> int:
        return int(self._redis.hget(f"{PREFIX}owner:{owner}:stored", name) or 0)
