"""``enginehouse top``: queues, workers, GPUs, rates and the oldest jobs, live on a terminal, or once for a pipe.

Rates are differences between two readings of the metrics' counters, so they cover the whole server.
"""

import shutil
import sys
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import redis

from cli.admin.sections import Section, print_sections
from cli.output import Output, duration_text, size_text, words
from cli.safe_text import safe_line
from shared.jobs.models import Job, Status
from shared.jobs.pauses import Pauses
from shared.jobs.queries import JobQueries
from shared.jobs.stats import Stats, StatsReader
from shared.jobs.worker_registry import Worker, WorkerRegistry
from shared.redis_connection import PREFIX, is_outage, redis_time_ms
from shared.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

ALIVE_SECONDS = 30.0
OLDEST_JOBS = 10
# Open jobs in the order in which maintenance looks at them: all running jobs, and the oldest waiting ones.
MAX_OPEN_JOBS = 5000


@dataclass(frozen=True)
class Reading:
    """The state at one moment. ``now`` is the time of Redis in Unix milliseconds."""

    now: int
    stats: Stats
    workers: Sequence[Worker]
    oldest: Sequence[Job]
    memory: Mapping[str, Any]
    disk_free: int | None
    paused_queues: Container[str]
    drained_workers: Container[str]


def read_state(client: Any, settings: Settings) -> Reading:
    """Read everything. Raises RedisError."""
    try:
        disk_free: int | None = shutil.disk_usage(settings.data_dir).free
    except OSError:
        disk_free = None
    pauses, registry = Pauses(client), WorkerRegistry(client)
    return Reading(
        redis_time_ms(client),
        StatsReader(client).collect(),
        sorted(registry.count_running(registry.alive(ALIVE_SECONDS)), key=lambda worker: worker.name),
        _oldest_jobs(client),
        client.info("memory"),
        disk_free,
        pauses.since("queue"),
        pauses.since("worker"),
    )


def _oldest_jobs(client: Any) -> list[Job]:
    # Ids begin with the time of submission.
    ids = sorted(client.zrange(f"{PREFIX}jobs:due", 0, MAX_OPEN_JOBS - 1))
    found: list[Job] = []
    while ids and len(found) < OLDEST_JOBS:
        # A batch is as old as its oldest job, and says less.
        found += [job for job in JobQueries(client).read_jobs(ids[:OLDEST_JOBS]) if job.counts is None and not job.status.final]
        ids = ids[OLDEST_JOBS:]
    return found[:OLDEST_JOBS]


def figures_of(before: Reading, now: Reading) -> dict[str, Any]:
    """What two readings, one after the other, say as numbers, for JSON. Times are in seconds, sizes in bytes."""
    seconds = max(0.001, (now.now - before.now) / 1000)

    def rate(group: str, name: str | None = None) -> float:
        grown = _total(now.stats, group, name) - _total(before.stats, group, name)
        return max(0, grown) / seconds

    return {
        "server": {
            "running": now.stats.running,
            "waiting": sum(queue.waiting for queue in now.stats.queues.values()),
            "dead_letters": now.stats.dead_letters,
            "submitted_per_second": rate("submitted"),
            "ended_per_second": rate("ended"),
            "tokens_per_second": _tokens_per_second(before, now, seconds),
            "pages_per_second": rate("pages"),
            "deliveries_pending": now.stats.deliveries_pending,
        },
        "redis": {"used": now.memory["used_memory"], "limit": now.memory["maxmemory"] or None},
        "disk": {"free": now.disk_free},
        "queues": [
            {
                "queue": name,
                "waiting": queue.waiting,
                "oldest": queue.oldest_ms / 1000,
                "entered_per_second": rate("entered", name),
                "claimed_per_second": rate("claimed", name),
                "paused": name in now.paused_queues,
            }
            for name, queue in sorted(now.stats.queues.items())
        ],
        "workers": [
            {"worker": worker.name, "pool": worker.pool, "running": worker.running, "slots": worker.slots}
            | {"model": worker.model, "phase": worker.phase, "drained": worker.name in now.drained_workers}
            | {"engine": {name: (worker.engine or {}).get(name) for name in ("running", "tokens_per_second", "cache_use")}}
            for worker in now.workers
        ],
        "gpus": [{"worker": worker.name, **gpu} for worker in now.workers for gpu in worker.gpus],
        "documents": [{"stage": stage, "documents": number} for stage, number in sorted(now.stats.stages.items())],
        "oldest_jobs": [
            {"job": job.id, "kind": job.kind, "owner": job.owner, "status": job.status.value}
            | {"age": (now.now - job.created_at) / 1000, "queue": job.queue, "waiting": job.waiting}
            | ({"phase": job.phase, "worker": job.worker} if job.status is Status.IN_PROGRESS else {"phase": "", "worker": ""})
            for job in now.oldest
        ],
    }


