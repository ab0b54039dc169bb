"""A Redis that dies, stops, restarts, starts late, or hangs."""

import time
from collections.abc import Callable

import httpx2
import pytest

from shared.jobs.submission import Submission
from testing.fault_rig.duration import hold_fault
from testing.fault_rig.fault_stack import SECOND, TEXT, ExtraWorker, FaultStack
from testing.fault_rig.processes import suspended
from testing.waiting import wait_until
from tests.conftest import Clock, JobSystem

REPORT_SECONDS = 2.0


def check_one_run(stack: FaultStack, jobs: list[str]) -> None:
    for job in jobs:
        assert len(stack.wait_for_end(job).attempts) == 1, stack.read_job(job).attempts


def test_killing_redis_for_three_seconds_costs_no_worker_and_no_attempt(stack: FaultStack) -> None:
    pids = stack.worker_pids()
    jobs = stack.start_jobs(8, TEXT * 4)
    stack.kill_redis()
    hold_fault(3)
    stack.start_redis()
    stack.wait_for_end(stack.submit_through_outage())
    check_one_run(stack, jobs)
    assert stack.worker_pids() == pids


@pytest.mark.parametrize("seconds", [6, pytest.param(20, marks=pytest.mark.slow_fault)])
def test_jobs_that_finish_while_redis_is_down_are_stored_by_the_same_attempt(stack: FaultStack, seconds: float) -> None:
    jobs = stack.start_jobs(8)
    stack.redis.stop()
    hold_fault(seconds)  # the jobs finish after two; a lease lasts four
    stack.start_redis()
    check_one_run(stack, jobs)


@pytest.mark.slow_fault
def test_ten_restarts_of_redis_lose_no_worker(stack: FaultStack) -> None:
    jobs = []
    for turn in range(10):
        jobs.append(stack.submit_through_outage(f"turn {turn} {TEXT}"))
        if turn % 2:
            stack.kill_redis()
        else:
            stack.redis.stop()
        hold_fault(1)
        stack.start_redis()
        hold_fault(3)
    for job in jobs:
        assert stack.wait_for_end(job).status == "completed"


@pytest.mark.slow_fault
def test_a_worker_started_without_redis_runs_jobs_once_redis_is_up(stack: FaultStack) -> None:
    stack.kill_redis()
    worker = _launch(stack)
    hold_fault(4)
    assert worker.is_alive()
    stack.start_redis()
    wait_until(worker.is_ready, "the worker has registered")
    stack.wait_for_end(stack.submit_through_outage(model=SECOND))


def test_the_api_reports_a_missing_redis_within_two_seconds(stack: FaultStack) -> None:
    stack.kill_redis()
    stack.client.get("/health/live").raise_for_status()
    for call in (lambda: stack.request_job(), lambda: stack.client.get("/jobs"), lambda: stack.client.get("/health/ready")):

        def is_reported_in_time(call: Callable[[], httpx2.Response] = call) -> bool:
            start = time.monotonic()
            answer = call()
            assert answer.status_code == 503, answer.text
            return time.monotonic() - start < REPORT_SECONDS

        wait_until(is_reported_in_time, f"a request is answered 503 within {REPORT_SECONDS:g} s, unless the machine is busy")
    assert "Redis" in stack.client.get("/health/ready").text
    assert stack.request_job().json()["error"]["code"] == "redis_unavailable"
    stack.start_redis()
    stack.submit_through_outage()


@pytest.mark.slow_fault
def test_a_suspended_redis_runs_nothing_twice(stack: FaultStack) -> None:
    jobs = stack.start_jobs(4, TEXT * 2)
    with suspended([stack.redis.process.pid]):
        with pytest.raises((AssertionError, httpx2.HTTPError)):
            stack.submit_job()
        hold_fault(6)
    check_one_run(stack, jobs)


@pytest.mark.parametrize("seconds", [3, pytest.param(15, marks=pytest.mark.slow_fault)])
def test_a_paused_redis_runs_nothing_twice(stack: FaultStack, seconds: int) -> None:
    jobs = stack.start_jobs(4, TEXT * 2)
    stack.direct.execute_command("CLIENT", "PAUSE", seconds * 1000, "ALL")
    hold_fault(seconds)
    check_one_run(stack, jobs)
    stack.wait_for_end(stack.submit_through_outage())


def _launch(stack: FaultStack) -> ExtraWorker:
    worker = ExtraWorker(stack, 2, SECOND, {}).launch()
    stack.extra_workers.append(worker)
    return worker


def test_leases_can_be_renewed_after_a_gap_in_reaping(system: JobSystem, clock: Clock) -> None:
    job = system.submitter.submit_job(Submission(kind="generate", queue="q", spec={}, owner="a")).id
    assert system.transitions.claim("q", "w", "token") is not None
    clock.advance(3600)
    assert system.maintenance.reap(gap_ms=60_000, grace_ms=500)[:2] == (0, [])
    assert not system.maintenance.reaps_steadily()
    wait_until(system.maintenance.reaps_steadily, "the grace period is over")
    assert system.maintenance.reap(gap_ms=60_000, grace_ms=500)[:2] == (1, [job])
