"""API keys in Redis. A key is shown once, when it is created; only its SHA-256 is stored.

``eh:keys`` is a hash from the SHA-256 of a key to its record. A key has 256 random bits, so its unsalted digest cannot be inverted,
and looking it up by digest leaks nothing through timing. ``eh:keys:used`` is a hash from the id of a key to the time of its last use.
Limits and weights belong to owners (``shared.owners.limits``).
"""

import hashlib
import json
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, NamedTuple, TypedDict

import redis

from shared.errors import Conflict, InvalidValue, NotFound
from shared.ids import new_id
from shared.owners.limits import key_limits_key
from shared.owners.scripts import OwnerScripts
from shared.redis_connection import PREFIX, redis_time_ms
from shared.rights import ADMIN, OWNER_SCOPES, SCOPES, Rights, check_allowed_names, check_scopes

KEYS = f"{PREFIX}keys"
USED = f"{KEYS}:used"

# Owner of the jobs that were submitted before any key existed.
LOCAL = "local"

# The longest time that an old key and its successor are both valid.
MAX_OVERLAP_SECONDS = 90 * 24 * 3600

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_PREFIX_LENGTH: Final = 10


class KeyOptions(TypedDict, total=False):
    """The rights and limits of a key, which can be changed. None is the default of a new key.

    ``scopes`` None means every scope except ``metrics`` and ``admin``. ``expires_at`` is in Unix milliseconds.
    """

    scopes: Sequence[str] | None
    models: Sequence[str] | None
    collections: Sequence[str] | None
    expires_at: int | None
    requests_per_second: int | None


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """The record of a key. Keys of one owner see the same jobs, so a key can be replaced without interruption.

    Times are Unix milliseconds. ``prefix`` is the beginning of the key, so that people can distinguish keys; it is empty if only the
    digest is known. ``scopes``, ``models`` and ``collections`` are None without a restriction. ``requests_per_second`` limits this key,
    besides its owner's limit for all keys. ``successor_of`` is the key that this one replaces, and ``from_file`` says that the keys
    file has it.
    """

    id: str
    name: str
    owner: str
    prefix: str
    created_at: int
    scopes: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    collections: tuple[str, ...] | None = None
    expires_at: int | None = None
    revoked_at: int | None = None
    requests_per_second: int | None = None
    successor_of: str = ""
    from_file: bool = False

    @property
    def rights(self) -> Rights:
        scopes = OWNER_SCOPES if self.scopes is None else self.scopes
        return Rights(scopes=scopes, models=self.models, collections=self.collections)

    @property
    def admin(self) -> bool:
        return self.rights.has_any((ADMIN,))

    def is_active(self, now_ms: int) -> bool:
        """Whether requests with this key are accepted."""
        return self.revoked_at is None and (self.expires_at is None or now_ms < self.expires_at)

    @classmethod
    def from_record(cls, text: str) -> "ApiKey":
        """Read a record. Records of earlier versions have ``admin`` instead of ``scopes``; an administrator has every scope."""
        stored = json.loads(text)
        if "scopes" not in stored:
            stored["scopes"] = SCOPES if stored.pop("admin", False) else None
        for name in ("scopes", "models", "collections"):
            stored[name] = None if stored.get(name) is None else tuple(stored[name])
        return cls(**{field.name: stored[field.name] for field in fields(cls) if field.name in stored})

    def record(self) -> str:
        return json.dumps(asdict(self))

    def as_json(self, last_used_at: int | None, limits: Mapping[str, int]) -> dict[str, Any]:
        """The key as administrators see it, with its token limits and without its secret. Times are Unix seconds."""
        times = {
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "revoked_at": self.revoked_at,
            "last_used_at": last_used_at,
        }
        return {
            "id": self.id,
            "object": "api_key",
            "name": self.name,
            "owner": self.owner,
            "prefix": self.prefix or None,
            **self.rights.as_json(),
            "requests_per_second": self.requests_per_second,
            "limits": dict(limits),
            **{name: None if time_ms is None else time_ms / 1000 for name, time_ms in times.items()},
            "successor_of": self.successor_of or None,
            "from_file": self.from_file,
        }


class RateState(NamedTuple):
    """How many requests a key may send at once, how many of them are left, and in how many seconds all are."""

    limit: int
    remaining: int
    reset_seconds: float


class Authenticated(NamedTuple):
    """A key that was found, the seconds until its next request is within its rates (0: now), its owner's own limits, and the state of
    its rate, if it has one. Of a key that has expired, only the key itself is known."""

    key: ApiKey
    wait_seconds: float
    limits: dict[str, int]
    rate: RateState | None = None
    expired: bool = False


