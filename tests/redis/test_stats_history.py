"""The ring of statistics: one sample in ten seconds, gaps that stay gaps, and bounded memory."""

import json
from dataclasses import replace

import pytest
import redis

from shared.errors import EngineFault
from shared.jobs.models import Status
from shared.jobs.stats import QueueState, Stats
from shared.jobs.stats_history import DAY, GPU_STATES, HOUR, MAX_SAMPLE_BYTES, History, StatsHistory, sample_of
from shared.jobs.worker_registry import Worker, WorkerRegistry
from tests.conftest import Clock, JobSystem
from tests.redis.test_stats import claim, submit

GPU = {"memory_used": 3, "memory_total": 4, "temperature": 60, "power": 100.0, "utilisation": 0.5}
WORKER = Worker(
    id="gpu0@h/1",
    name="gpu0@h",
    pool="gpu",
    machine="m",
    pid=1,
    started=0.0,
    queues=("gpu.a",),
    slots=4,
    model="a",
    engine={"tokens": 1000, "running": 2, "in_flight": 8, "cache_use": 0.25},
    gpus=(GPU, GPU | {"temperature": 70, "power": None}),
)


@pytest.fixture
def history(redis_client: redis.Redis, clock: Clock) -> StatsHistory:
    WorkerRegistry(redis_client, clock=clock).heartbeat(WORKER)
    return StatsHistory(redis_client, clock=clock)


def record(history: StatsHistory) -> float:
    return history.record(alive_seconds=1000)


def test_one_process_writes_the_sample_of_an_interval(redis_client: redis.Redis, history: StatsHistory, clock: Clock) -> None:
    other = StatsHistory(redis_client, clock=clock)
    [seconds] = {record(history), record(other), record(history)}
    assert redis_client.llen("eh:stats:samples:hour") == 1
    clock.advance(seconds - 0.001)
    record(other)
    assert redis_client.llen("eh:stats:samples:hour") == 1, "the interval is not over"
    clock.advance(0.001)
    assert {record(other), record(history)} == {10}
    assert redis_client.llen("eh:stats:samples:hour") == 2
    assert 0 < redis_client.ttl("eh:stats:samples:hour") <= 3610


def test_what_happened_between_two_samples_is_counted_by_queue(system: JobSystem, history: StatsHistory, clock: Clock) -> None:
    record(history)
    clock.advance(10)
    for _ in range(3):
        submit(system)
    record(history)
    clock.advance(10)
    done, failed = claim(system, "one"), claim(system, "two")
    system.transitions.finish((done.id, 1), Status.COMPLETED)
    system.transitions.finish((failed.id, 1), Status.FAILED, error=EngineFault("gone").as_json())
    record(history)
    clock.advance(10)
    moved = claim(system, "three")
    system.transitions.hand_over((moved.id, 1), "cpu", {})
    record(history)
    seen = history.read(1)
    assert seen.queue("gpu.a", "waiting")[-3:] == [3, 1, 0]
    assert seen.queue("gpu.a", "oldest_ms")[-3:] == [0, 10_000, 0]
    assert seen.queue("gpu.a", "submitted")[-3:] == [3, 0, 0]
    assert seen.queue("gpu.a", "ended")[-3:] == [0, 2, 1]
    assert seen.queue("gpu.a", "failed")[-3:] == [0, 1, 0]
    assert seen.queue("cpu", "submitted")[-3:] == [0, 0, 1]
    assert (seen.growth("submitted")[-3:], seen.growth("ended")[-3:]) == ([3, 0, 0], [0, 2, 0])
    assert seen.totals("queued")[-3:] == [3, 1, 1]
    system.transitions.cancel(moved.id, "ada")