def sections_of(figures: Mapping[str, Any]) -> list[Section]:
    """The figures as texts for a screen."""
    server, memory, free = figures["server"], figures["redis"], figures["disk"]["free"]
    summary = [
        ("jobs running", str(server["running"])),
        ("jobs waiting", str(server["waiting"])),
        ("dead letters", str(server["dead_letters"])),
        ("submitted / s", f"{server['submitted_per_second']:.1f}"),
        ("ended / s", f"{server['ended_per_second']:.1f}"),
        ("tokens / s", f"{server['tokens_per_second']:.0f}"),
        ("pages / s", f"{server['pages_per_second']:.1f}"),
        ("deliveries pending", str(server["deliveries_pending"])),
        ("Redis memory", size_text(memory["used"]) + (f" of {size_text(memory['limit'])}" if memory["limit"] else "")),
        ("disk free", "" if free is None else size_text(free)),
    ]
    queues = [
        (
            queue["queue"],
            queue["waiting"],
            duration_text(queue["oldest"]),
            f"{queue['entered_per_second']:.1f}",
            f"{queue['claimed_per_second']:.1f}",
            "paused" if queue["paused"] else "",
        )
        for queue in figures["queues"]
    ]
    workers = [
        (
            worker["worker"],
            worker["pool"],
            f"{worker['running']}/{worker['slots']}",
            worker["model"],
            "drained" if worker["drained"] else worker["phase"],
            "" if worker["engine"]["running"] is None else str(worker["engine"]["running"]),
            _text(worker["engine"]["tokens_per_second"], ".0f"),
            _text(worker["engine"]["cache_use"], ".0%"),
        )
        for worker in figures["workers"]
    ]
    gpus = [
        (
            gpu["worker"],
            gpu["index"],
            f"{size_text(gpu['memory_used'])} of {size_text(gpu['memory_total'])}" if gpu.get("memory_total") else "",
            _text(gpu.get("utilisation"), ".0%"),
            _text(gpu.get("temperature"), ".0f"),
            _text(gpu.get("power"), ".0f"),
        )
        for gpu in figures["gpus"]
    ]
    stages = [(entry["stage"], entry["documents"]) for entry in figures["documents"]]
    jobs = [
        (job["job"], job["kind"], job["owner"], job["status"], duration_text(job["age"]), _place(job))
        for job in figures["oldest_jobs"]
    ]
    return [
        Section("server", ("what", "value"), summary),
        Section("queues", ("queue", "waiting", "oldest", "in / s", "out / s", "state"), queues),
        Section("workers", ("worker", "pool", "slots", "model", "phase", "batch", "tokens / s", "cache"), workers),
        Section("gpus", ("worker", "gpu", "memory", "busy", "°C", "W"), gpus),
        Section("documents", ("stage", "documents"), stages),
        Section("oldest jobs", ("job", "kind", "owner", "status", "age", "where"), jobs),
    ]


def _total(stats: Stats, group: str, name: str | None) -> int:
    counters = stats.counters(group)
    if name is None:
        return sum(counters.values())
    return counters.get(name, 0)


def _tokens_per_second(before: Reading, now: Reading, seconds: float) -> float:
    earlier = {worker.id: (worker.engine or {}).get("tokens", 0) for worker in before.workers}
    grown = [(worker.engine or {}).get("tokens", 0) - earlier.get(worker.id, 0) for worker in now.workers if worker.id in earlier]
    return float(sum(max(0, number) for number in grown)) / seconds


def _text(number: float | None, form: str) -> str:
    return "" if number is None else format(number, form)


def _place(job: Mapping[str, Any]) -> str:
    if job["worker"]:
        return f"{job['phase']} on {job['worker']}"
    return f"{job['queue']}, waiting: {words(job['waiting'])}" if job["waiting"] else str(job["queue"])


def show_top(client: redis.Redis, settings: Settings, *, once: bool, seconds: float, out: Output) -> None:
    """Show the state until Ctrl-C, or once without a terminal. ``seconds`` is the time between two readings."""
    if once or out.as_json or not out.terminal:
        before = read_state(client, settings)
        time.sleep(seconds)
        figures = figures_of(before, read_state(client, settings))
        if out.as_json:
            out.print_json(figures)
        else:
            print_sections(sections_of(figures), out)
        return
    _show_live(lambda: read_state(client, settings), seconds)


def _show_live(read: Callable[[], Reading], seconds: float) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(file=sys.stdout)
    before: Reading | None = None
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                try:
                    now = read()
                    live.update(render(sections_of(figures_of(before or now, now)), console.height), refresh=True)
                    before = now
                except redis.RedisError as error:
                    if not is_outage(error):
                        raise
                    live.update(f"Redis does not answer ({safe_line(str(error))}); trying again.", refresh=True)
                time.sleep(seconds)
    except KeyboardInterrupt:
        return


def render(sections: Sequence[Section], height: int) -> "RenderableType":
    """The screen: the summary on one line, then a table for each section, as far as it fits."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    summary, *others = sections
    parts: list[Any] = [Text("  ".join(f"{name} {value}" for name, value in summary.rows), "bold"), Text("Ctrl-C ends.", "dim")]
    left = height - 3
    shown = [section for section in others if section.rows]
    for number, section in enumerate(shown):
        # The sections that follow need at least a title, a header and two rows.
        room = left - 4 * (len(shown) - number - 1) - 3
        rows = section.rows[: max(1, room)]
        more = len(section.rows) - len(rows)
        table = Table(title=section.name + (f" ({more} more)" if more else ""), title_justify="left", box=None, pad_edge=False)
        for column in section.columns:
            table.add_column(column, no_wrap=True, overflow="ellipsis")
        for row in rows:
            table.add_row(*(Text(safe_line(str(cell))) for cell in row))
        parts += [Text(""), table]
        left -= len(rows) + 3
    return Group(*parts)
