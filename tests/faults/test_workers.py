"""Workers that are killed, suspended, starved or asked to stop."""

import itertools
import os
import signal

import psutil
import pytest

from shared.jobs.models import Outcome
from shared.jobs.queue_names import generation_queue
from testing.fault_rig.fault_stack import DEFAULT, SECOND, TEXT, ExtraWorker, FaultStack
from testing.fault_rig.processes import kill, suspended
from testing.waiting import LONG_SECONDS, wait_until
from workers.runtime.celery_worker import NAME_TAKEN


def outcomes(stack: FaultStack, job: str) -> list[Outcome | None]:
    return [attempt.outcome for attempt in stack.read_job(job).attempts]


def test_wakeups_taken_by_a_dying_worker_are_sent_again(stack: FaultStack) -> None:
    other = stack.start_worker(1)
    with suspended([stack.pid_of("gpu0"), other.pid]):
        jobs = [stack.submit_job() for _ in range(4)]
        kill(stack.pid_of("gpu0"))
    wait_until(lambda: all(stack.read_job(job).attempt for job in jobs), "all are claimed elsewhere")
    for job in jobs:
        assert stack.wait_for_end(job).attempts[-1].outcome is Outcome.COMPLETED


def test_a_dead_worker_keeps_no_place_of_a_concurrency_key(stack: FaultStack) -> None:
    jobs = [stack.submit_job(TEXT, concurrency_key="door") for _ in range(3)]
    wait_until(lambda: stack.count_in_progress(jobs) == 1, "the first runs")
    kill(stack.pid_of("gpu0"))
    attempts = [attempt for job in jobs for attempt in stack.wait_for_end(job).attempts]
    runs = sorted((attempt.started_at, attempt.ended_at or 0) for attempt in attempts)
    assert all(later >= end for (_, end), (later, _) in itertools.pairwise(runs))


@pytest.mark.slow_fault
def test_a_wakeup_lost_on_its_way_to_the_worker_is_sent_again(stack: FaultStack) -> None:
    queue = generation_queue(DEFAULT)
    request = f"BRPOP\r\n${len(queue)}\r\n{queue}\r\n".encode()
    loss = stack.proxy.lose_reply(request, reply=b"enginehouse.run_next_job")
    # Replies to earlier requests are not lost, so the job comes after the worker's next one, which it sends every five seconds.
    wait_until(lambda: loss.seen >= 1, "the gpu worker waits for messages again")
    job = stack.submit_job()
    wait_until(lambda: stack.read_job(job).attempt == 1, "it is claimed")
    assert loss.lost == 1


@pytest.mark.slow_fault
def test_a_stale_worker_changes_nothing(stack: FaultStack) -> None:
    # Not the one of the stack, which the supervisor would replace.
    for number in (1, 2):
        stack.start_worker(number, model=SECOND)
    job = stack.start_jobs(1, TEXT * 4, model=SECOND)[0]
    stale = int(stack.read_job(job).worker.rpartition("/")[2])
    with suspended([stale]):
        wait_until(lambda: stack.read_job(job).attempt == 2, "another worker has it")
        assert not stack.read_job(job).worker.endswith(f"/{stale}")
        stack.wait_for_end(job)
        record, events = stack.read_job(job), stack.read_events(job)
    # Its engine had finished meanwhile, so once it has run another job it has sent everything it had of the first.
    wait_until(
        lambda: stack.wait_for_end(stack.submit_job("after", model=SECOND)).worker.endswith(f"/{stale}"),
        "the stale worker runs jobs again",
    )
    assert (stack.read_job(job), stack.read_events(job)) == (record, events)
    assert outcomes(stack, job) == [Outcome.LOST, Outcome.COMPLETED]


def test_a_stale_worker_that_resumes_during_the_next_attempt_changes_nothing(stack: FaultStack) -> None:
    stack.start_worker(1)
    job = stack.start_jobs(1, TEXT * 4)[0]
    stale = int(stack.read_job(job).worker.rpartition("/")[2])
    with suspended([stale]):
        wait_until(lambda: stack.read_job(job).attempt == 2, "another worker has it")
    # Now both run it. The ledger compares answer and stream with those of the last attempt.
    stack.wait_for_end(job)
    assert outcomes(stack, job) == [Outcome.LOST, Outcome.COMPLETED]
    assert [event.attempt for event in stack.read_events(job) if event.type == "delta"] == sorted(
        event.attempt for event in stack.read_events(job) if event.type == "delta"
    ), "no delta of the old attempt after one of the new attempt"


@pytest.mark.slow_fault
def test_a_process_that_hogs_its_interpreter_lock_loses_no_lease(stack: FaultStack) -> None:
    patient = {"ENGINEHOUSE_LEASE_SECONDS": "30", "ENGINEHOUSE_RENEW_SECONDS": "2"}
    hog = stack.start_worker(1, model=SECOND, environment=patient)
    jobs = [stack.submit_job(TEXT * 5, model=SECOND) for _ in range(8)]
    wait_until(lambda: stack.count_in_progress(jobs) == len(jobs), "all run")
    os.kill(hog.pid, signal.SIGRTMIN + 1)
    for job in jobs:
        stack.wait_for_end(job)
        assert outcomes(stack, job) == [Outcome.COMPLETED]


def test_a_second_worker_of_the_same_name_is_refused_and_takes_nothing_from_the_first(stack: FaultStack) -> None:
    jobs = stack.start_jobs(2, TEXT)
    second = ExtraWorker(stack, 0, DEFAULT, {}).launch()
    assert second.process is not None
    assert second.process.wait(LONG_SECONDS) == NAME_TAKEN
    assert "Another worker named gpu0@" in (stack.server.folder / "more.log").read_text()
    for job in jobs:
        stack.wait_for_end(job)
        assert outcomes(stack, job) == [Outcome.COMPLETED]


def test_a_drain_finishes_short_jobs_and_releases_long_ones(stack: FaultStack) -> None:
    short = stack.start_jobs(4, max_tokens=15)
    long = stack.start_jobs(4, TEXT * 6)
    worker = psutil.Process(stack.pid_of("gpu0"))
    worker.send_signal(signal.SIGTERM)
    worker.wait(LONG_SECONDS)
    for job in short:
        assert outcomes(stack, job) == [Outcome.COMPLETED]
    for job in long:
        stack.wait_for_end(job)
        assert outcomes(stack, job) == [Outcome.RELEASED, Outcome.COMPLETED]
        assert stack.read_job(job).lost == 0


@pytest.mark.slow_fault
@pytest.mark.parametrize(
    "numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGQUIT,), (signal.SIGHUP,)], ids=["TERM-TERM", "QUIT", "HUP"]
)
def test_no_signal_to_a_worker_loses_a_job(stack: FaultStack, numbers: tuple[signal.Signals, ...]) -> None:
    worker = stack.start_worker(1)
    jobs = stack.start_jobs(8, TEXT * 2)
    for number in numbers:
        kill(worker.pid, number)
    wait_until(lambda: not worker.is_alive(), "the worker has ended")
    for job in jobs:
        stack.wait_for_end(job)
        assert stack.read_job(job).lost == 0, "the job was released, not lost"
