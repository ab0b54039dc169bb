"""``enginehouse status``: processes, queues, workers, models, memory, disk and the last failures on one screen."""

import shutil
from collections.abc import Iterator
from typing import Any

import redis

from cli.admin.sections import Section, print_sections
from cli.errors import CommandError
from cli.local.running_stack import connect_to_stack, list_processes
from cli.output import Output, clock, duration_text, first_line, size_text
from shared.documents.data_warnings import data_warnings
from shared.jobs.models import Status
from shared.jobs.pauses import Pauses
from shared.jobs.queries import JobQueries
from shared.jobs.stats import StatsReader
from shared.jobs.worker_registry import WorkerRegistry
from shared.machine import machine_id
from shared.redis_connection import PREFIX, is_outage, outage_message
from shared.settings import Settings

ALIVE_SECONDS = 30.0
LAST_FAILURES = 5
# Recent jobs of each owner among which failures are looked for, and the number of owners.
JOBS_PER_OWNER = 50
MAX_OWNERS = 100


def show_status(settings: Settings, *, explicit: bool, out: Output) -> bool:
    """Print the status; returns whether Redis answers and a worker of each pool is alive. ``explicit``: use the Redis URL in the settings."""
    status: dict[str, Any] = {
        "processes": list_processes(settings.data_dir),
        "disk": _disk(settings),
        "redis": None,
        "problems": [],
    }
    try:
        client = connect_to_stack(settings, explicit=explicit)
        status |= _read_redis(client)
        status["problems"] += [f"{warning}." for warning in data_warnings(client, settings)]
    except CommandError as error:
        status["problems"].append(str(error))
    except redis.RedisError as error:
        if not is_outage(error):
            raise
        status["problems"].append(outage_message(error))
    status["problems"] += find_problems(status)
    if out.as_json:
        out.print_json(status)
    else:
        _print(status, out)
    return not status["problems"]


def _disk(settings: Settings) -> dict[str, Any] | None:
    try:
        usage = shutil.disk_usage(settings.data_dir)
    except OSError:
        return None
    return {"folder": str(settings.data_dir), "total": usage.total, "free": usage.free}


def _read_redis(client: redis.Redis) -> dict[str, Any]:
    registry = WorkerRegistry(client)
    stats, workers = StatsReader(client).collect(), registry.count_running(registry.alive(ALIVE_SECONDS))
    memory: Any = client.info("memory")
    pauses = Pauses(client)
    paused, drained = pauses.since("queue"), pauses.since("worker")
    return {
        "redis": {"used": memory["used_memory"], "limit": memory["maxmemory"] or None},
        "queues": [
            {"queue": name, "waiting": queue.waiting, "oldest": queue.oldest_ms / 1000, "paused": _seconds(paused.get(name))}
            for name, queue in sorted(stats.queues.items())
        ],
        "jobs": {"open": stats.open, "running": stats.running, "dead_letters": stats.dead_letters},
        "started": stats.counters("workers started"),
        "workers": [
            {"worker": worker.name, "pool": worker.pool, "running": worker.running, "slots": worker.slots}
            | {"queues": list(worker.queues)}
            | {"model": worker.model, "phase": worker.phase, "message": worker.message}
            | {"drained": _seconds(drained.get(worker.name))}
            for worker in sorted(workers, key=lambda worker: worker.name)
        ],
        # Such a worker does not count as alive.
        "frozen_engines": [
            {"worker": worker.name, "pid": worker.engine_pid}
            for worker in registry.workers()
            if worker.machine == machine_id() and worker.has_stopped_engine()
        ],
        "last_failures": _last_failures(client),
    }


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _last_failures(client: Any) -> list[dict[str, Any]]:
    queries = JobQueries(client)
    failed = []
    for owner in sorted(client.smembers(PREFIX + "owners"))[:MAX_OWNERS]:
        page, _ = queries.list_jobs(owner, limit=JOBS_PER_OWNER)
        failed += [job for job in page if job.status is Status.FAILED]
    failed.sort(key=lambda job: job.ended_at or 0, reverse=True)
    return [
        {
            "job": job.id,
            "kind": job.kind,
            "owner": job.owner,
            "ended": (job.ended_at or 0) / 1000,
            "code": (job.error or {}).get("code", ""),
        }
        for job in failed[:LAST_FAILURES]
    ]


