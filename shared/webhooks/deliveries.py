"""Webhook deliveries: one record per event and receiver, with all delivery attempts. Job transitions create the records.

``eh:delivery:<id>`` is a hash: id (the ``webhook-id`` of all attempts), owner, job, event, url, authority, endpoint (empty for a
job's own webhook), secret (the webhook's own, or empty), status, reason, created_at, ended_at, next_at, attempt (number of the
latest), claimed, failures, lost, retention_ms, and ``attempt:<n>`` (JSON) for each attempt.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import redis

from shared.errors import Conflict, NotFound
from shared.ids import is_id
from shared.redis_connection import PREFIX, time_reply_ms
from shared.redis_lists import list_page
from shared.webhooks.scripts import DeliveryScripts

DeliveryOutcome = Literal["delivered", "retry", "exhausted", "gone"]

DELIVERY = "dlv"
STATUSES = ("pending", "delivered", "failed")
CHANNEL = f"{PREFIX}deliveries"


@dataclass(frozen=True, kw_only=True)
class DeliveryAttempt:
    """One delivery attempt. ``outcome`` is ``delivered``, ``failed`` or ``lost`` (the worker died), or None while it runs.

    ``status`` is the HTTP status of the response, if there was one, and ``answer`` the beginning of its body.
    """

    number: int
    worker: str
    started_at: int
    ended_at: int | None = None
    outcome: str | None = None
    status: int | None = None
    latency_ms: int | None = None
    answer: str = ""
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A snapshot of one delivery. Times are Unix milliseconds."""

    id: str
    owner: str
    job: str
    event: str
    url: str
    endpoint: str
    secret: str = field(repr=False)
    status: str
    reason: str
    failures: int
    created_at: int
    next_at: int | None
    ended_at: int | None
    attempts: tuple[DeliveryAttempt, ...]

    @property
    def number(self) -> int:
        """Number of the latest attempt."""
        return self.attempts[-1].number if self.attempts else 0


class Deliveries:
    """Claims, updates and lists deliveries. Safe to use from many threads; ``clock`` returns Unix milliseconds and is for tests."""

    def __init__(self, client: redis.Redis, *, clock: Callable[[], int] | None = None) -> None:
        self._redis: Any = client
        self._clock = clock
        self._scripts = DeliveryScripts(client, clock=clock)

    def claim(self, worker: str, token: str, lease_seconds: float) -> Delivery | None:
        """Claim the next due delivery for this worker for ``lease_seconds``. Returns None if none is due."""
        record = self._scripts.claim_delivery(worker=worker, token=token, lease_ms=int(lease_seconds * 1000))
        return _delivery(dict(zip(record[::2], record[1::2], strict=True))) if record else None

    def seconds_until_due(self) -> float:
        """The time until the next delivery, or the end of the next lease, is due: 0 if one is due now, infinity if there is none."""
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.zrange(f"{PREFIX}deliveries:due", 0, 0, withscores=True).time()
            found, redis_time = pipeline.execute()
        now_ms = self._clock() if self._clock else time_reply_ms(redis_time)
        return max(0.0, (found[0][1] - now_ms) / 1000) if found else math.inf

    def record_attempt(
        self,
        delivery: str,
        number: int,
        outcome: DeliveryOutcome,
        *,
        delay_seconds: float = 0,
        status: int | None = None,
        latency_ms: int = 0,
        answer: str = "",
        error: str = "",
    ) -> Literal["ok", "lost"]:
        """Record the result of an attempt. Returns ``lost`` if the attempt was already counted as lost."""
        result: Literal["ok", "lost"] = self._scripts.record_attempt(
            id=delivery,
            number=number,
            outcome=outcome,
            delay_ms=int(delay_seconds * 1000),
            status=status,
            latency_ms=latency_ms,
            answer=answer,
            error=error,
        )
        return result

    def redeliver(self, delivery: str, owner: str) -> Delivery:
        """Restart the retry schedule of a delivery. Raises NotFound, and Conflict if its webhook is disabled or deleted."""
        # An invalid id is not found by `get`. As part of a key it could name another record.
        result = self._scripts.redeliver(id=delivery, owner=owner) if is_id(DELIVERY, delivery) else "missing"
        if result in ("disabled", "deleted"):
            raise Conflict(f"The webhook of delivery {delivery} is {result}, so it is not called.", code="webhook_disabled")
        return self.get(delivery, owner)

    def get(self, delivery: str, owner: str) -> Delivery:
        """The owner's delivery with this id. Raises NotFound."""
        record = self._redis.hgetall(_key(delivery)) if is_id(DELIVERY, delivery) else {}
        if record.get("owner") != owner:
            raise NotFound(f"There is no delivery {delivery[:80]!r}.", code="delivery_not_found")
        return _delivery(record)

    def job_record(self, delivery: Delivery) -> dict[str, str]:
        """The job record at the time of the event, with the result if the job had ended. Empty if the job was deleted since."""
        with self._redis.pipeline() as pipeline:
            pipeline.hgetall(f"{_key(delivery.id)}:job").get(f"{PREFIX}job:{delivery.job}:result")
            record, result = pipeline.execute()
        if record.get("ended_at") and result is not None:
            record["result"] = result
        return dict(record)

    def list_for_job(self, job: str) -> list[Delivery]:
        """All deliveries of a job, oldest first."""
        return self._read(self._redis.zrange(f"{PREFIX}job:{job}:deliveries", 0, -1))

    def list_deliveries(
        self, owner: str, *, limit: int, after: str | None = None, status: str | None = None, endpoint: str | None = None
    ) -> tuple[list[Delivery], str | None]:
        """A page of an owner's deliveries, newest first, after the id ``after``; and where the next page starts, or None."""

        def matches(delivery: Delivery) -> bool:
            return status in (None, delivery.status) and endpoint in (None, delivery.endpoint)

        index = f"{PREFIX}owner:{owner}:deliveries"
        return list_page(self._redis, index, self._read, limit=limit, after=after, matches=matches)

    def _read(self, ids: list[str]) -> list[Delivery]:
        with self._redis.pipeline(transaction=False) as pipeline:
            for delivery in ids:
                pipeline.hgetall(_key(delivery))
            return [_delivery(record) for record in pipeline.execute() if record]


def _delivery(record: Mapping[str, str]) -> Delivery:
    attempts = [_parse_attempt(text) for name, text in record.items() if name.startswith("attempt:")]
    texts = {name: record[name] for name in ("id", "owner", "job", "event", "url", "endpoint", "secret", "status")}
    return Delivery(
        **texts,
        reason=record.get("reason", ""),
        failures=int(record["failures"]),
        created_at=int(record["created_at"]),
        next_at=int(record["next_at"]) if record.get("next_at") else None,
        ended_at=int(record["ended_at"]) if record.get("ended_at") else None,
        attempts=tuple(sorted(attempts, key=lambda attempt: attempt.number)),
    )


def _parse_attempt(text: str) -> DeliveryAttempt:
    """Unknown fields, which a newer version may have written, are ignored."""
    return DeliveryAttempt(
        **{name: value for name, value in json.loads(text).items() if name in DeliveryAttempt.__dataclass_fields__}
    )


def _key(delivery: str) -> str:
    return f"{PREFIX}delivery:{delivery}"
