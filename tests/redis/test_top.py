"""What ``enginehouse top`` computes and draws: rates between two readings, the oldest jobs, and a screen of any height."""

import io

import pytest
import redis
from rich.console import Console

from cli.admin.top import figures_of, read_state, render, sections_of
from shared.jobs.models import Status
from shared.jobs.pauses import Pauses
from shared.jobs.submission import Submission
from shared.jobs.worker_registry import Worker, WorkerRegistry
from shared.settings import Settings
from tests.conftest import JobSystem

GPU = {
    "index": 0,
    "memory_used": 60 * 1024**3,
    "memory_total": 80 * 1024**3,
    "utilisation": 0.5,
    "temperature": 61,
    "power": 300.5,
}


@pytest.fixture
def system(redis_client: redis.Redis, settings: Settings) -> JobSystem:
    """On the clock of Redis, which ages are measured with."""
    return JobSystem(redis_client, settings, lambda queue, count: None)


def beat(client: redis.Redis, tokens: int) -> None:
    worker = Worker(
        id="gpu0@h/1", name="gpu0@h", pool="gpu", machine="m", pid=1, started=0.0, queues=("gpu.a",), slots=4, model="a",
        engine={"tokens": tokens, "running": 2, "tokens_per_second": 99.0, "cache_use": 0.25}, gpus=(GPU,),
    )  # fmt: skip
    WorkerRegistry(client).heartbeat(worker)


def submit(system: JobSystem, count: int = 1) -> list[str]:
    jobs = [Submission(kind="generate", queue="gpu.a", model="a", spec={"prompt": "x"}, owner="ada") for _ in range(count)]
    return [submitted.id for submitted in system.submitter.submit_jobs(jobs)]


def test_rates_are_those_between_two_readings(system: JobSystem, redis_client: redis.Redis, settings: Settings) -> None:
    beat(redis_client, 100)
    before = read_state(redis_client, settings)
    jobs = submit(system, 3)
    running = system.transitions.claim("gpu.a", "gpu0@h/1", "one")
    assert running is not None
    beat(redis_client, 150)
    now = read_state(redis_client, settings)
    seconds = max(0.001, (now.now - before.now) / 1000)
    sections = {section.name: section for section in sections_of(figures_of(before, now))}
    summary = dict(sections["server"].rows)
    assert (summary["jobs running"], summary["jobs waiting"]) == ("1", "2")
    assert float(str(summary["submitted / s"])) == pytest.approx(3 / seconds, rel=0.1)
    assert float(str(summary["tokens / s"])) == pytest.approx(50 / seconds, rel=0.1)
    [worker] = sections["workers"].rows
    assert worker == ("gpu0@h", "gpu", "1/4", "a", "ready", "2", "99", "25%")
    assert sections["gpus"].rows == [("gpu0@h", 0, "60.0 GiB of 80.0 GiB", "50%", "61", "300")]
    oldest = sections["oldest jobs"].rows
    assert [row[0] for row in oldest] == sorted(jobs)
    assert {row[3] for row in oldest} == {"in_progress", "queued"}


def test_paused_queues_and_drained_workers_are_shown(system: JobSystem, redis_client: redis.Redis, settings: Settings) -> None:
    beat(redis_client, 1)
    submit(system)
    pauses = Pauses(redis_client)
    pauses.pause("queue", "gpu.a")
    pauses.pause("worker", "gpu0@h")
    state = read_state(redis_client, settings)
    sections = {section.name: section for section in sections_of(figures_of(state, state))}
    assert [(row[0], row[-1]) for row in sections["queues"].rows] == [("gpu.a", "paused")]
    assert [(row[0], row[4]) for row in sections["workers"].rows] == [("gpu0@h", "drained")]


def test_jobs_that_ended_are_not_among_the_oldest(system: JobSystem, redis_client: redis.Redis, settings: Settings) -> None:
    jobs = submit(system, 30)
    first = system.transitions.claim("gpu.a", "w", "one")
    assert first is not None
    system.transitions.finish((first.id, 1), Status.COMPLETED)
    oldest = read_state(redis_client, settings).oldest
    assert [job.id for job in oldest] == sorted(set(jobs) - {first.id})[:10]


@pytest.mark.parametrize("height", [12, 24, 60])
def test_the_screen_fits_its_height(system: JobSystem, redis_client: redis.Redis, settings: Settings, height: int) -> None:
    beat(redis_client, 1)
    submit(system, 20)
    state = read_state(redis_client, settings)
    stream = io.StringIO()
    console = Console(file=stream, width=160, height=height, force_terminal=False)
    console.print(render(sections_of(figures_of(state, state)), height))
    lines = stream.getvalue().splitlines()
    assert len(lines) <= max(height, 22)
    assert "gpu.a" in stream.getvalue()
    assert "oldest jobs" in stream.getvalue()