def find_problems(status: dict[str, Any]) -> list[str]:
    """What an operator has to look at, as sentences."""
    problems = [
        f"Process {item['process']} (pid {item['pid']}) is {item['state']}."
        for item in status["processes"]
        if item["state"] != "running"
    ]
    if status["redis"] is None:
        return problems
    problems += [f"The engine of {item['worker']} (pid {item['pid']}) is frozen." for item in status.get("frozen_engines", ())]
    alive = {worker["pool"] for worker in status["workers"]}
    problems += [
        f"No {pool} worker is alive." for pool in ("gpu", "cpu", "io") if pool not in alive and _is_expected(pool, status)
    ]
    problems += [
        f"Queue {queue['queue']} is paused, and jobs wait in it ({queue['waiting']}): "
        f"`enginehouse queues resume {queue['queue']}` lets them run."
        for queue in status["queues"]
        if queue["waiting"] and queue.get("paused") is not None
    ]
    problems += list(_drained(status))
    return problems + [
        f"Model {worker['model']} failed on {worker['worker']}: {worker['message']}"
        for worker in status["workers"]
        if worker["phase"] == "failed"
    ]


def _drained(status: dict[str, Any]) -> Iterator[str]:
    """Queues whose jobs wait because all their workers are drained. A drain outlasts restarts, so one can be forgotten."""
    for queue in status["queues"]:
        serving = [worker for worker in status["workers"] if queue["queue"] in worker.get("queues", ())]
        if queue["waiting"] and serving and all(worker["drained"] is not None for worker in serving):
            names = sorted({worker["worker"] for worker in serving})
            yield (
                f"Jobs wait in queue {queue['queue']} ({queue['waiting']}), whose workers are drained: "
                f"`enginehouse workers resume {names[0]}` lets them run."
            )


def _is_expected(pool: str, status: dict[str, Any]) -> bool:
    """Whether a pool is part of the installation: one that never had a worker, a process or a job may have been left out on purpose."""
    waiting = [queue["queue"] for queue in status["queues"] if queue["waiting"]]
    return (
        status["started"].get(pool, 0) > 0
        or any(item["process"].rstrip("0123456789") == pool for item in status["processes"])
        or any(name.partition(".")[0] == pool for name in waiting)
    )


def _print(status: dict[str, Any], out: Output) -> None:
    def of(items: list[dict[str, Any]], *names: str) -> list[tuple[object, ...]]:
        return [tuple(item[name] for name in names) for item in items]

    sections = [
        Section("problems", ("problem",), [(problem,) for problem in status["problems"]]),
        Section("processes", ("process", "pid", "state"), of(status["processes"], "process", "pid", "state")),
    ]
    memory, disk = status["redis"], status["disk"]
    resources: list[tuple[object, ...]] = []
    if memory is not None:
        limit = size_text(memory["limit"]) if memory["limit"] else "no limit"
        resources.append(("Redis memory used", size_text(memory["used"]), limit))
    if disk is not None:
        resources.append(("disk free", size_text(disk["free"]), size_text(disk["total"])))
    sections.append(Section("resources", ("resource", "size", "of"), resources))
    if memory is not None:
        jobs = of([status["jobs"]], "open", "running", "dead_letters")
        queues = [
            (queue["queue"], queue["waiting"], duration_text(queue["oldest"]), _since(queue["paused"]))
            for queue in status["queues"]
        ]
        columns = ("worker", "pool", "running", "slots", "model", "phase")
        workers = [(*(worker[name] for name in columns), _since(worker["drained"])) for worker in status["workers"]]
        failures = [
            (item["job"], item["kind"], item["owner"], clock(item["ended"]), first_line(item["code"]))
            for item in status["last_failures"]
        ]
        sections += [
            Section("jobs", ("open", "running", "dead letters"), jobs),
            Section("queues", ("queue", "waiting", "oldest", "paused"), queues),
            Section("workers", (*columns, "drained"), workers),
            Section("last failures", ("job", "kind", "owner", "ended", "code"), failures),
        ]
    print_sections(sections, out)


def _since(seconds: float | None) -> str:
    return "" if seconds is None else f"since {clock(seconds)}"
