"""Faults 33, 48 and 49: clocks that are wrong, everything killed at once, workers replaced while they work."""

import signal

import pytest

from shared.jobs.models import Outcome
from testing.fault_rig.fault_stack import LEASE_SECONDS, SECOND, TEXT, FaultStack
from testing.fault_rig.processes import kill
from testing.waiting import wait_until

HOUR = 3600


@pytest.mark.slow_fault
@pytest.mark.parametrize("hours", [-1, 1])
def test_33_a_worker_whose_clock_is_an_hour_wrong_keeps_its_leases_and_takes_nobody_elses(house: FaultStack, hours: int) -> None:
    wrong = house.worker(1, model=SECOND, environment={"FAULT_CLOCK_SHIFT": str(hours * HOUR)})
    jobs = house.running(4, TEXT * 3, model=SECOND) + house.running(4, TEXT * 3)
    for job in jobs:
        record = house.ended(job)
        assert [attempt.outcome for attempt in record.attempts] == [Outcome.COMPLETED]
        assert record.ended_at is not None
        assert abs(record.ended_at - record.created_at) < 60_000, "times are Redis' own"
    assert wrong.lives()


@pytest.mark.slow_fault
def test_33_a_worker_whose_clock_is_wrong_is_missed_when_it_dies(house: FaultStack) -> None:
    wrong = house.worker(1, model=SECOND, environment={"FAULT_CLOCK_SHIFT": str(HOUR)})
    jobs = house.running(4, TEXT * 3, model=SECOND)
    wrong.kill()
    wait_until(lambda: all(house.job(job).status == "queued" for job in jobs), "all are queued again", seconds=LEASE_SECONDS + 2)
    house.worker(2, model=SECOND)
    for job in jobs:
        assert [attempt.outcome for attempt in house.ended(job).attempts] == [Outcome.LOST, Outcome.COMPLETED]


def test_48_everything_killed_at_once_loses_nothing(house: FaultStack) -> None:
    jobs = house.running(8, TEXT * 2) + [house.submit(f"{n} {TEXT}") for n in range(24)]
    document = house.upload("machine", "a.txt", "".join(f"{n} {TEXT}. " for n in range(60)).encode())[1]
    house.direct.execute_command("WAITAOF", 1, 0, 5000)
    house.kill_redis()
    house.kill_stack()
    house.start_redis()
    house.start()
    for job in [*jobs, document]:
        assert house.ended(job, 60).status == "completed"


@pytest.mark.slow_fault
def test_49_workers_replaced_under_load_lose_and_double_nothing(house: FaultStack) -> None:
    jobs = [house.submit(f"{n} {TEXT}") for n in range(24)]
    old = house.pids()
    kill(old["io"], signal.SIGTERM)
    kill(old["cpu"], signal.SIGTERM)
    new = house.worker(1)
    kill(old["gpu0"], signal.SIGTERM)
    jobs += [house.submit(f"{n} {TEXT}") for n in range(24, 40)]
    wait_until(lambda: house.pid("gpu0") != old["gpu0"], "the old one is replaced", seconds=30)
    kill(new.pid, signal.SIGTERM)
    for job in jobs:
        assert house.job(job).lost == 0
        assert Outcome.LOST not in [attempt.outcome for attempt in house.ended(job, 60).attempts]
    assert new.process is not None
    new.process.wait(20)


@pytest.mark.slow_fault
def test_49_a_record_of_a_newer_version_is_served_by_an_older_worker(house: FaultStack) -> None:
    running = house.running(8)
    job = house.submit()
    house.direct.hset(f"eh:job:{job}", "a_field_of_tomorrow", "yes")
    for one in [*running, job]:
        assert len(house.ended(one).attempts) == 1
    assert house.direct.hget(f"eh:job:{job}", "a_field_of_tomorrow") == "yes"