class ApiKeys:
    """Creates, finds, changes, rotates and revokes API keys."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client
        self._scripts = OwnerScripts(client)

    def create(
        self,
        name: str,
        *,
        owner: str = "",
        admin: bool = False,
        scopes: Sequence[str] | None = None,
        models: Sequence[str] | None = None,
        collections: Sequence[str] | None = None,
        expires_at: int | None = None,
        requests_per_second: int | None = None,
    ) -> tuple[ApiKey, str]:
        """Create a key for ``owner`` (defaults to ``name``); return it and its secret, which cannot be retrieved later.

        ``admin`` is short for all scopes. Raises InvalidValue.
        """
        check_name(name, "name")
        check_name(owner or name, "owner")
        options = KeyOptions(
            scopes=SCOPES if admin else scopes,
            models=models,
            collections=collections,
            expires_at=expires_at,
            requests_per_second=requests_per_second,
        )
        key, secret = _new_key(name, owner or name)
        key = replace(key, **self._checked(options))
        self._redis.hset(KEYS, _digest(secret), key.record())
        return key, secret

    def create_first(self) -> tuple[ApiKey, str] | None:
        """Create an administrator's key for the owner of everything created so far, unless a key was ever created."""
        key, secret = _new_key("first", LOCAL)
        key = replace(key, scopes=SCOPES)
        created = self._scripts.create_first_key(digest=_digest(secret), record=key.record())
        return (key, secret) if created else None

    def remove_all(self) -> int:
        """Delete all keys, so that the server needs none again; return their number."""
        with self._redis.pipeline() as pipeline:
            pipeline.hlen(KEYS)
            pipeline.delete(KEYS, USED)
            return int(pipeline.execute()[0])

    def list_keys(self) -> list[ApiKey]:
        """All keys, including revoked and expired ones, oldest first."""
        return sorted(map(ApiKey.from_record, self._redis.hvals(KEYS)), key=lambda key: key.id)

    def by_digest(self) -> dict[str, ApiKey]:
        """All keys by the SHA-256 of their secrets."""
        return {digest: ApiKey.from_record(text) for digest, text in self._redis.hgetall(KEYS).items()}

    def add(self, digest: str, name: str, owner: str, options: KeyOptions) -> ApiKey | None:
        """Store a key of the keys file, of which only the digest is known; None if there is one with this digest."""
        key = replace(_new_key(name, owner)[0], prefix="", from_file=True, **_record_fields(options))
        return key if self._redis.hsetnx(KEYS, digest, key.record()) else None

    def take_from_file(self, key_id: str, name: str, owner: str, options: KeyOptions) -> ApiKey:
        """Apply the keys file's entry to a key. Raises NotFound."""
        fields = {"name": name, "owner": owner, "from_file": True, **_record_fields(options)}
        return self._replace(key_id, lambda key: replace(key, **fields))

    def last_uses(self) -> dict[str, int]:
        """When each key was last used, by its id, up to a minute too early. Keys that were never used are left out."""
        return {key_id: int(used) for key_id, used in self._redis.hgetall(USED).items()}

    def any_exist(self) -> bool:
        """Whether any key was ever created. Revoking the last key does not open the server again."""
        return bool(self._redis.exists(KEYS))

    def get(self, key_id: str) -> ApiKey:
        """The key with this id. Raises NotFound."""
        return self._find_by_id(key_id)[2]

    def find(self, secret: str) -> ApiKey | None:
        """The key with this secret, or None if it does not exist, was revoked or has expired."""
        text = self._redis.hget(KEYS, _digest(secret))
        key = ApiKey.from_record(text) if text else None
        return key if key is not None and key.is_active(int(time.time() * 1000)) else None

    def authenticate(self, secret: str, *, requests_per_second: int) -> Authenticated | None:
        """Find the key with this secret, note that it is used, and count a request. None if it does not exist or was revoked.

        ``requests_per_second`` is the rate of owners without one of their own; 0 means no limit.
        """
        reply = self._scripts.authenticate(digest=_digest(secret), requests_per_second=requests_per_second)
        if not reply:
            return None
        if len(reply) == 1:
            return Authenticated(ApiKey.from_record(reply[0]), 0, {}, expired=True)
        record, wait_ms, limits, most, left, reset_ms = reply
        own = {name: int(value) for name, value in zip(limits[::2], limits[1::2], strict=True)}
        rate = RateState(most, left, reset_ms / 1000) if most else None
        return Authenticated(ApiKey.from_record(record), wait_ms / 1000, own, rate)

    def change(self, key_id: str, options: KeyOptions, *, name: str | None = None) -> ApiKey:
        """Change a key's name and the given ``options``. Its next request has the new rights. Raises NotFound and InvalidValue."""
        if name is not None:
            check_name(name, "name")
        changes = self._checked(options)

        def changed(key: ApiKey) -> ApiKey:
            if key.revoked_at is not None:
                raise _no_longer_valid(key)
            return replace(key, **changes, name=key.name if name is None else name)

        return self._replace(key_id, changed)

    def rotate(self, key_id: str, *, overlap_seconds: float) -> tuple[ApiKey, str]:
        """Create a key with the rights and limits of another one, which expires after ``overlap_seconds``; return the new key and its secret.

        An earlier expiry of the old one applies to both. Raises NotFound, InvalidValue, and Conflict for a key that is not
        valid any more, or is in the keys file.
        """
        if not 0 <= overlap_seconds <= MAX_OVERLAP_SECONDS:
            raise InvalidValue(
                f"overlap: must be from 0 to {MAX_OVERLAP_SECONDS} seconds, not {overlap_seconds:g}", param="overlap"
            )
        now_ms = redis_time_ms(self._redis)
        end_ms = now_ms + int(1000 * overlap_seconds)

        def expiring(key: ApiKey) -> ApiKey:
            if not key.is_active(now_ms):
                raise _no_longer_valid(key)
            if key.from_file:
                raise Conflict(
                    f"API key {key.id} is from the keys file. Put another entry into the file, and remove this one later.",
                    code="key_from_file",
                )
            return replace(key, expires_at=end_ms if key.expires_at is None else min(end_ms, key.expires_at))

        old = self.get(key_id)
        expiring(old)
        new, secret = _new_key(old.name, old.owner)
        new = replace(old, id=new.id, prefix=new.prefix, created_at=new.created_at, successor_of=old.id)
        # The new key is stored first: if the server dies in between, the old one stays valid.
        with self._redis.pipeline() as pipeline:
            pipeline.copy(key_limits_key(old.id), key_limits_key(new.id))
            pipeline.hset(KEYS, _digest(secret), new.record())
            pipeline.execute()
        self._replace(key_id, expiring)
        return new, secret

    def revoke(self, key_id: str) -> ApiKey:
        """Revoke a key with immediate effect. Raises NotFound."""
        now_ms = int(time.time() * 1000)
        return self._replace(key_id, lambda key: replace(key, revoked_at=key.revoked_at or now_ms))

    def _checked(self, options: KeyOptions) -> dict[str, Any]:
        """The record fields for these options. Raises InvalidValue."""
        checked = _record_fields(options)
        if checked.get("scopes") is not None:
            checked["scopes"] = check_scopes(checked["scopes"])
        for param in ("models", "collections"):
            if checked.get(param) is not None:
                checked[param] = check_allowed_names(checked[param], param)
        rate, expires_at = options.get("requests_per_second"), options.get("expires_at")
        if rate is not None and rate < 1:
            raise InvalidValue(f"requests_per_second: must be at least 1, not {rate}", param="requests_per_second")
        if expires_at is not None and expires_at <= redis_time_ms(self._redis):
            raise InvalidValue("expires_at: must be in the future; revoke a key to end it now", param="expires_at")
        return checked

    def _replace(self, key_id: str, change: Callable[[ApiKey], ApiKey]) -> ApiKey:
        """Change the record of a key. Raises NotFound and what ``change`` raises."""
        while True:
            digest, before, key = self._find_by_id(key_id)
            changed = change(key)
            if self._scripts.replace_key(digest=digest, before=before, record=changed.record()):
                return changed

    def _find_by_id(self, key_id: str) -> tuple[str, str, ApiKey]:
        for digest, text in self._redis.hgetall(KEYS).items():
            key = ApiKey.from_record(text)
            if key.id == key_id:
                return digest, text, key
        raise NotFound(f"There is no API key {key_id[:80]!r}. Run `enginehouse keys list` to see all keys.", code="key_not_found")


def check_name(name: str, param: str) -> None:
    """Raise InvalidValue unless this is a valid name of a key or an owner."""
    if not _NAME.fullmatch(name):
        raise InvalidValue(
            f"{param}: use 1 to 63 of A-Z a-z 0-9 . _ - and start with a letter or digit, not {name[:80]!r}", param=param
        )


def _record_fields(options: KeyOptions) -> dict[str, Any]:
    """Options in the form of a record, which compares equal to one that was read."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}


def _no_longer_valid(key: ApiKey) -> Conflict:
    state = "has expired" if key.revoked_at is None else "was revoked"
    return Conflict(f"API key {key.id} {state}. Create another one.", code="key_not_active")


def _new_key(name: str, owner: str) -> tuple[ApiKey, str]:
    secret = f"eh_{secrets.token_urlsafe(32)}"
    now_ms = int(time.time() * 1000)
    return ApiKey(id=new_id("key"), name=name, owner=owner, prefix=secret[:_PREFIX_LENGTH], created_at=now_ms), secret


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
