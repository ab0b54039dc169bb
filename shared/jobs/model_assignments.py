"""Model assignments: which model each gpu worker should load.

An assignment is stored in Redis under the worker's name (``gpu0@host``), so that it survives restarts of the worker. It also lists
the worker's GPUs and the models that the worker can load.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import redis

from shared.jobs.scripts import JobScripts
from shared.redis_connection import PREFIX, redis_time_ms

RequestedBy = Literal["start", "operator", "idle", "demand"]


@dataclass(frozen=True, kw_only=True)
class ModelAssignment:
    """The assignment of one gpu worker. Times are Unix milliseconds.

    ``desired_model`` is the model that the worker should load ('' for none), and ``requested_by`` is the origin of that request.
    ``startup_model`` is the model that the worker was started with. ``loadable_models`` are the models that fit, ``pinned`` those
    of them that are never unloaded to make room for another model, and ``unloadable_models`` the others, each with the reason.
    """

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
        """The worker's number on its host."""
        return int(self.name.partition("@")[0].removeprefix("gpu"))


class ModelAssignments:
    """All model assignments in one Redis."""

    def __init__(self, client: redis.Redis, *, clock: Callable[[], int] | None = None) -> None:
        self._client = client
        self._clock = clock
        self._scripts = JobScripts(client, clock=clock)

    def register(
        self,
        name: str,
        startup_model: str,
        *,
        devices: Sequence[str] = (),
        loadable_models: Sequence[str] = (),
        pinned: Sequence[str] = (),
        unloadable_models: Mapping[str, str] | None = None,
    ) -> ModelAssignment:
        """Register a worker that was started with ``startup_model`` ('' for none); return the assignment that it must follow."""
        description = {
            "devices": list(devices),
            "loadable_models": list(loadable_models),
            "pinned": list(pinned),
            "unloadable_models": dict(unloadable_models or {}),
        }
        return _parse_assignment(
            name, self._scripts.register_assignment(name=name, startup_model=startup_model, description=json.dumps(description))
        )

    def set_desired_model(
        self, name: str, model: str, requested_by: RequestedBy, *, expected: str | None = None
    ) -> ModelAssignment | None:
        """Set the desired model ('' for none) of a worker.

        Returns None if the worker has no assignment, or if its desired model is not ``expected``. A request by ``idle`` also
        returns None if a job for the model has arrived.
        """
        text = self._scripts.set_desired_model(
            name=name, model=model, requested_by=requested_by, expected="*" if expected is None else expected
        )
        return _parse_assignment(name, text) if text not in ("", "no") else None

    def list_all(self) -> list[ModelAssignment]:
        """All assignments, sorted by the worker's name."""
        texts: Any = self._client.hgetall(PREFIX + "assignments")
        return [_parse_assignment(name, text) for name, text in sorted(texts.items())]

    def list_active(self, within_seconds: float) -> list[ModelAssignment]:
        """Assignments whose worker has sent a heartbeat within this time by Redis' clock. The worker runs or is restarting."""
        now = self._clock() if self._clock else redis_time_ms(self._client)
        return [assignment for assignment in self.list_all() if now - assignment.seen_at <= within_seconds * 1000]

    def forget_workers(self, names: Sequence[str]) -> None:
        """Delete the assignments of workers that will not return. A later worker of the same name starts without one."""
        if names:
            self._client.hdel(PREFIX + "assignments", *names)


def _parse_assignment(name: str, text: str) -> ModelAssignment:
    values: dict[str, Any] = json.loads(text)
    # Redis' JSON does not distinguish an empty list from an empty object.
    lists = {key: tuple(values.get(key) or ()) for key in ("devices", "loadable_models", "pinned")}
    known = {key: value for key, value in values.items() if key in ModelAssignment.__dataclass_fields__}
    return ModelAssignment(**{**known, "name": name, **lists, "unloadable_models": dict(values.get("unloadable_models") or {})})
