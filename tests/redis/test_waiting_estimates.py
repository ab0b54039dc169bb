"""Waiting estimates of queued jobs: position, and seconds with an interval, from the recent claims of the queue."""

import random
from statistics import fmean

import pytest
import redis

from shared.jobs.models import Job, Status
from shared.jobs.pauses import Pauses
from shared.jobs.queries import JobQueries
from shared.jobs.submission import Submission
from tests.conftest import Clock, JobSystem


def submit(system: JobSystem, owner: str = "ada") -> Job:
    submitted = system.submitter.submit_job(Submission(kind="generate", queue="gpu.m", spec={}, owner=owner, cost=10))
    job = system.queries.get_job(submitted.id)
    assert job is not None
    return job


def serve(system: JobSystem, token: str) -> str:
    job = system.transitions.claim("gpu.m", "w1", token)
    assert job is not None
    system.transitions.finish((job.id, job.attempt), Status.COMPLETED, result={}, service=10)
    return job.id


def position(client: redis.Redis, job: Job) -> int:
    found = JobQueries(client).queue_snapshot(job).position
    assert found is not None
    return found


def test_position_among_jobs_of_the_same_owner(system: JobSystem, redis_client: redis.Redis, clock: Clock) -> None:
    jobs = []
    for _ in range(3):
        clock.advance(1)
        jobs.append(submit(system))
    assert [position(redis_client, job) for job in jobs] == [1, 2, 3]
    serve(system, "t1")
    assert JobQueries(redis_client).queue_snapshot(jobs[0]).position is None
    assert [position(redis_client, job) for job in jobs[1:]] == [1, 2]


@pytest.mark.parametrize("others", [1, 4])
def test_position_behind_other_owners_counts_their_turns_and_not_their_backlogs(
    system: JobSystem, redis_client: redis.Redis, clock: Clock, others: int
) -> None:
    for number in range(others):
        for _ in range(40):
            submit(system, f"greedy{number}")
    mine = []
    for _ in range(3):
        clock.advance(1)
        mine.append(submit(system, "modest"))
    positions = [position(redis_client, job) for job in mine]
    order = [serve(system, f"t{number}") for number in range(5 * (others + 1))]
    assert [order.index(job.id) + 1 for job in mine] == positions


def test_the_owner_with_the_least_service_is_next(system: JobSystem, redis_client: redis.Redis) -> None:
    first = submit(system, "ada")
    for _ in range(2):
        submit(system, "ada")
    assert JobQueries(redis_client).queue_snapshot(first).has_least_service
    serve(system, "t1")
    newcomer = submit(system, "bob")
    serve(system, "t2")
    assert JobQueries(redis_client).queue_snapshot(newcomer).has_least_service


def test_too_few_claims_give_no_estimate(system: JobSystem, redis_client: redis.Redis, clock: Clock) -> None:
    jobs = [submit(system) for _ in range(8)]
    for number in range(3):
        assert JobQueries(redis_client, clock=clock).queue_snapshot(jobs[-1]).estimated_wait(1) is None
        clock.advance(1)
        serve(system, f"t{number}")
    clock.advance(1)
    serve(system, "t3")
    assert JobQueries(redis_client, clock=clock).queue_snapshot(jobs[-1]).estimated_wait(2) == {
        "seconds": 2.0,
        "low": 2.0,
        "high": 2.0,
    }


def test_time_with_an_empty_queue_does_not_count_as_slowness(system: JobSystem, redis_client: redis.Redis, clock: Clock) -> None:
    for round_ in range(4):
        for _ in range(3):
            submit(system)
        for number in range(3):
            clock.advance(2)
            serve(system, f"t{round_}.{number}")
        clock.advance(500)
    assert JobQueries(redis_client, clock=clock).queue_snapshot(submit(system)).estimated_wait(1) == {
        "seconds": 2.0,
        "low": 2.0,
        "high": 2.0,
    }


def test_claims_into_free_slots_and_long_jobs_give_no_estimate(
    system: JobSystem, redis_client: redis.Redis, clock: Clock
) -> None:
    queries = JobQueries(redis_client, clock=clock)
    jobs = [submit(system) for _ in range(12)]
    for number in range(5):
        clock.advance(0.005)
        assert system.transitions.claim_for_slot("gpu.m", "w1", f"free {number}", slots=5, reserved=0) is not None
    assert queries.queue_snapshot(jobs[-1]).estimated_wait(1) is None, "nothing has ended yet"
    for number in range(4):
        system.transitions.finish((jobs[number].id, 1), Status.COMPLETED, result={})
        clock.advance(2)
        assert system.transitions.claim_for_slot("gpu.m", "w1", f"freed {number}", slots=5, reserved=0) is not None
    assert queries.queue_snapshot(jobs[-1]).estimated_wait(1) == {"seconds": 2.0, "low": 2.0, "high": 2.0}
    clock.advance(60)
    assert queries.queue_snapshot(jobs[-1]).estimated_wait(1) is None, "the jobs that run now take longer"


