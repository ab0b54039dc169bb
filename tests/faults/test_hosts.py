"""Wrong clocks, everything killed at once, and workers replaced under load."""

import signal

import pytest

from shared.jobs.models import Outcome
from testing.fault_rig.fault_stack import SECOND, TEXT, FaultStack
from testing.fault_rig.processes import kill
from testing.waiting import wait_until

HOUR = 3600


@pytest.mark.slow_fault
@pytest.mark.parametrize("hours", [-1, 1])
def test_a_worker_with_a_wrong_clock_keeps_its_leases_and_takes_no_others(stack: FaultStack, hours: int) -> None:
    wrong = stack.start_worker(1, model=SECOND, environment={"FAULT_CLOCK_SHIFT": str(hours * HOUR)})
    jobs = stack.start_jobs(4, TEXT * 3, model=SECOND) + stack.start_jobs(4, TEXT * 3)
    for job in jobs:
        record = stack.wait_for_end(job)
        assert [attempt.outcome for attempt in record.attempts] == [Outcome.COMPLETED]
        assert record.ended_at is not None
        assert abs(record.ended_at - record.created_at) < 60_000, "times are those of Redis"
    assert wrong.is_alive()


@pytest.mark.slow_fault
def test_the_death_of_a_worker_with_a_wrong_clock_is_noticed(stack: FaultStack) -> None:
    wrong = stack.start_worker(1, model=SECOND, environment={"FAULT_CLOCK_SHIFT": str(HOUR)})
    jobs = stack.start_jobs(4, TEXT * 3, model=SECOND)
    wrong.kill()
    wait_until(lambda: all(stack.read_job(job).status == "queued" for job in jobs), "all are queued again")
    stack.start_worker(2, model=SECOND)
    for job in jobs:
        assert [attempt.outcome for attempt in stack.wait_for_end(job).attempts] == [Outcome.LOST, Outcome.COMPLETED]


def test_killing_everything_at_once_loses_nothing(stack: FaultStack) -> None:
    jobs = stack.start_jobs(8, TEXT * 2) + [stack.submit_job(f"{n} {TEXT}") for n in range(24)]
    document = stack.upload_file("machine", "a.txt", "".join(f"{n} {TEXT}. " for n in range(60)).encode())[1]
    stack.direct.execute_command("WAITAOF", 1, 0, 5000)
    stack.kill_redis()
    stack.kill_stack()
    stack.start_redis()
    stack.start()
    for job in [*jobs, document]:
        assert stack.wait_for_end(job).status == "completed"


@pytest.mark.slow_fault
def test_replacing_workers_under_load_loses_and_doubles_nothing(stack: FaultStack) -> None:
    jobs = [stack.submit_job(f"{n} {TEXT}") for n in range(24)]
    old = stack.worker_pids()
    kill(old["io"], signal.SIGTERM)
    kill(old["cpu"], signal.SIGTERM)
    new = stack.start_worker(1)
    kill(old["gpu0"], signal.SIGTERM)
    jobs += [stack.submit_job(f"{n} {TEXT}") for n in range(24, 40)]
    wait_until(lambda: stack.pid_of("gpu0") != old["gpu0"], "the old worker is replaced")
    kill(new.pid, signal.SIGTERM)
    for job in jobs:
        assert stack.read_job(job).lost == 0
        assert Outcome.LOST not in [attempt.outcome for attempt in stack.wait_for_end(job).attempts]
    assert new.process is not None
    new.process.wait(60)


@pytest.mark.slow_fault
def test_an_older_worker_runs_a_job_record_of_a_newer_version(stack: FaultStack) -> None:
    running = stack.start_jobs(8)
    job = stack.submit_job()
    stack.direct.hset(f"eh:job:{job}", "a_field_of_tomorrow", "yes")
    for each in [*running, job]:
        assert len(stack.wait_for_end(each).attempts) == 1
    assert stack.direct.hget(f"eh:job:{job}", "a_field_of_tomorrow") == "yes"
