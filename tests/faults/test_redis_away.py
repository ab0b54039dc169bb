"""Faults 11 to 14 and 18: a Redis that dies, stops, comes back, is not there yet, or stands still."""

import time

import httpx2
import pytest

from shared.jobs.transitions import Lifecycle, Submission
from testing.fault_rig.fault_stack import SECOND, TEXT, ExtraWorker, FaultStack
from testing.fault_rig.pausing import pause
from testing.fault_rig.processes import stopped
from testing.waiting import wait_until
from tests.conftest import Clock

RESUME_SECONDS = 15.0


def check_one_run(house: FaultStack, jobs: list[str]) -> None:
    for job in jobs:
        assert len(house.ended(job).attempts) == 1, house.job(job).attempts


def test_11_redis_killed_for_three_seconds_costs_no_worker_and_no_attempt(house: FaultStack) -> None:
    pids = house.pids()
    jobs = house.running(8, TEXT * 4)
    house.kill_redis()
    pause(3)
    house.start_redis()
    back = house.submit_when_possible(seconds=RESUME_SECONDS)
    house.ended(back, RESUME_SECONDS)
    check_one_run(house, jobs)
    assert house.pids() == pids


@pytest.mark.parametrize("seconds", [6, pytest.param(20, marks=pytest.mark.slow_fault)])
def test_12_jobs_that_end_while_redis_is_down_are_stored_by_the_same_attempt(house: FaultStack, seconds: float) -> None:
    jobs = house.running(8)
    house.redis.stop()
    pause(seconds)  # they end after two; a lease lasts four
    house.start_redis()
    check_one_run(house, jobs)


@pytest.mark.slow_fault
def test_13_ten_restarts_of_redis_lose_no_worker_for_good(house: FaultStack) -> None:
    jobs = []
    for turn in range(10):
        jobs.append(house.submit_when_possible(f"turn {turn} {TEXT}"))
        if turn % 2:
            house.kill_redis()
        else:
            house.redis.stop()
        pause(1)
        house.start_redis()
        pause(3)
    for job in jobs:
        house.ended(job)


@pytest.mark.slow_fault
def test_14_a_worker_that_starts_without_redis_serves_once_it_comes(house: FaultStack) -> None:
    house.kill_redis()
    worker = _launched(house)
    pause(4)
    assert worker.lives()
    house.start_redis()
    wait_until(worker.is_ready, "the worker has enrolled", seconds=30)
    house.ended(house.submit_when_possible(model=SECOND))


def test_14_without_redis_the_api_says_so_within_two_seconds(house: FaultStack) -> None:
    house.kill_redis()
    house.client.get("/health/live").raise_for_status()
    for call in (lambda: house.try_submit(), lambda: house.client.get("/jobs"), lambda: house.client.get("/health/ready")):
        start = time.monotonic()
        answer = call()
        assert answer.status_code == 503, answer.text
        assert time.monotonic() - start < 3
    assert "Redis" in house.client.get("/health/ready").text
    assert house.try_submit().json()["error"]["code"] == "redis_unavailable"
    house.start_redis()
    house.submit_when_possible()


@pytest.mark.slow_fault
def test_18_a_redis_that_stands_still_runs_nothing_twice(house: FaultStack) -> None:
    jobs = house.running(4, TEXT * 2)
    with stopped([house.redis.process.pid]):
        with pytest.raises((AssertionError, httpx2.HTTPError)):
            house.submit()
        pause(6)
    check_one_run(house, jobs)


@pytest.mark.parametrize("seconds", [3, pytest.param(15, marks=pytest.mark.slow_fault)])
def test_18_a_paused_redis_runs_nothing_twice(house: FaultStack, seconds: int) -> None:
    jobs = house.running(4, TEXT * 2)
    house.direct.execute_command("CLIENT", "PAUSE", seconds * 1000, "ALL")
    pause(seconds)
    check_one_run(house, jobs)
    house.ended(house.submit_when_possible())


def _launched(house: FaultStack) -> ExtraWorker:
    worker = ExtraWorker(house, 2, SECOND, {}).launch()
    house.more.append(worker)
    return worker


def test_18_after_a_gap_in_the_reaping_leases_have_time_to_be_renewed(lifecycle: Lifecycle, clock: Clock) -> None:
    job = lifecycle.submit_job(Submission(kind="generate", queue="q", spec={}, owner="a")).id
    assert lifecycle.claim("q", "w", "token") is not None
    clock.advance(3600)
    assert lifecycle.reap(gap_ms=60_000, grace_ms=500) == (0, [])
    assert not lifecycle.reaps_steadily()
    wait_until(lifecycle.reaps_steadily, "the time of grace is over")
    assert lifecycle.reap(gap_ms=60_000, grace_ms=500) == (1, [job])
