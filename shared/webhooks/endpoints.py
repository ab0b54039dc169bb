"""Webhook endpoints that owners register, and the secrets that sign deliveries.

``eh:webhook:<id>`` is a hash: id, owner, url, authority, events, job_kinds, description, secret, previous_secret, previous_until,
disabled (the reason, or empty), created_at, updated_at. ``eh:owner:<owner>:webhooks`` lists the endpoints of an owner.
``eh:owner:<owner>:webhook_secret`` is a hash with the secret for webhooks without their own secret.
"""

import base64
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import redis

from shared.errors import Conflict, InvalidValue, NotFound
from shared.ids import new_id
from shared.redis_connection import PREFIX

Event = Literal[
    "job.started",
    "job.completed",
    "job.failed",
    "job.cancelled",
    "job.expired",
    "batch.completed",
    "batch.failed",
    "batch.cancelled",
    "batch.expired",
    "response.completed",
    "response.incomplete",
    "response.failed",
    "response.cancelled",
]
FINAL_EVENTS: tuple[Event, ...] = ("job.completed", "job.failed", "job.cancelled", "job.expired")
# Events of request batches, and of responses in the background, as OpenAI's API names and describes them. An endpoint receives them only if it subscribes to them.
OPENAI_EVENTS: tuple[Event, ...] = (
    *("batch.completed", "batch.failed", "batch.cancelled", "batch.expired"),
    *("response.completed", "response.incomplete", "response.failed", "response.cancelled"),
)
Kind = Literal["generate", "ingest", "search", "delete", "reindex", "unpack", "fetch", "batch", "request_batch"]
# Clients usually wait for their searches, so an endpoint receives events of searches only if it subscribes to them.
KINDS: tuple[Kind, ...] = ("generate", "ingest", "delete", "reindex", "unpack", "fetch", "batch", "request_batch")

ENDPOINT = "whk"
MAX_ENDPOINTS = 16
# Why an endpoint is not called that its owner has disabled.
DISABLED_BY_OWNER = "by its owner"
# For this time after a rotation, deliveries are also signed with the previous secret.
ROTATION_MS = 24 * 3600 * 1000

SECRET_PREFIX = "whsec_"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A URL that receives events of its owner's jobs. ``disabled`` is the reason why it is not called; empty if it is enabled."""

    id: str
    owner: str
    url: str
    events: tuple[str, ...]
    job_kinds: tuple[str, ...]
    description: str
    secret: str
    previous_until: int | None
    disabled: str
    created_at: int
    updated_at: int


