"""Who works here: what each worker process last told of itself, and whether that is still true.

A worker is one process that holds leases: the worker itself for pools of threads, each child of a prefork pool.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import redis

from shared.jobs.scripts import JobScripts
from shared.machine import is_alive, machine_id
from shared.redis_connection import PREFIX


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One worker. ``machine`` tells process ids of different hosts and containers apart; ``started`` tells a process from
    a later one with the same id. ``phase`` is ``loading``, ``warming``, ``ready``, ``failed`` (``message`` says why),
    ``draining`` (it gives up its model), or ``unloaded`` (it holds none). ``idle_ms`` is how long it has run nothing."""

    id: str
    name: str
    pool: str
    machine: str
    pid: int
    started: float
    queues: tuple[str, ...]
    slots: int
    running: int = 0
    idle_ms: int = 0
    model: str = ""
    phase: str = "ready"
    message: str = ""
    fraction: float = 1.0
    engine: Mapping[str, Any] | None = None
    gpus: tuple[Mapping[str, Any], ...] = ()
    seen_at: int = 0


class WorkerRegistry:
    """The list of workers in Redis."""

    def __init__(self, client: redis.Redis, *, clock: Callable[[], int] | None = None) -> None:
        self._client = client
        self._clock = clock
        self._scripts = JobScripts(client, clock=clock)

    def heartbeat(self, worker: Worker) -> str | None:
        """Tell that this worker is alive; to be repeated. The model that it should hold, None for a worker without a seat."""
        description = {name: value for name, value in asdict(worker).items() if value is not None and name != "queues"}
        description["queues"] = " ".join(worker.queues)
        assigned, desired_model = self._scripts.heartbeat(
            worker=worker.id, description=json.dumps(description), model=worker.model
        )
        return str(desired_model) if assigned == "1" else None

    def workers(self) -> list[Worker]:
        """Everybody on the list, also those that have fallen silent."""
        result = []
        for text in self._client.hgetall(PREFIX + "workers").values():
            values = json.loads(text)
            values["queues"] = tuple(values["queues"].split())
            values["seen_at"] = int(values["seen_at"])
            # Redis' JSON cannot tell an empty list from an empty object.
            gpus = values.get("gpus") or ()
            values["gpus"] = tuple({**gpu, "xid_errors": list(gpu.get("xid_errors") or ())} for gpu in gpus)
            result.append(Worker(**{name: values[name] for name in values if name in Worker.__dataclass_fields__}))
        return result

    def silent_for_ms(self, worker: Worker) -> int:
        """How long ago a worker last told that it is alive, by Redis' clock."""
        seconds, microseconds = self._client.time()
        now = self._clock() if self._clock else seconds * 1000 + microseconds // 1000
        return now - worker.seen_at

    def alive(self, within_seconds: float) -> list[Worker]:
        """The workers that were heard of within this time and, where they run on this machine, still live."""
        return [
            worker
            for worker in self.workers()
            if self.silent_for_ms(worker) <= within_seconds * 1000 and not self.is_dead_neighbour(worker)
        ]

    def is_dead_neighbour(self, worker: Worker) -> bool:
        """Whether a worker ran on this machine and its process is gone."""
        return worker.machine == machine_id() and not is_alive(worker.pid, worker.started)

    def has_served(self, model: str) -> bool:
        """Whether any worker has ever offered this model."""
        return bool(self._client.hexists(PREFIX + "models", model))