def test_jobs_that_end_together_give_an_estimate(system: JobSystem, redis_client: redis.Redis, clock: Clock) -> None:
    queries = JobQueries(redis_client, clock=clock)
    jobs = [submit(system) for _ in range(40)]

    def claim_round(worker: str, slots: int = 4) -> list[Job]:
        claimed = [
            system.transitions.claim_for_slot("gpu.m", worker, f"{worker} {clock.now_ms} {slot}", slots=slots, reserved=0)
            for slot in range(slots)
        ]
        assert all(isinstance(job, Job) for job in claimed)
        return [job for job in claimed if isinstance(job, Job)]

    def end(running: list[Job]) -> None:
        clock.advance(2)
        for job in running:
            system.transitions.finish((job.id, job.attempt), Status.COMPLETED, result={})

    running = claim_round("w1")
    assert queries.queue_snapshot(jobs[-1]).estimated_wait(1) is None, "nothing has ended yet"
    for _ in range(3):
        end(running)
        running = claim_round("w1")
    estimate = queries.queue_snapshot(jobs[-1]).estimated_wait(20)
    assert estimate is not None
    assert estimate["seconds"] == pytest.approx(20 * 2 / 4)
    # Those of a second worker go into slots that were free from the start.
    claim_round("w2", slots=10)
    assert queries.queue_snapshot(jobs[-1]).estimated_wait(20) == estimate
    claim_round("w3", slots=14)
    assert redis_client.exists("eh:queue:gpu.m:pace") == 0, "no job waits any more"


def test_the_time_of_a_pause_is_not_the_pace_of_a_queue(system: JobSystem, redis_client: redis.Redis, clock: Clock) -> None:
    jobs = [submit(system) for _ in range(12)]
    pauses = Pauses(redis_client)
    for number in range(8):
        if number == 5:
            pauses.pause("queue", "gpu.m")
            assert system.transitions.claim("gpu.m", "w1", "paused") is None
            clock.advance(300)
            pauses.resume("queue", "gpu.m")
        clock.advance(1)
        serve(system, f"t{number}")
    assert JobQueries(redis_client, clock=clock).queue_snapshot(jobs[-1]).estimated_wait(1) == {
        "seconds": 1.0,
        "low": 1.0,
        "high": 1.0,
    }


def test_jobs_that_are_cancelled_leave_no_pace_behind(system: JobSystem, redis_client: redis.Redis, clock: Clock) -> None:
    for round_ in range(2):
        jobs = [submit(system) for _ in range(8)]
        for number in range(4):
            clock.advance(1)
            serve(system, f"t{round_} {number}")
        for job in jobs[4:]:
            system.transitions.cancel(job.id, job.owner)
        clock.advance(300)
    job = submit(system)
    assert JobQueries(redis_client, clock=clock).queue_snapshot(job).estimated_wait(1) == {
        "seconds": 1.0,
        "low": 1.0,
        "high": 1.0,
    }


@pytest.mark.parametrize("slots", [1, 4])
def test_the_interval_contains_nine_of_ten_waits_of_a_steady_queue(
    system: JobSystem, redis_client: redis.Redis, clock: Clock, slots: int
) -> None:
    """``slots`` jobs run at once, each for a random time. A new job arrives for each that ends, behind a backlog of 30."""
    chance = random.Random(7)
    queued: dict[str, tuple[int, dict[str, float]]] = {}
    waits: list[tuple[float, dict[str, float]]] = []
    running: list[tuple[int, str]] = []

    def arrive() -> None:
        job = submit(system)
        snapshot = JobQueries(redis_client, clock=clock).queue_snapshot(job)
        assert snapshot.position is not None
        estimate = snapshot.estimated_wait(snapshot.position)
        if estimate:
            queued[job.id] = (clock.now_ms, estimate)

    for _ in range(30):
        arrive()
    for number in range(250):
        if len(running) == slots:
            leaves_at, leaving = min(running)
            running.remove((leaves_at, leaving))
            clock.now_ms = max(clock.now_ms, leaves_at)
            system.transitions.finish((leaving, 1), Status.COMPLETED, result={})
        job = system.transitions.claim_for_slot("gpu.m", "w1", f"t{number}", slots=slots, reserved=0)
        assert isinstance(job, Job)
        running.append((clock.now_ms + int(chance.lognormvariate(7.5, 0.6)), job.id))
        if job.id in queued:
            since, estimate = queued.pop(job.id)
            waits.append(((clock.now_ms - since) / 1000, estimate))
        arrive()
    assert len(waits) > 200
    contained = [estimate["low"] <= wait <= estimate["high"] for wait, estimate in waits]
    assert fmean(contained) >= 0.85
    assert fmean(estimate["seconds"] for _, estimate in waits) == pytest.approx(fmean(wait for wait, _ in waits), rel=0.1)
    assert fmean(estimate["high"] - estimate["low"] for _, estimate in waits) < fmean(wait for wait, _ in waits), (
        "the intervals are narrow enough to be useful"
    )


def test_a_job_that_was_just_claimed_waits_for_no_other_owner(system: JobSystem, redis_client: redis.Redis) -> None:
    job = submit(system, "ada")
    serve(system, "t1")
    assert JobQueries(redis_client).queue_snapshot(job).has_least_service, "the record of the client is older than the claim"