def new_secret() -> str:
    """Create a signing secret in the format of Standard Webhooks: 32 random bytes."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def check_secret(secret: str, param: str) -> str:
    """Return the secret unchanged. Raises InvalidValue if it is malformed; the message does not contain it."""
    try:
        size = len(base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True))
    except ValueError:  # binascii.Error for a character outside the alphabet, its base class for one outside ASCII
        size = 0
    if not secret.startswith(SECRET_PREFIX) or not 24 <= size <= 64:
        raise InvalidValue(f"{param}: must be {SECRET_PREFIX} followed by 24 to 64 bytes in base 64", param=param)
    return secret


class Endpoints:
    """Creates, changes and deletes endpoints. Endpoints of other owners are reported as not found."""

    def __init__(self, client: redis.Redis, *, clock: Callable[[], int] | None = None) -> None:
        self._redis: Any = client
        self._clock = clock or (lambda: time.time_ns() // 1_000_000)

    def create(
        self,
        owner: str,
        *,
        url: str,
        authority: str,
        events: Sequence[str],
        job_kinds: Sequence[str],
        description: str,
        secret: str,
    ) -> Endpoint:
        """Register an endpoint. Raises Conflict if the owner has the maximum number of endpoints."""
        now, endpoint, index = self._clock(), new_id(ENDPOINT), _index(owner)
        fields = {
            "id": endpoint,
            "owner": owner,
            "url": url,
            "authority": authority,
            "description": description,
            "disabled": "",
            "events": json.dumps(events),
            "job_kinds": json.dumps(job_kinds),
            "secret": secret or new_secret(),
            "previous_secret": "",
            "previous_until": 0,
            "created_at": now,
            "updated_at": now,
        }

        def write(pipeline: Any) -> None:
            if pipeline.zcard(index) >= MAX_ENDPOINTS:
                raise Conflict(f"An owner can register at most {MAX_ENDPOINTS} webhooks. Delete one first.", code="webhook_limit")
            pipeline.multi()
            pipeline.hset(_key(endpoint), mapping=fields).zadd(index, {endpoint: 0})

        # Repeated if another call registers or deletes an endpoint in the meantime.
        self._redis.transaction(write, index)
        return self.get(endpoint, owner)

    def get(self, endpoint: str, owner: str) -> Endpoint:
        """The owner's endpoint with this id. Raises NotFound."""
        return _endpoint(_owned(self._redis.hgetall(_key(endpoint)), endpoint, owner))

    def list_for_owner(self, owner: str) -> list[Endpoint]:
        """All endpoints of an owner, oldest first."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for endpoint in self._redis.zrange(_index(owner), 0, -1):
                pipeline.hgetall(_key(endpoint))
            return [_endpoint(record) for record in pipeline.execute() if record]

    def change(self, endpoint: str, owner: str, changes: Mapping[str, Any]) -> Endpoint:
        """Change some of ``url`` (with its ``authority``), ``events``, ``job_kinds``, ``description``, ``disabled``. Raises NotFound."""
        fields = {name: json.dumps(value) if isinstance(value, tuple | list) else value for name, value in changes.items()}
        self._write(_key(endpoint), lambda record: _owned(record, endpoint, owner) and fields)
        return self.get(endpoint, owner)

    def rotate(self, endpoint: str, owner: str) -> Endpoint:
        """Give an endpoint a new secret. The old one also signs for 24 hours. Raises NotFound."""
        self._write(_key(endpoint), lambda record: self._rotated(_owned(record, endpoint, owner)))
        return self.get(endpoint, owner)

    def delete(self, endpoint: str, owner: str) -> None:
        """Delete an endpoint. Its pending deliveries fail. Raises NotFound."""
        self.get(endpoint, owner)
        with self._redis.pipeline() as pipeline:
            pipeline.delete(_key(endpoint)).zrem(_index(owner), endpoint).execute()

    def owner_secret(self, owner: str) -> str:
        """The secret for this owner's webhooks without their own secret. The first call creates it."""
        key = _secret_key(owner)
        self._redis.hsetnx(key, "secret", new_secret())
        return str(self._redis.hget(key, "secret"))

    def rotate_owner_secret(self, owner: str) -> str:
        """Replace the owner's secret. The old one also signs for 24 hours."""
        self.owner_secret(owner)
        self._write(_secret_key(owner), self._rotated)
        return self.owner_secret(owner)

    def signing_secrets(self, *, endpoint: str, owner: str) -> list[str]:
        """The secrets that sign a delivery: that of its endpoint, or else of its owner, and the previous one for 24 hours.

        Empty if the endpoint was deleted.
        """
        if not endpoint:
            self.owner_secret(owner)
        record = self._redis.hgetall(_key(endpoint) if endpoint else _secret_key(owner))
        if not record:
            return []
        previous = record.get("previous_secret", "")
        previous_is_valid = previous and int(record["previous_until"]) > self._clock()
        return [record["secret"], *([previous] if previous_is_valid else [])]

    def _rotated(self, record: Mapping[str, str]) -> dict[str, Any]:
        return {"secret": new_secret(), "previous_secret": record["secret"], "previous_until": self._clock() + ROTATION_MS}

    def _write(self, key: str, changes: Callable[[Mapping[str, str]], Mapping[str, Any]]) -> None:
        """Update a record with the result of ``changes``. Retries if another client changes the record in the meantime."""

        def write(pipeline: Any) -> None:
            fields = changes(pipeline.hgetall(key))
            pipeline.multi()
            pipeline.hset(key, mapping={**fields, "updated_at": self._clock()})

        self._redis.transaction(write, key)


def _owned(record: Mapping[str, str], endpoint: str, owner: str) -> Mapping[str, str]:
    if record.get("owner") != owner:
        raise NotFound(f"There is no webhook {endpoint[:80]!r}.", code="webhook_not_found")
    return record


def _endpoint(record: Mapping[str, str]) -> Endpoint:
    texts = {name: record[name] for name in ("id", "owner", "url", "description", "secret", "disabled")}
    return Endpoint(
        **texts,
        events=tuple(json.loads(record["events"])),
        job_kinds=tuple(json.loads(record["job_kinds"])),
        previous_until=int(record["previous_until"]) or None,
        created_at=int(record["created_at"]),
        updated_at=int(record["updated_at"]),
    )


def _key(endpoint: str) -> str:
    return f"{PREFIX}webhook:{endpoint}"


def _index(owner: str) -> str:
    return f"{PREFIX}owner:{owner}:webhooks"


def _secret_key(owner: str) -> str:
    return f"{PREFIX}owner:{owner}:webhook_secret"
