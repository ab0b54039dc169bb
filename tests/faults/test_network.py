"""Connections to Redis that break, freeze, go half-open, or lose a request or a reply."""

from importlib.resources import files

import httpx2
import pytest

from shared.jobs.models import Outcome, Status
from shared.lua_scripts import SHARED_LIBRARY, load_scripts
from testing.fault_rig.duration import hold_fault
from testing.fault_rig.fault_stack import TEXT, FaultStack
from testing.fault_rig.processes import kill
from testing.fault_rig.proxy import Loss
from testing.waiting import wait_until

SCRIPTS = load_scripts(files(SHARED_LIBRARY), files(SHARED_LIBRARY) / "lib")


def lose_script_reply(stack: FaultStack, name: str, times: int = 1) -> Loss:
    """Drop the replies to the next calls of a script, which the proxy recognises by its SHA-1.

    The script is loaded first, because the first call of a script that Redis does not know sends its text instead.
    """
    stack.direct.script_load(SCRIPTS[name].text)
    return stack.proxy.lose_reply(SCRIPTS[name].sha.encode(), times)


def test_resetting_all_redis_connections_runs_nothing_twice(stack: FaultStack) -> None:
    jobs = stack.start_jobs(8, TEXT * 2)
    for _ in range(5):
        assert stack.proxy.reset() > 0
        hold_fault(0.5)
    for job in jobs:
        assert len(stack.wait_for_end(job).attempts) == 1


@pytest.mark.slow_fault
def test_half_open_connections_are_abandoned(stack: FaultStack) -> None:
    running = stack.start_jobs(4, TEXT * 12)
    assert stack.proxy.half_open() > 0
    new = [stack.submit_through_outage() for _ in range(4)]
    for job in new:
        wait_until(lambda job=job: stack.read_job(job).attempt, "a worker claims jobs again")
    for job in [*running, *new]:
        stack.wait_for_end(job)


@pytest.mark.parametrize("seconds", [3, pytest.param(20, marks=pytest.mark.slow_fault)])
def test_a_frozen_network_costs_only_time(stack: FaultStack, seconds: float) -> None:
    jobs = stack.start_jobs(8, TEXT * 2)
    stack.proxy.freeze()
    hold_fault(seconds)
    stack.proxy.thaw()
    for job in jobs:
        assert len(stack.wait_for_end(job).attempts) == 1


@pytest.mark.parametrize("name", ["claim", "append", "renew", "finish"])
def test_a_lost_reply_to_a_worker_changes_nothing(stack: FaultStack, name: str) -> None:
    loss = lose_script_reply(stack, name, 3)
    jobs = [stack.submit_job() for _ in range(4)]
    for job in jobs:
        assert len(stack.wait_for_end(job).attempts) == 1
    wait_until(lambda: loss.lost == 3, f"three replies to {name} were lost")


@pytest.mark.slow_fault
def test_a_lost_reply_to_a_hand_over_hands_over_once(stack: FaultStack) -> None:
    stack.wait_for_end(stack.upload_file("facts", "facts.txt", TEXT.encode())[1])
    loss = lose_script_reply(stack, "hand_over", 2)
    answer = stack.client.post("/generate", json={"prompt": "what does the fox do?", "collection": "facts", "max_tokens": 4})
    job = answer.json()["id"]
    stack.ledger.record_accepted(job)
    assert [attempt.outcome for attempt in stack.wait_for_end(job).attempts] == [Outcome.HANDED_OVER, Outcome.COMPLETED]
    assert loss.lost == 2


@pytest.mark.slow_fault
def test_a_lost_reply_to_a_retry_counts_one_retry(stack: FaultStack) -> None:
    [job] = stack.start_jobs(1, TEXT * 2)
    loss = lose_script_reply(stack, "retry", 2)
    kill(stack.engine_process().pid)
    assert [attempt.outcome for attempt in stack.wait_for_end(job).attempts] == [Outcome.RETRIED, Outcome.COMPLETED]
    assert stack.read_job(job).retries == 1
    assert loss.lost == 2


@pytest.mark.slow_fault
@pytest.mark.parametrize("name", ["reap", "mark_worker_dead"])
def test_a_lost_reply_to_maintenance_costs_at_most_one_attempt(stack: FaultStack, name: str) -> None:
    [job] = stack.start_jobs(1, TEXT * 2)
    loss = lose_script_reply(stack, name, 3)
    kill(stack.pid_of("gpu0"))
    assert [attempt.outcome for attempt in stack.wait_for_end(job).attempts] == [Outcome.LOST, Outcome.COMPLETED]
    assert loss.lost


@pytest.mark.slow_fault
def test_a_lost_reply_to_a_cancel_request_still_cancels(stack: FaultStack) -> None:
    [job] = stack.start_jobs(1, TEXT * 4)
    stack.ledger.allow_end(job, "cancelled")
    lose_script_reply(stack, "cancel")
    answers = [stack.client.post(f"/jobs/{job}/cancel").status_code for _ in range(2)]
    assert answers[1] in (202, 409), answers
    assert stack.wait_for_end(job).status is Status.CANCELLED


@pytest.mark.slow_fault
def test_a_lost_reply_to_a_wakeup_does_not_fail_the_submit(stack: FaultStack) -> None:
    loss = stack.proxy.lose_reply(b"LPUSH")
    job = stack.submit_job()
    assert len(stack.wait_for_end(job).attempts) == 1
    assert loss.lost == 1


def test_a_lost_reply_to_a_submit_makes_one_job_per_idempotency_key(stack: FaultStack) -> None:
    loss = lose_script_reply(stack, "submit")
    key = {"Idempotency-Key": f"lost-{stack.proxy.port}"}
    before = _ids(stack)
    stack.request_job(headers=key)
    answer = stack.request_job(headers=key)
    assert (answer.status_code, loss.lost) == (202, 1)
    assert _ids(stack) - before == {answer.json()["id"]}


def test_a_job_whose_wakeup_was_never_sent_runs(stack: FaultStack) -> None:
    # Only the wake-up is lost, and only maintenance may send it again.
    loss = stack.proxy.lose_request(b"LPUSH", 1)
    job = stack.submit_job()
    assert len(stack.wait_for_end(job).attempts) == 1
    assert loss.lost == 1


@pytest.mark.slow_fault
def test_a_job_whose_api_process_died_before_the_wakeup_runs(stack: FaultStack) -> None:
    before = _ids(stack)
    loss = lose_script_reply(stack, "submit")
    with pytest.raises((AssertionError, httpx2.HTTPError)):
        stack.submit_job()
    [job] = _ids(stack) - before
    stack.ledger.record_accepted(job, text=TEXT)
    assert loss.lost == 1
    assert len(stack.wait_for_end(job).attempts) == 1


def _ids(stack: FaultStack) -> set[str]:
    """The ids of all jobs in Redis."""
    return {
        str(key).removeprefix("eh:job:") for key in stack.direct.scan_iter("eh:job:*", count=1000) if str(key).count(":") == 2
    }
