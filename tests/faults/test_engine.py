"""Faults 1, 8 and 9: a model worker, or the engine process below it, that dies or hangs with 64 jobs in flight."""

import signal

import psutil
import pytest

from shared.jobs.models import Outcome
from testing.fault_rig.fault_stack import LEASE_SECONDS, TEXT, FaultStack
from testing.fault_rig.processes import engine_of, kill
from testing.waiting import wait_until

START_SECONDS = 6.0  # of a worker, beside everything else on two cores
HANG_SECONDS = 6.0
HOUSE = {"slots": 64, "environment": {"ENGINEHOUSE_ENGINE_HANG_SECONDS": str(HANG_SECONDS)}}


def outcomes(house: FaultStack, job: str) -> list[Outcome | None]:
    return [attempt.outcome for attempt in house.job(job).attempts]


def test_01_a_killed_worker_with_64_in_flight_loses_none(house: FaultStack) -> None:
    jobs = [house.submit(TEXT * 2) for _ in range(64)]
    wait_until(lambda: all(house.job(job).first_token_at for job in jobs), "all 64 have told a first token", seconds=30)
    kill(house.pid("gpu0"))
    wait_until(
        lambda: all(house.job(job).attempt == 2 for job in jobs), "all have restarted", seconds=LEASE_SECONDS + 2 + START_SECONDS
    )
    for job in jobs:
        house.ended(job)
        assert outcomes(house, job) == [Outcome.LOST, Outcome.COMPLETED]
        assert "restart" in [event.type for event in house.events(job)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM], ids=["KILL", "SEGV", "TERM"])
def test_08_an_engine_that_dies_costs_its_batch_a_retry_and_the_worker_nothing(house: FaultStack, number: signal.Signals) -> None:
    worker, engine = house.pid("gpu0"), house.engine()
    jobs = house.running(16, TEXT * 2)
    kill(engine.pid, number)
    for job in jobs:
        house.ended(job)
        assert outcomes(house, job) == [Outcome.RETRIED, Outcome.COMPLETED]
        assert house.job(job).lost == 0
    assert house.pid("gpu0") == worker


@pytest.mark.slow_fault
def test_09_an_engine_that_hangs_is_ended_and_its_jobs_are_resumed(house: FaultStack) -> None:
    worker, engine = house.pid("gpu0"), house.engine()
    jobs = house.running(8, TEXT * 2)
    kill(engine.pid, signal.SIGSTOP)
    new = wait_until(lambda: _another(worker, engine), "a new engine", seconds=HANG_SECONDS + 15)
    assert new is not None
    for job in jobs:
        house.ended(job)
        assert outcomes(house, job) == [Outcome.RETRIED, Outcome.COMPLETED]
    assert house.pid("gpu0") == worker


def _another(worker: int, engine: psutil.Process) -> psutil.Process | None:
    found = engine_of(worker)
    return found if found is not None and found.pid != engine.pid else None
