"""A model worker or its engine process dies or hangs with jobs in flight."""

import signal

import psutil
import pytest

from shared.jobs.models import Outcome
from testing.fault_rig.fault_stack import TEXT, FaultStack
from testing.fault_rig.processes import find_engine, kill
from testing.waiting import wait_until

HANG_SECONDS = 6.0
STACK_OPTIONS = {"slots": 64, "environment": {"ENGINEHOUSE_ENGINE_HANG_SECONDS": str(HANG_SECONDS)}}


def outcomes(stack: FaultStack, job: str) -> list[Outcome | None]:
    return [attempt.outcome for attempt in stack.read_job(job).attempts]


def test_a_killed_worker_with_64_jobs_in_flight_loses_none(stack: FaultStack) -> None:
    jobs = [stack.submit_job(TEXT * 4) for _ in range(64)]
    wait_until(lambda: all(stack.read_job(job).first_token_at for job in jobs), "all 64 have a first token")
    # On a busy machine the first jobs may end before the last one begins.
    running = [job for job in jobs if stack.read_job(job).status == "in_progress"]
    assert running
    kill(stack.pid_of("gpu0"))
    for job in jobs:
        stack.wait_for_end(job)
    for job in running:
        # An attempt may also have ended between the look and the kill.
        assert outcomes(stack, job) in ([Outcome.LOST, Outcome.COMPLETED], [Outcome.COMPLETED])
    lost = [job for job in running if Outcome.LOST in outcomes(stack, job)]
    assert lost
    for job in lost:
        events = stack.read_events(job)
        assert "restart" not in [event.type for event in events]
        assert "".join(event.data["text"] for event in events if event.type == "delta") == TEXT * 4


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM], ids=["KILL", "SEGV", "TERM"])
def test_a_dead_engine_costs_its_batch_one_retry_and_the_worker_nothing(stack: FaultStack, number: signal.Signals) -> None:
    worker, engine = stack.pid_of("gpu0"), stack.engine_process()
    jobs = stack.start_jobs(16, TEXT * 2)
    kill(engine.pid, number)
    for job in jobs:
        stack.wait_for_end(job)
        # On a busy machine the first jobs may end before the last one begins.
        assert outcomes(stack, job) in ([Outcome.RETRIED, Outcome.COMPLETED], [Outcome.COMPLETED])
        assert stack.read_job(job).lost == 0
    assert any(Outcome.RETRIED in outcomes(stack, job) for job in jobs)
    assert stack.pid_of("gpu0") == worker


@pytest.mark.slow_fault
def test_a_hanging_engine_is_killed_and_its_jobs_are_retried(stack: FaultStack) -> None:
    worker, engine = stack.pid_of("gpu0"), stack.engine_process()
    jobs = stack.start_jobs(8, TEXT * 2)
    kill(engine.pid, signal.SIGSTOP)
    new = wait_until(lambda: _replacement(worker, engine), "a new engine")
    assert new is not None
    for job in jobs:
        stack.wait_for_end(job)
        assert outcomes(stack, job) == [Outcome.RETRIED, Outcome.COMPLETED]
    assert stack.pid_of("gpu0") == worker


def _replacement(worker: int, engine: psutil.Process) -> psutil.Process | None:
    found = find_engine(worker)
    return found if found is not None and found.pid != engine.pid else None
