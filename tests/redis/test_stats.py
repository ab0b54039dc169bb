"""Statistics: queue lengths and counters, which count every event once."""

import pytest
import redis

from shared.errors import EngineFault
from shared.jobs.models import Job, Status
from shared.jobs.stats import QueueState, Stats, StatsReader
from shared.jobs.submission import Submission
from shared.jobs.worker_registry import Worker, WorkerRegistry
from tests.conftest import Clock, JobSystem

WORKER = "gpu0@h/1"


@pytest.fixture
def stats_reader(redis_client: redis.Redis, clock: Clock) -> StatsReader:
    worker = Worker(id=WORKER, name="gpu0@h", pool="gpu", machine="m", pid=1, started=0.0, queues=("gpu.a",), slots=4, model="a")
    WorkerRegistry(redis_client, clock=clock).heartbeat(worker)
    return StatsReader(redis_client, clock=clock)


def submit(system: JobSystem, **fields: object) -> str:
    values: dict[str, object] = {"kind": "generate", "queue": "gpu.a", "spec": {}, "owner": "ada", **fields}
    return system.submitter.submit_job(Submission(**values)).id  # type: ignore[arg-type]


def claim(system: JobSystem, token: str) -> Job:
    job = system.transitions.claim("gpu.a", WORKER, token)
    assert job is not None
    return job


def test_statistics_of_an_empty_server(stats_reader: StatsReader) -> None:
    assert stats_reader.collect() == Stats(0, 0, 0, 0, {}, {"workers started gpu": 1})


def test_queues_report_their_length_and_the_age_of_the_oldest_job_of_any_priority(
    system: JobSystem, stats_reader: StatsReader, clock: Clock
) -> None:
    jobs = [submit(system, priority=9)]
    clock.advance(5)
    jobs += [submit(system, priority=0, owner="bob"), submit(system, priority=0)]
    clock.advance(1)
    seen = stats_reader.collect()
    assert seen.queues == {"gpu.a": QueueState(waiting=3, oldest_ms=6000, wakeups=0)}
    assert (seen.open, seen.running) == (3, 0)
    for job, owner in zip(jobs, ("ada", "bob", "ada"), strict=True):
        system.transitions.cancel(job, owner)


def test_every_event_is_counted_once(system: JobSystem, stats_reader: StatsReader, clock: Clock) -> None:
    submit(system)
    job = claim(system, "one")
    system.transitions.claim("gpu.a", WORKER, "one")
    assert stats_reader.collect().running == 1
    system.transitions.retry((job.id, 1), 0, EngineFault("gone").as_json())
    clock.advance(10)
    system.maintenance.reap()
    lost = claim(system, "two")
    assert system.maintenance.mark_worker_dead(WORKER) == [lost.id]
    last = claim(system, "three")
    for _ in range(2):
        system.transitions.finish((last.id, last.attempt), Status.COMPLETED)
    seen = stats_reader.collect()
    assert (seen.open, seen.running) == (0, 0)
    assert seen.counters("submitted") == {"generate": 1}
    assert seen.counters("claimed") == {"gpu.a": 3}
    assert seen.counters("ended") == {"generate completed": 1}
    assert seen.counters("attempts") == {"lost": 1, "retried": 1}


def test_deliveries_are_pending_until_they_have_ended() -> None:
    counts = {"deliveries made": 5, "deliveries delivered": 2, "deliveries failed": 1, "ended generate failed": 1}
    assert Stats(0, 0, 0, 0, {}, counts).deliveries_pending == 2


def test_a_new_delivery_is_counted_as_pending(system: JobSystem, stats_reader: StatsReader) -> None:
    webhook = {
        "url": "https://x.example/",
        "authority": "x.example:443",
        "endpoint": "",
        "secret": "",
        "events": ["job.cancelled"],
    }
    system.transitions.cancel(submit(system, webhook=webhook), "ada")
    assert stats_reader.collect().deliveries_pending == 1
