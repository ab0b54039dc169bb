"""Statistics: queue lengths and counters, which count every event once."""

import math

import pytest
import redis

from shared.documents.store import Documents
from shared.errors import EngineFault
from shared.ids import DOCUMENT, new_id
from shared.jobs.models import Job, Status
from shared.jobs.stats import Distribution, QueueState, Stats, StatsReader
from shared.jobs.submission import Submission
from shared.jobs.transitions import Event
from shared.jobs.worker_registry import Worker, WorkerRegistry
from shared.redis_connection import PREFIX
from shared.settings import Settings
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


def test_times_of_jobs_are_observed_once(system: JobSystem, stats_reader: StatsReader, clock: Clock) -> None:
    submit(system, model="a")
    clock.advance(3)
    job = claim(system, "one")
    system.transitions.claim("gpu.a", WORKER, "one")
    clock.advance(0.2)
    event = Event(job=job.id, attempt=1, index=1, type="delta", data={"text": "x"})
    system.transitions.append_events([event])
    clock.advance(4)
    for _ in range(2):
        system.transitions.finish((job.id, 1), Status.COMPLETED, token_seconds=0.02)
    histograms = stats_reader.histograms()
    seen = {name: [(each.labels, each.sum, observed(each)) for each in found] for name, found in histograms.items()}
    labels = ("generate", "a")
    assert seen == {
        "wait": [(labels, 3.0, {5.0: 1})],
        "run": [(labels, 4.2, {5.0: 1})],
        "duration": [(labels, 7.2, {10.24: 1})],
        "first_token": [(labels, 3.2, {5.0: 1})],
        "per_token": [(labels, 0.02, {0.025: 1})],
        "fetch": [],
        "delivery": [],
    }


def observed(distribution: Distribution) -> dict[float, int]:
    """The observations in each bucket that has any."""
    before, found = 0, {}
    for bound, number in distribution.buckets:
        if number > before:
            found[bound] = number - before
        before = number
    return found


def test_many_notes_are_added_up_before_anyone_reads_them(
    system: JobSystem, stats_reader: StatsReader, redis_client: redis.Redis, clock: Clock
) -> None:
    lengths = []
    for number in range(100):
        submit(system)
        job = claim(system, str(number))
        clock.advance(2)
        system.transitions.finish((job.id, 1), Status.COMPLETED)
        lengths.append(redis_client.llen(f"{PREFIX}stats:notes"))
    assert max(lengths) < 200 < 3 * 100, "two hundred notes have been added up"
    assert stats_reader.collect().counters("ended") == {"generate completed": 100}
    assert redis_client.llen(f"{PREFIX}stats:notes") == 0
    runs = stats_reader.histograms()["run"]
    assert (runs[0].buckets[-1][1], runs[0].sum) == (100, 200.0)


def test_notes_reach_only_the_hashes_of_metrics_and_never_stop_a_job(
    system: JobSystem, stats_reader: StatsReader, redis_client: redis.Redis
) -> None:
    foreign = (
        "owner:ada:limits\nqueued_jobs\n1\n" + "counts\nodd\nmany\n" + "counts\nbroken\n1\n" + "counts\neven\n2\n" + "no note"
    )
    redis_client.hset(f"{PREFIX}counts", "broken", "text")
    redis_client.rpush(f"{PREFIX}stats:notes", *[foreign] * 199)
    submit(system)
    job = claim(system, "one")
    system.transitions.finish((job.id, 1), Status.COMPLETED)
    assert redis_client.keys(f"{PREFIX}owner:ada:limits") == []
    redis_client.hdel(f"{PREFIX}counts", "broken")
    counts = stats_reader.collect().counts
    assert (counts["even"], counts["ended generate completed"]) == (398, 1)


