"""Faults 2, 3, 10, 30, 31: workers that are killed, frozen, starved or told to stop."""

import os
import signal
import time

import psutil
import pytest

from shared.jobs.models import Outcome
from testing.fault_rig.fault_stack import DRAIN_SECONDS, LEASE_SECONDS, SECOND, TEXT, FaultStack
from testing.fault_rig.processes import kill, stopped
from testing.waiting import wait_until

RING_SECONDS = 1.0


def outcomes(house: FaultStack, job: str) -> list[Outcome | None]:
    return [attempt.outcome for attempt in house.job(job).attempts]


def test_02_tickets_taken_by_a_worker_that_dies_are_issued_again(house: FaultStack) -> None:
    other = house.worker(1)
    with stopped([house.pid("gpu0"), other.pid]):
        jobs = [house.submit() for _ in range(4)]
        kill(house.pid("gpu0"))
    wait_until(lambda: all(house.job(job).attempt for job in jobs), "all are claimed elsewhere", seconds=RING_SECONDS + 2)
    for job in jobs:
        assert house.ended(job).attempts[-1].outcome is Outcome.COMPLETED


@pytest.mark.slow_fault
def test_02_a_ticket_that_is_lost_on_its_way_to_the_worker_is_issued_again(house: FaultStack) -> None:
    loss = house.proxy.lose_reply(b"BRPOP", reply=b"enginehouse.run_next_job")
    wait_until(lambda: loss.seen >= 9, "all three workers wait for tickets anew")
    job = house.submit()
    wait_until(lambda: house.job(job).attempt == 1, "it is claimed", seconds=RING_SECONDS + 4)
    assert loss.lost == 1


@pytest.mark.slow_fault
def test_03_a_stale_worker_changes_nothing(house: FaultStack) -> None:
    house.worker(1)
    job = house.running(1, TEXT * 4)[0]
    stale = int(house.job(job).worker.rpartition("/")[2])
    with stopped([stale]):
        wait_until(lambda: house.job(job).attempt == 2, "another worker has it", seconds=2 * LEASE_SECONDS)
        assert not house.job(job).worker.endswith(f"/{stale}")
        house.ended(job)
        record, events = house.job(job), house.events(job)
    # Its engine had finished meanwhile, so by the time that it has served another job it has told all it had to tell.
    wait_until(
        lambda: house.ended(house.submit("after")).worker.endswith(f"/{stale}"), "the stale worker serves again", seconds=20
    )
    assert (house.job(job), house.events(job)) == (record, events)
    assert outcomes(house, job) == [Outcome.LOST, Outcome.COMPLETED]


def test_03_a_stale_worker_that_wakes_in_the_middle_of_the_next_attempt_changes_nothing(house: FaultStack) -> None:
    house.worker(1)
    job = house.running(1, TEXT * 4)[0]
    stale = int(house.job(job).worker.rpartition("/")[2])
    with stopped([stale]):
        wait_until(lambda: house.job(job).attempt == 2, "another worker has it", seconds=2 * LEASE_SECONDS)
    # Now both run it; the judge compares the answer and the stream with what the last attempt must have told.
    house.ended(job)
    assert outcomes(house, job) == [Outcome.LOST, Outcome.COMPLETED]
    assert [event.attempt for event in house.events(job) if event.type == "delta"] == sorted(
        event.attempt for event in house.events(job) if event.type == "delta"
    ), "no delta of the old attempt among those of the new one"


@pytest.mark.slow_fault
def test_10_a_process_that_hogs_its_interpreter_lock_loses_no_lease(house: FaultStack) -> None:
    patient = {"ENGINEHOUSE_LEASE_SECONDS": "30", "ENGINEHOUSE_RENEW_SECONDS": "2"}
    hog = house.worker(1, model=SECOND, environment=patient)
    jobs = [house.submit(TEXT * 5, model=SECOND) for _ in range(8)]
    wait_until(lambda: house.in_progress(jobs) == len(jobs), "all run", seconds=10)
    os.kill(hog.pid, signal.SIGRTMIN + 1)
    for job in jobs:
        house.ended(job, 60)
        assert outcomes(house, job) == [Outcome.COMPLETED]


def test_30_a_drain_finishes_the_short_jobs_and_gives_the_long_ones_back(house: FaultStack) -> None:
    short = house.running(4, max_tokens=15)
    long = house.running(4, TEXT * 3)
    worker = psutil.Process(house.pid("gpu0"))
    start = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    worker.wait(DRAIN_SECONDS + 10)
    assert time.monotonic() - start <= DRAIN_SECONDS + 10
    for job in short:
        assert outcomes(house, job) == [Outcome.COMPLETED]
    for job in long:
        house.ended(job)
        assert outcomes(house, job) == [Outcome.RELEASED, Outcome.COMPLETED]
        assert house.job(job).lost == 0


@pytest.mark.slow_fault
@pytest.mark.parametrize(
    "numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGQUIT,), (signal.SIGHUP,)], ids=["TERM-TERM", "QUIT", "HUP"]
)
def test_31_no_signal_to_a_worker_loses_a_job(house: FaultStack, numbers: tuple[signal.Signals, ...]) -> None:
    worker = house.worker(1)
    jobs = house.running(8, TEXT * 2)
    for number in numbers:
        kill(worker.pid, number)
    wait_until(lambda: not worker.lives(), "the worker has ended and taken nothing with it", seconds=DRAIN_SECONDS + 10)
    for job in jobs:
        house.ended(job)
        assert house.job(job).lost == 0, "it was given back, not missed"
