"""Endpoints that owners keep, and the secrets that deliveries are signed with.

``eh:webhook:<id>`` is a hash (id, owner, url, place, events, job_kinds, description, secret, previous_secret, previous_until,
disabled: why, or empty, created_at, updated_at); ``eh:owner:<owner>:webhooks`` lists an owner's.
``eh:owner:<owner>:webhook_secret`` is a hash with the secret for webhooks that have none of their own. Knows nothing of
sending.
"""

import base64
import binascii
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

Event = Literal["job.started", "job.completed", "job.failed", "job.cancelled", "job.expired"]
FINAL_EVENTS: tuple[Event, ...] = ("job.completed", "job.failed", "job.cancelled", "job.expired")
Kind = Literal["generate", "ingest", "search", "delete", "reindex", "unpack", "batch"]
# A search is mostly awaited by whoever makes it, so an endpoint hears of searches only when it asks to.
KINDS: tuple[Kind, ...] = ("generate", "ingest", "delete", "reindex", "unpack", "batch")

ENDPOINT = "whk"
MAX_ENDPOINTS = 16
# For so long after a rotation, deliveries are signed with the old secret too.
ROTATION_MS = 24 * 3600 * 1000

SECRET_PREFIX = "whsec_"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One address that hears of its owner's jobs. ``disabled`` says why it is called no more; empty while it is."""

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
    """A signing secret in the form of Standard Webhooks: 32 random bytes."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def check_secret(secret: str, param: str) -> str:
    """The secret, if it is one. Raises InvalidValue, which does not repeat it."""
    try:
        size = len(base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True))
    except binascii.Error:
        size = 0
    if not secret.startswith(SECRET_PREFIX) or not 24 <= size <= 64:
        raise InvalidValue(f"{param}: must be {SECRET_PREFIX} and 24 to 64 bytes in base 64", param=param)
    return secret


class Endpoints:
    """The verbs on endpoints. One of another owner is one that does not exist."""

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
        """Keep an endpoint. Raises Conflict when the owner has as many as may be."""
        now, endpoint, index = self._clock(), new_id(ENDPOINT), _index(owner)
        if self._redis.zcard(index) >= MAX_ENDPOINTS:
            raise Conflict(f"an owner may keep {MAX_ENDPOINTS} webhooks; delete one of them first", code="webhook_limit")
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
        with self._redis.pipeline() as pipeline:
            pipeline.hset(_key(endpoint), mapping=fields).zadd(index, {endpoint: 0}).execute()
        return self.get(endpoint, owner)

    def get(self, endpoint: str, owner: str) -> Endpoint:
        """One of the owner's endpoints. Raises NotFound."""
        return _endpoint(_owned(self._redis.hgetall(_key(endpoint)), endpoint, owner))

    def of_owner(self, owner: str) -> list[Endpoint]:
        """All of an owner's endpoints, oldest first."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for endpoint in self._redis.zrange(_index(owner), 0, -1):
                pipeline.hgetall(_key(endpoint))
            return [_endpoint(record) for record in pipeline.execute() if record]

    def change(self, endpoint: str, owner: str, changes: Mapping[str, Any]) -> Endpoint:
        """Change some of ``url`` (with its ``place``), ``events``, ``job_kinds``, ``description``, ``disabled``. Raises NotFound."""
        fields = {name: json.dumps(value) if isinstance(value, tuple | list) else value for name, value in changes.items()}
        self._write(_key(endpoint), lambda record: _owned(record, endpoint, owner) and fields)
        return self.get(endpoint, owner)

    def rotate(self, endpoint: str, owner: str) -> Endpoint:
        """Give an endpoint a new secret; the old one signs too for 24 hours. Raises NotFound."""
        self._write(_key(endpoint), lambda record: self._rotated(_owned(record, endpoint, owner)))
        return self.get(endpoint, owner)

    def delete(self, endpoint: str, owner: str) -> None:
        """Forget an endpoint; what was still to be delivered to it is not. Raises NotFound."""
        self.get(endpoint, owner)
        with self._redis.pipeline() as pipeline:
            pipeline.delete(_key(endpoint)).zrem(_index(owner), endpoint).execute()

    def owner_secret(self, owner: str) -> str:
        """The secret for webhooks of this owner that have none of their own; made at the first call."""
        key = _secret_key(owner)
        self._redis.hsetnx(key, "secret", new_secret())
        return str(self._redis.hget(key, "secret"))

    def rotate_owner_secret(self, owner: str) -> str:
        """A new secret in its place; the old one signs too for 24 hours."""
        self.owner_secret(owner)
        self._write(_secret_key(owner), self._rotated)
        return self.owner_secret(owner)

    def signing_secrets(self, *, endpoint: str, owner: str) -> list[str]:
        """What to sign a delivery with: the secret of its endpoint, or of its owner, and the one before for 24 hours.

        Empty when the endpoint is gone.
        """
        if not endpoint:
            self.owner_secret(owner)
        record = self._redis.hgetall(_key(endpoint) if endpoint else _secret_key(owner))
        if not record:
            return []
        previous = record.get("previous_secret", "")
        signs_too = previous and int(record["previous_until"]) > self._clock()
        return [record["secret"], *([previous] if signs_too else [])]

    def _rotated(self, record: Mapping[str, str]) -> dict[str, Any]:
        return {"secret": new_secret(), "previous_secret": record["secret"], "previous_until": self._clock() + ROTATION_MS}

    def _write(self, key: str, changes: Callable[[Mapping[str, str]], Mapping[str, Any]]) -> None:
        """Write what ``changes`` makes of the record, unless somebody else writes meanwhile: then again."""

        def write(pipeline: Any) -> None:
            fields = changes(pipeline.hgetall(key))
            pipeline.multi()
            pipeline.hset(key, mapping={**fields, "updated_at": self._clock()})

        self._redis.transaction(write, key)


def _owned(record: Mapping[str, str], endpoint: str, owner: str) -> Mapping[str, str]:
    if record.get("owner") != owner:
        raise NotFound(f"there is no webhook {endpoint[:80]!r}", code="webhook_not_found")
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
