"""Which model each gpu worker should hold: a wish in Redis that the worker follows, so that it outlives every process.

A seat is a gpu worker's place under its name (``gpu0@host``), with its GPUs and the models that it could hold. Knows neither
engines nor NVML.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import redis

from shared.jobs.scripts import JobScripts
from shared.redis_connection import PREFIX

RequestedBy = Literal["start", "operator", "idle", "demand"]


@dataclass(frozen=True, kw_only=True)
class ModelAssignment:
    """``wish`` is the model that the worker should hold ('' for none) and ``by`` who wished it; ``startup_model`` the one that it is
    started with. ``offers`` are the models that it could hold, ``pinned`` those of them that are not given up for a job, and
    ``refuses`` those that it cannot hold, with the reason. Times are Unix milliseconds."""

    name: str
    desired_model: str
    requested_by: RequestedBy
    startup_model: str
    devices: tuple[str, ...] = ()
    loadable_models: tuple[str, ...] = ()
    unloadable_models: Mapping[str, str] = field(default_factory=dict)
    pinned: tuple[str, ...] = ()
    requested_at: int = 0
    seen_at: int = 0

    @property
    def number(self) -> int:
        """What people call it on its host."""
        return int(self.name.partition("@")[0].removeprefix("gpu"))


class ModelAssignments:
    """The seats, over one Redis."""

    def __init__(self, client: redis.Redis, *, clock: Callable[[], int] | None = None) -> None:
        self._client = client
        self._clock = clock
        self._scripts = JobScripts(client, clock=clock)

    def register(
        self,
        name: str,
        home: str,
        *,
        devices: Sequence[str] = (),
        loadable_models: Sequence[str] = (),
        pinned: Sequence[str] = (),
        unloadable_models: Mapping[str, str] | None = None,
    ) -> ModelAssignment:
        """A worker of this name is started with the model ``home``; its seat, whose wish it is to follow."""
        description = {
            "devices": list(devices),
            "loadable_models": list(loadable_models),
            "pinned": list(pinned),
            "unloadable_models": dict(unloadable_models or {}),
        }
        return _seat(name, self._scripts.register_assignment(name=name, startup_model=home, description=json.dumps(description)))

    def set_desired_model(self, name: str, model: str, by: RequestedBy, *, expected: str | None = None) -> ModelAssignment | None:
        """Wish a model ('' for none) for a seat. None when there is no such seat, or, if ``instead_of`` is given, when another
        model is wished there; by ``idle`` also when work has come."""
        text = self._scripts.set_desired_model(
            name=name, model=model, requested_by=by, expected="*" if expected is None else expected
        )
        return _seat(name, text) if text not in ("", "no") else None

    def list_all(self) -> list[ModelAssignment]:
        """Every seat, by name."""
        texts: Any = self._client.hgetall(PREFIX + "assignments")
        return [_seat(name, text) for name, text in sorted(texts.items())]

    def list_active(self, within_seconds: float) -> list[ModelAssignment]:
        """The seats whose worker has told of itself within this time, by Redis' clock: it is there, or between two lives."""
        seconds, microseconds = self._client.time()
        now = self._clock() if self._clock else seconds * 1000 + microseconds // 1000
        return [assignment for assignment in self.list_all() if now - assignment.seen_at <= within_seconds * 1000]

    def forget_workers(self, names: Sequence[str]) -> None:
        """These workers will not come back; a later one of the same name begins anew."""
        if names:
            self._client.hdel(PREFIX + "assignments", *names)


def _seat(name: str, text: str) -> ModelAssignment:
    values: dict[str, Any] = json.loads(text)
    # Redis' JSON cannot tell an empty list from an empty object.
    lists = {key: tuple(values.get(key) or ()) for key in ("devices", "loadable_models", "pinned")}
    known = {key: value for key, value in values.items() if key in ModelAssignment.__dataclass_fields__}
    return ModelAssignment(**{**known, "name": name, **lists, "unloadable_models": dict(values.get("unloadable_models") or {})})
