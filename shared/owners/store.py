"""API keys in Redis. A key is shown once, when it is created; only its SHA-256 is stored.

``eh:keys`` is a hash from the SHA-256 of a key to its record. A key has 256 random bits, so its unsalted digest cannot be inverted,
and looking it up by digest leaks nothing through timing. Limits and weights belong to owners (``shared.owners.limits``).
"""

import hashlib
import json
import re
import secrets
import time
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import redis

from shared.errors import InvalidValue, NotFound
from shared.ids import new_id
from shared.owners.scripts import OwnerScripts
from shared.redis_connection import PREFIX

KEYS = f"{PREFIX}keys"

# Owner of the jobs that were submitted before any key existed.
LOCAL = "local"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """The record of a key. Keys of one owner see the same jobs, so a key can be replaced without interruption.

    Times are Unix milliseconds. ``prefix`` is the beginning of the key, so that people can distinguish keys.
    ``requests_per_second`` limits this key, besides its owner's limit for all keys.
    """

    id: str
    name: str
    owner: str
    prefix: str
    admin: bool
    created_at: int
    revoked_at: int | None = None
    requests_per_second: int | None = None


class RateState(NamedTuple):
    """How many requests a key may send at once, how many of them are left, and in how many seconds all are."""

    limit: int
    remaining: int
    reset_seconds: float


class Authenticated(NamedTuple):
    """A key that was found, the seconds until its next request is within its rates (0: now), its owner's own limits, and the state of
    its rate, if it has one."""

    key: ApiKey
    wait_seconds: float
    limits: dict[str, int]
    rate: RateState | None = None


class ApiKeys:
    """Creates, finds and revokes API keys."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client
        self._scripts = OwnerScripts(client)

    def create(
        self, name: str, *, owner: str = "", admin: bool = False, requests_per_second: int | None = None
    ) -> tuple[ApiKey, str]:
        """Create a key for ``owner`` (defaults to ``name``); return it and its secret, which cannot be retrieved later.

        Raises InvalidValue.
        """
        check_name(name, "name")
        check_name(owner or name, "owner")
        if requests_per_second is not None and requests_per_second < 1:
            raise InvalidValue(f"requests_per_second: must be at least 1, not {requests_per_second}", param="requests_per_second")
        key, secret = _new_key(name, owner or name, admin=admin)
        key = replace(key, requests_per_second=requests_per_second)
        self._redis.hset(KEYS, _digest(secret), json.dumps(asdict(key)))
        return key, secret

    def create_first(self) -> tuple[ApiKey, str] | None:
        """Create an administrator's key for the owner of everything created so far, unless a key was ever created."""
        key, secret = _new_key("first", LOCAL, admin=True)
        created = self._scripts.create_first_key(digest=_digest(secret), record=json.dumps(asdict(key)))
        return (key, secret) if created else None

    def remove_all(self) -> int:
        """Delete all keys, so that the server needs none again; return their number."""
        with self._redis.pipeline() as pipeline:
            pipeline.hlen(KEYS)
            pipeline.delete(KEYS)
            return int(pipeline.execute()[0])

    def list_keys(self) -> list[ApiKey]:
        """All keys, including revoked ones, oldest first."""
        return sorted((ApiKey(**json.loads(text)) for text in self._redis.hvals(KEYS)), key=lambda key: key.id)

    def any_exist(self) -> bool:
        """Whether any key was ever created. Revoking the last key does not open the server again."""
        return bool(self._redis.exists(KEYS))

    def find(self, secret: str) -> ApiKey | None:
        """The key with this secret, or None if it does not exist or was revoked."""
        text = self._redis.hget(KEYS, _digest(secret))
        key = ApiKey(**json.loads(text)) if text else None
        return key if key is not None and key.revoked_at is None else None

    def authenticate(self, secret: str, *, requests_per_second: int) -> Authenticated | None:
        """Find the key with this secret and count a request. None if it does not exist or was revoked.

        ``requests_per_second`` is the rate of owners without one of their own; 0 means no limit.
        """
        reply = self._scripts.authenticate(digest=_digest(secret), requests_per_second=requests_per_second)
        if not reply:
            return None
        record, wait_ms, limits, most, left, reset_ms = reply
        own = {name: int(value) for name, value in zip(limits[::2], limits[1::2], strict=True)}
        rate = RateState(most, left, reset_ms / 1000) if most else None
        return Authenticated(ApiKey(**json.loads(record)), wait_ms / 1000, own, rate)

    def revoke(self, key_id: str) -> ApiKey:
        """Revoke a key with immediate effect. Raises NotFound."""
        for digest, text in self._redis.hgetall(KEYS).items():
            key = ApiKey(**json.loads(text))
            if key.id == key_id:
                revoked = replace(key, revoked_at=key.revoked_at or int(time.time() * 1000))
                self._redis.hset(KEYS, digest, json.dumps(asdict(revoked)))
                return revoked
        raise NotFound(f"There is no API key {key_id[:80]!r}. Run `enginehouse keys list` to see all keys.", code="key_not_found")


def check_name(name: str, param: str) -> None:
    """Raise InvalidValue unless this is a valid name of a key or an owner."""
    if not _NAME.fullmatch(name):
        raise InvalidValue(
            f"{param}: use 1 to 63 of A-Z a-z 0-9 . _ - and start with a letter or digit, not {name[:80]!r}", param=param
        )


def _new_key(name: str, owner: str, *, admin: bool) -> tuple[ApiKey, str]:
    secret = f"eh_{secrets.token_urlsafe(32)}"
    now_ms = int(time.time() * 1000)
    return ApiKey(id=new_id("key"), name=name, owner=owner, prefix=secret[:10], admin=admin, created_at=now_ms), secret


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