def test_a_wait_begins_anew_with_each_attempt_and_after_the_time_before_which_a_job_must_not_start(
    system: JobSystem, stats_reader: StatsReader, clock: Clock
) -> None:
    submit(system)
    job = claim(system, "one")
    clock.advance(100)
    system.transitions.retry((job.id, 1), 0, EngineFault("gone").as_json())  # waits up to 1.5 s before it may start
    clock.advance(2)
    system.maintenance.reap()
    claim(system, "two")
    [waits] = stats_reader.histograms()["wait"]
    assert waits.buckets[-1] == (math.inf, 2)
    assert 0.5 <= waits.sum <= 1.0
    system.transitions.cancel(job.id, "ada")
    system.transitions.finish((job.id, 2), Status.CANCELLED)
    assert stats_reader.histograms()["run"] == [], "only completed jobs have times"


def test_urls_are_counted_by_what_became_of_them(system: JobSystem, stats_reader: StatsReader, clock: Clock) -> None:
    for number, result in enumerate(({"status": "fetched", "bytes": 700}, {"status": "unchanged", "bytes": 0}, None)):
        submit(system, kind="fetch")
        job = claim(system, str(number))
        clock.advance(2)
        for _ in range(2):
            system.transitions.finish((job.id, 1), Status.COMPLETED if result else Status.FAILED, result=result)
    waiting = submit(system, kind="fetch")
    system.transitions.cancel(waiting, "ada")
    seen = stats_reader.collect()
    assert seen.counters("fetches") == {"fetched": 1, "unchanged": 1, "failed": 1, "cancelled": 1}
    assert seen.counters("fetched") == {"bytes": 700}
    times = {each.labels[0]: (each.sum, observed(each)) for each in stats_reader.histograms()["fetch"]}
    assert times == {outcome: (2.0, {2.5: 1}) for outcome in ("fetched", "unchanged", "failed")}


def test_a_line_of_a_request_batch_has_no_waiting_time(system: JobSystem, stats_reader: StatsReader) -> None:
    submit(system, line_of="job_b")
    job = claim(system, "one")
    system.transitions.finish((job.id, 1), Status.COMPLETED)
    assert {name for name, found in stats_reader.histograms().items() if found} == {"run"}


def test_documents_and_their_pages_are_counted_by_how_they_ended(
    system: JobSystem, stats_reader: StatsReader, redis_client: redis.Redis, settings: Settings
) -> None:
    documents = Documents(redis_client, settings)
    collection = documents.ensure_collection("ada", "papers", "all-minilm")

    def register(digest: str) -> str:
        document, _ = documents.register(
            collection,
            document_id=new_id(DOCUMENT),
            name=digest,
            size=1,
            sha256=digest * 64,
            media_type="application/pdf",
            job_id="job_1",
        )
        return document.id

    read, rejected = register("a"), register("b")
    documents.set_stage(read, "job_1", 1, "parsing", pages=9, pages_done=4)
    documents.set_stage(read, "job_1", 1, "parsing", pages=9, pages_done=9)
    for _ in range(2):
        documents.finish(read, "job_1", 1, "ready", pages=9, chunks=1)
        documents.finish(rejected, "job_1", 1, "encrypted", reason="It needs a password.")
    seen = stats_reader.collect()
    assert seen.counters("documents") == {"ready": 1, "encrypted": 1}
    assert seen.counters("pages") == {"read": 9}


def test_running_ingests_are_counted_by_stage(
    system: JobSystem, stats_reader: StatsReader, redis_client: redis.Redis, clock: Clock
) -> None:
    reader = Worker(id="cpu@h/2", name="cpu@h", pool="cpu", machine="m", pid=2, started=0.0, queues=("cpu",), slots=2)
    WorkerRegistry(redis_client, clock=clock).heartbeat(reader)
    submit(system, kind="ingest", queue="cpu")
    job = system.transitions.claim("cpu", reader.id, "one")
    assert job is not None
    event = Event(job=job.id, attempt=1, index=1, type="progress", data={}, phase="ocr")
    system.transitions.append_events([event])
    assert stats_reader.collect().stages == {"ocr": 1}
    system.transitions.finish((job.id, 1), Status.COMPLETED)
    assert stats_reader.collect().stages == {}


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
