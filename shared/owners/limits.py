"""Limits of owners: what each may have and do, from the settings or set for one owner.

``eh:owner:<owner>:limits`` is a hash from limits to the values of one owner, ``eh:key:<id>:limits`` the same for an API key, ``eh:weights`` a hash from owners to their share of a full
queue. The Lua scripts that add something check its limit in the same step (``shared/jobs/lua/lib/limits.lua``), so a limit is exact
however many clients there are. Streams and waits occupy threads of an API process, so ``api.request_slots`` counts them there.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import redis

from shared.errors import InvalidValue
from shared.redis_connection import PREFIX
from shared.settings import KEY_LIMITS, OWNER_LIMITS, Settings

WEIGHTS = f"{PREFIX}weights"

HIGHEST = 10**15


class OwnerLimits:
    """Sets and reads the weights and the limits of single owners."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client

    def set_weight(self, owner: str, weight: float) -> None:
        """Set the owner's share of a full queue relative to other owners, which is 1 at first. Raises InvalidValue."""
        if not 0.01 <= weight <= 100:
            raise InvalidValue(f"weight: must be between 0.01 and 100, not {weight}", param="weight")
        self._redis.hset(WEIGHTS, owner, weight)

    def set_limits(self, owner: str, limits: Mapping[str, int | None]) -> None:
        """Set limits of an owner; 0 means no limit, and None returns to the setting. Raises InvalidValue and changes nothing."""
        _check_limits(limits, tuple(OWNER_LIMITS))
        _write_limits(self._redis, owner_limits_key(owner), limits)

    def weight(self, owner: str) -> float:
        return float(self._redis.hget(WEIGHTS, owner) or 1)

    def limits(self, owner: str) -> dict[str, int]:
        """The limits that were set for this owner."""
        return {name: int(value) for name, value in self._redis.hgetall(owner_limits_key(owner)).items()}

    def owners(self) -> list[str]:
        """Owners with a weight or a limit of their own, sorted."""
        limited = (key.split(":")[2] for key in self._redis.scan_iter(owner_limits_key("*"), count=500))
        return sorted({*self._redis.hkeys(WEIGHTS), *limited})


class KeyLimits:
    """Sets and reads the limits of single API keys, which apply in addition to their owners' limits."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis: Any = client

    def set_limits(self, key_id: str, limits: Mapping[str, int | None]) -> None:
        """Set limits of a key; 0 or None removes one. Raises InvalidValue and changes nothing."""
        check_key_limits(limits)
        _write_limits(self._redis, key_limits_key(key_id), {name: value or None for name, value in limits.items()})

    def limits(self, key_id: str) -> dict[str, int]:
        """The limits of one key."""
        return self.limits_of([key_id])[key_id]

    def limits_of(self, key_ids: Sequence[str]) -> dict[str, dict[str, int]]:
        """The limits of each of these keys by its id."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for key_id in key_ids:
                pipeline.hgetall(key_limits_key(key_id))
            found = pipeline.execute()
        return {key_id: {name: int(value) for name, value in own.items()} for key_id, own in zip(key_ids, found, strict=True)}


def effective_limits(own: Mapping[str, int], settings: Settings) -> dict[str, int]:
    """Every limit of an owner by name, from those that were set for it or from the settings; 0 for none."""
    return {name: int(own.get(name, getattr(settings, setting))) for name, setting in OWNER_LIMITS.items()}


def key_limits_key(key_id: str) -> str:
    return f"{PREFIX}key:{key_id}:limits"


def check_key_limits(limits: Mapping[str, int | None]) -> None:
    """Raise InvalidValue unless these are limits that a key may have."""
    _check_limits(limits, KEY_LIMITS)


def _check_limits(limits: Mapping[str, int | None], allowed: Sequence[str]) -> None:
    for name, value in limits.items():
        if name not in allowed:
            raise InvalidValue(f"limit: must be one of {', '.join(allowed)}, not {name[:80]!r}", param="limit")
        if value is not None and not 0 <= value <= HIGHEST:
            raise InvalidValue(f"{name}: must be an integer from 0 to {HIGHEST}, not {value}", param=name)


def _write_limits(client: Any, key: str, limits: Mapping[str, int | None]) -> None:
    with client.pipeline() as pipeline:
        for name, value in limits.items():
            if value is None:
                pipeline.hdel(key, name)
            else:
                pipeline.hset(key, name, value)
        pipeline.execute()


def owner_limits_key(owner: str) -> str:
    return f"{PREFIX}owner:{owner}:limits"
