"""Worker registry: the last heartbeat of each worker process, and which workers are alive.

A worker is a process that holds leases: the Celery worker itself in a pool of threads, each child process in a prefork pool.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import redis

from shared.jobs.scripts import JobScripts
from shared.machine import is_alive, is_stopped, machine_id, start_ticks, started
from shared.redis_connection import PREFIX, redis_time_ms, time_reply_ms

# Every generation request asks whether its model was ever served. A yes could only change with a lost Redis.
SERVED_SECONDS = 5.0
# Views of queued jobs ask for live workers hundreds of times a second, and a look at a process reads several files.
CHECK_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One worker.

    ``machine`` distinguishes equal process ids on different hosts and in different containers; ``start_ticks`` distinguishes a process
    from a later one with the same id, or ``started`` if it is 0, as it is for workers of earlier versions. ``parent`` is the process
    that gives this one its jobs, if it is the child of a prefork pool.
    ``phase`` is ``loading``, ``warming``, ``ready``, ``failed`` (``message`` has the reason),
    ``draining`` (before it unloads its model) or ``unloaded`` (no model). ``idle_ms`` is the time since its last job. ``since`` is the
    time of its first heartbeat, in Unix milliseconds, and ``version`` that of its code.
    """

    id: str
    name: str
    pool: str
    machine: str
    pid: int
    started: float
    start_ticks: int = 0
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
    since: int = 0
    version: str = ""
    parent: int = 0

    def is_frozen(self) -> bool:
        """Whether its process, the one that gives it jobs, or its engine is stopped. Only processes of its own machine can ask this."""
        return self.has_stopped_engine() or is_stopped(self.pid) or (self.parent != 0 and is_stopped(self.parent))

    def has_stopped_engine(self) -> bool:
        """Whether the process of its engine is stopped, as by SIGSTOP. Only processes of its own machine can ask this."""
        return self.engine_pid != 0 and is_stopped(self.engine_pid)

    @property
    def engine_pid(self) -> int:
        """The process of its engine; 0 if it has none."""
        return int((self.engine or {}).get("pid") or 0)


def this_process() -> str:
    """The name of this process among all machines. It stays the same when the clock is set."""
    return _process_name(os.getpid())


@cache
def _process_name(pid: int) -> str:
    return f"{machine_id()} {pid} {started(pid)} {start_ticks(pid)}"


def is_running_here(process: str) -> bool | None:
    """Whether a process that ``this_process`` named still runs, or None if it is on another machine. Earlier versions named no ticks."""
    machine, pid, start, *ticks = process.split(" ")
    if machine != machine_id():
        return None
    return is_alive(int(pid), float(start), int(ticks[0]) if ticks else 0)


class WorkerRegistry:
    """The registered workers in one Redis."""

    def __init__(self, client: redis.Redis, *, clock: Callable[[], int] | None = None) -> None:
        self._client = client
        self._clock = clock
        self._scripts = JobScripts(client, clock=clock)
        self._served_until: dict[str, float] = {}
        self._checked: dict[tuple[int, float, int], tuple[float, bool]] = {}

    def heartbeat(self, worker: Worker) -> str | None:
        """Record that this worker is alive. Returns the model it should load, or None for a worker without a model assignment."""
        description = {name: value for name, value in asdict(worker).items() if value is not None and name != "queues"}
        description["queues"] = " ".join(worker.queues)
        assigned, desired_model = self._scripts.heartbeat(
            worker=worker.id, description=json.dumps(description), model=worker.model
        )
        return str(desired_model) if assigned == "1" else None

    def workers(self) -> list[Worker]:
        """All registered workers, including silent ones."""
        return [_from_text(text) for text in self._client.hgetall(PREFIX + "workers").values()]

    def workers_and_time(self) -> tuple[list[Worker], int]:
        """All registered workers, and the time by the clock of their ``seen_at``, in one round trip."""
        pipeline: Any
        with self._client.pipeline(transaction=False) as pipeline:
            texts, redis_time = pipeline.hgetall(PREFIX + "workers").time().execute()
        return [_from_text(text) for text in texts.values()], self._clock() if self._clock else time_reply_ms(redis_time)

    def hold_name(self, name: str, ttl_seconds: float, *, replaces: str = "") -> str:
        """Reserve a worker's name for this process, which must repeat it within ``ttl_seconds``. Returns "", or the process that has it.

        ``replaces`` is a process that has ended, as ``is_running_here`` says.
        """
        holder: str = self._scripts.hold_worker_name(
            name=name, process=this_process(), replaces=replaces, ttl_ms=max(1, int(1000 * ttl_seconds))
        )
        return holder

    def now_ms(self) -> int:
        """The time by the clock of ``seen_at``, that of Redis."""
        return self._clock() if self._clock else redis_time_ms(self._client)

    def alive(self, within_seconds: float) -> list[Worker]:
        """Workers with a heartbeat within this time. Workers on this machine must also have a process that runs and is not stopped."""
        workers, now_ms = self.workers_and_time()
        since = now_ms - within_seconds * 1000
        return [
            worker
            for worker in workers
            if worker.seen_at >= since and (worker.machine != machine_id() or self._runs_here(worker))
        ]

    def count_running(self, workers: Sequence[Worker]) -> list[Worker]:
        """The workers with the number of jobs that each has now, which its last heartbeat may not know yet."""
        with self._client.pipeline(transaction=False) as pipeline:
            for worker in workers:
                pipeline.scard(f"{PREFIX}worker:{worker.id}:jobs")
            return [replace(worker, running=int(number)) for worker, number in zip(workers, pipeline.execute(), strict=True)]

    def _runs_here(self, worker: Worker) -> bool:
        """Whether a worker's processes on this machine run and are not stopped, as of the last ``CHECK_SECONDS``."""
        now = time.monotonic()
        processes = (worker.pid, worker.started, worker.engine_pid)
        until, runs = self._checked.get(processes, (0.0, False))
        if until <= now:
            runs = not self.is_dead_neighbour(worker) and not worker.is_frozen()
            if len(self._checked) > 1000:  # of processes that have ended
                self._checked.clear()
            self._checked[processes] = now + CHECK_SECONDS, runs
        return runs

    def is_dead_neighbour(self, worker: Worker) -> bool:
        """Whether a worker ran on this machine and its process has ended."""
        return worker.machine == machine_id() and not is_alive(worker.pid, worker.started, worker.start_ticks)

    def has_served(self, model: str) -> bool:
        """Whether any worker has ever served this model. A yes is remembered for ``SERVED_SECONDS``."""
        now = time.monotonic()
        if self._served_until.get(model, 0.0) > now:
            return True
        served = bool(self._client.hexists(PREFIX + "models", model))
        if served:
            self._served_until[model] = now + SERVED_SECONDS
        return served


def _from_text(text: str | bytes) -> Worker:
    """A worker as the heartbeat script has written it."""
    values = json.loads(text)
    values["queues"] = tuple(values["queues"].split())
    for name in ("seen_at", "since"):
        values[name] = int(values.get(name, 0))
    # Redis' JSON does not distinguish an empty list from an empty object.
    gpus = values.get("gpus") or ()
    values["gpus"] = tuple({**gpu, "xid_errors": list(gpu.get("xid_errors") or ())} for gpu in gpus)
    return Worker(**{name: values[name] for name in values if name in Worker.__dataclass_fields__})