def test_an_interval_without_a_sample_is_a_gap_and_not_a_zero(system: JobSystem, history: StatsHistory, clock: Clock) -> None:
    record(history)
    clock.advance(30)
    job = submit(system)
    record(history)
    clock.advance(10)
    record(history)
    seen = history.read(1)
    assert len(seen.samples) == 7
    assert seen.totals("queued") == [None, 0, None, None, 1, 1]
    # What happened within the gap is unknown; the first sample has none before it.
    assert seen.growth("submitted") == [None, None, None, None, None, 0]
    assert seen.workers("gpu")[-2:] == [1, 1]
    clock.advance(5)
    assert history.read(1).totals("queued") == seen.totals("queued")
    clock.advance(5)
    # The present interval may still get its sample, so the answer ends before it.
    assert history.read(1).totals("queued") == seen.totals("queued")
    clock.advance(10)
    assert history.read(1).totals("queued")[-3:] == [1, 1, None]
    system.transitions.cancel(job, "ada")


def test_a_day_has_a_sample_of_each_five_minutes(
    redis_client: redis.Redis, system: JobSystem, history: StatsHistory, clock: Clock
) -> None:
    record(history)
    jobs = [submit(system) for _ in range(2)]
    for _ in range(60):
        clock.advance(10)
        record(history)
    assert redis_client.llen("eh:stats:samples:day") in (2, 3)
    assert 0 < redis_client.ttl("eh:stats:samples:day") <= 86_700
    seen = history.read(61)
    assert (seen.interval_seconds, len(seen.samples)) == (300, 13)
    assert seen.totals("queued")[-1] == 2
    assert sum(grown or 0 for grown in seen.growth("submitted")) == 2
    assert len(history.read(DAY.minutes).samples) == DAY.kept
    assert history.read(60).interval_seconds == 10
    for job in jobs:
        system.transitions.cancel(job, "ada")


def test_a_gpu_worker_reports_engine_and_all_its_gpus(history: StatsHistory) -> None:
    record(history)
    seen = history.read(1)
    assert seen.gpus() == {"gpu0@h": "a"}
    assert [seen.gpu("gpu0@h", name)[-1] for name in GPU_STATES] == [2, 8, 0.25, 6, 8, 0.5, 70, 100.0]


def test_tokens_between_two_samples_count_also_if_the_engine_is_idle_again(
    redis_client: redis.Redis, history: StatsHistory, clock: Clock
) -> None:
    registry = WorkerRegistry(redis_client, clock=clock)
    # It writes 200 tokens, is restarted and writes 50, is idle, and then sends no heartbeat.
    for tokens in (1000, 1200, 50, 50, None):
        if tokens is not None:
            registry.heartbeat(replace(WORKER, engine={"tokens": tokens}))
        record(history)
        clock.advance(10)
    seen = history.read(1)
    assert seen.speed("gpu0@h")[-4:] == seen.total_speed()[-4:] == [20.0, 5.0, 0.0, None]


def test_a_worker_without_gpus_has_no_memory_and_no_temperature() -> None:
    bare = replace(WORKER, gpus=(), engine=None, seen_at=5)
    sample = json.loads(sample_of(Stats(0, 0, 0, 0, {}, {}), [bare]))
    assert sample["gpus"] == {"gpu0@h": ["a", None, 5, *[None] * 8]}
    assert History(0, [sample, sample]).total_speed() == [None]
    assert History(0, [None, None]).total_speed() == [None]


def test_the_ring_is_bounded(redis_client: redis.Redis, history: StatsHistory, clock: Clock) -> None:
    queues = {f"gpu.{'m' * 60}{number}": QueueState(waiting=number, oldest_ms=10**9, wakeups=0) for number in range(200)}
    text = sample_of(Stats(0, 0, 0, 0, queues, {}), [WORKER])
    assert 0.9 * MAX_SAMPLE_BYTES < len(text) <= MAX_SAMPLE_BYTES
    sample = json.loads(text)
    assert "gpu0@h" in sample["gpus"]
    # The queues with most waiting jobs fit, and of the others nothing is claimed.
    assert len(sample["queues"]) + sample["omitted"] == 200
    assert f"gpu.{'m' * 60}199" in sample["queues"]
    seen = History(0, [sample, sample])
    assert seen.queue(f"gpu.{'m' * 60}0", "waiting") == [None]
    for _ in range(HOUR.kept + 20):
        record(history)
        clock.advance(10)
    assert redis_client.llen("eh:stats:samples:hour") == HOUR.kept
    assert len(history.read(60).totals("queued")) == 360
    assert None not in history.read(60).totals("queued")
