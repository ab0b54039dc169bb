"""Deliveries: something to tell to a webhook, and every try at it. The records are made by the moves of jobs.

``eh:delivery:<id>`` is a hash: id (the ``webhook-id`` of all its tries), owner, job, event, url, place, endpoint (empty for a
job's own webhook), secret (the webhook's own, or empty), status, reason, created_at, ended_at, next_at, try (number of the
latest), claimed, failures, lost, retention_ms, and ``try:<n>`` (JSON) for each try. Knows nothing of sending.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import redis

from shared.errors import Conflict, NotFound
from shared.redis_connection import PREFIX
from shared.redis_lists import list_page
from shared.webhooks.scripts import DeliveryScripts

DeliveryOutcome = Literal["delivered", "retry", "exhausted", "gone"]

DELIVERY = "dlv"
STATUSES = ("pending", "delivered", "failed")
CHANNEL = f"{PREFIX}deliveries"


@dataclass(frozen=True, kw_only=True)
class DeliveryAttempt:
    """One try. ``outcome`` is ``delivered``, ``failed`` or ``lost`` (its worker died), None while it runs; ``status`` what was
    answered, if anything was, and ``answer`` the beginning of that."""

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
    """One delivery as it stood when it was read. Times are Unix milliseconds."""

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
        """Of the latest try."""
        return self.attempts[-1].number if self.attempts else 0


class Deliveries:
    """The verbs on deliveries. Safe to use from many threads; ``clock`` gives Unix milliseconds and is for tests."""

    def __init__(self, client: redis.Redis, *, clock: Callable[[], int] | None = None) -> None:
        self._redis: Any = client
        self._scripts = DeliveryScripts(client, clock=clock)

    def claim(self, worker: str, token: str, lease_seconds: float) -> Delivery | None:
        """The next delivery to be tried, now this worker's for ``lease_seconds``; None when there is none."""
        record = self._scripts.claim_delivery(worker=worker, token=token, lease_ms=int(lease_seconds * 1000))
        return _delivery(dict(zip(record[::2], record[1::2], strict=True))) if record else None

    def record(
        self,
        delivery: str,
        number: int,
        verdict: DeliveryOutcome,
        *,
        delay_seconds: float = 0,
        status: int | None = None,
        latency_ms: int = 0,
        answer: str = "",
        error: str = "",
    ) -> Literal["ok", "lost"]:
        """Tell how a try went. ``lost``: it had been taken for lost, and another counts."""
        said: Literal["ok", "lost"] = self._scripts.record_attempt(
            id=delivery,
            number=number,
            outcome=verdict,
            delay_ms=int(delay_seconds * 1000),
            status=status,
            latency_ms=latency_ms,
            answer=answer,
            error=error,
        )
        return said

    def redeliver(self, delivery: str, owner: str) -> Delivery:
        """Try it again from the start of its schedule. Raises NotFound, and Conflict when its webhook is called no more."""
        said = self._scripts.redeliver(id=delivery, owner=owner)
        if said in ("disabled", "deleted"):
            raise Conflict(f"the webhook of delivery {delivery} is {said}, so it is not called", code="webhook_disabled")
        return self.get(delivery, owner)

    def get(self, delivery: str, owner: str) -> Delivery:
        """One of the owner's deliveries. Raises NotFound."""
        record = self._redis.hgetall(_key(delivery))
        if record.get("owner") != owner:
            raise NotFound(f"there is no delivery {delivery[:80]!r}", code="delivery_not_found")
        return _delivery(record)

    def job_record(self, delivery: str) -> dict[str, str]:
        """The record of its job, but for spec and context, as it was when there was something to tell."""
        return dict(self._redis.hgetall(f"{_key(delivery)}:job"))

    def of_job(self, job: str) -> list[Delivery]:
        """All deliveries of a job, oldest first."""
        return self._read(self._redis.zrange(f"{PREFIX}job:{job}:deliveries", 0, -1))

    def list_deliveries(
        self, owner: str, *, limit: int, after: str | None = None, status: str | None = None, endpoint: str | None = None
    ) -> tuple[list[Delivery], str | None]:
        """An owner's deliveries, newest first, after the id ``after``; and where the next page begins, None at the end."""

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
    attempts = [DeliveryAttempt(**json.loads(text)) for name, text in record.items() if name.startswith("attempt:")]
    texts = {name: record[name] for name in ("id", "owner", "job", "event", "url", "endpoint", "secret", "status")}
    return Delivery(
        **texts,
        reason=record.get("reason", ""),
        failures=int(record["failures"]),
        created_at=int(record["created_at"]),
        next_at=int(record["next_at"]) if record.get("next_at") else None,
        ended_at=int(record["ended_at"]) if record.get("ended_at") else None,
        attempts=tuple(sorted(attempts, key=lambda one: one.number)),
    )


def _key(delivery: str) -> str:
    return f"{PREFIX}delivery:{delivery}"
