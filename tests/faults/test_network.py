"""Faults 15 to 17, 19 and 20: connections to Redis that break, freeze, go half-open, or lose a request or a reply."""

import hashlib
from importlib.resources import files

import httpx2
import pytest

from shared.jobs.models import Outcome, Status
from testing.fault_rig.fault_stack import TEXT, FaultStack
from testing.fault_rig.pausing import pause
from testing.fault_rig.processes import kill
from testing.waiting import wait_until

SCRIPTS = files("shared.jobs.lua")


def script(name: str) -> bytes:
    """How a request for this move is known on the wire."""
    text = (SCRIPTS / "prelude.lua").read_text() + "\n" + (SCRIPTS / f"{name}.lua").read_text()
    return hashlib.sha1(text.encode()).hexdigest().encode()


def test_15_resets_of_all_connections_run_nothing_twice(house: FaultStack) -> None:
    jobs = house.running(8, TEXT * 2)
    for _ in range(5):
        assert house.proxy.reset() > 0
        pause(0.5)
    for job in jobs:
        assert len(house.ended(job).attempts) == 1


@pytest.mark.slow_fault
def test_16_half_open_connections_are_given_up_within_half_a_minute(house: FaultStack) -> None:
    running = house.running(4, TEXT * 12)
    assert house.proxy.half_open() > 0
    new = [house.submit_when_possible(seconds=30) for _ in range(4)]
    for job in new:
        wait_until(lambda job=job: house.job(job).attempt, "a worker takes jobs again", seconds=30)
    for job in [*running, *new]:
        house.ended(job)


@pytest.mark.parametrize("seconds", [3, pytest.param(20, marks=pytest.mark.slow_fault)])
def test_17_a_freeze_costs_time_and_nothing_else(house: FaultStack, seconds: float) -> None:
    jobs = house.running(8, TEXT * 2)
    house.proxy.freeze()
    pause(seconds)
    house.proxy.thaw()
    for job in jobs:
        assert len(house.ended(job, 60).attempts) == 1


@pytest.mark.parametrize("move", ["claim", "append", "renew", "end"])
def test_19_a_lost_reply_to_a_worker_changes_nothing(house: FaultStack, move: str) -> None:
    loss = house.proxy.lose_reply(script(move), 3)
    jobs = [house.submit() for _ in range(4)]
    for job in jobs:
        assert len(house.ended(job).attempts) == 1
    wait_until(lambda: loss.lost == 3, f"three replies to {move} were lost")


@pytest.mark.slow_fault
def test_19_a_lost_reply_to_a_hand_over_hands_over_once(house: FaultStack) -> None:
    house.ended(house.upload("facts", "facts.txt", TEXT.encode())[1])
    loss = house.proxy.lose_reply(script("hand_over"), 2)
    answer = house.client.post("/generate", json={"prompt": "what does the fox do?", "collection": "facts", "max_tokens": 4})
    job = answer.json()["id"]
    house.ledger.accepted(job)
    assert [attempt.outcome for attempt in house.ended(job).attempts] == [Outcome.HANDED_OVER, Outcome.COMPLETED]
    assert loss.lost == 2


@pytest.mark.slow_fault
def test_19_a_lost_reply_to_a_retry_counts_one_retry(house: FaultStack) -> None:
    [job] = house.running(1, TEXT * 2)
    loss = house.proxy.lose_reply(script("retry"), 2)
    kill(house.engine().pid)
    assert [attempt.outcome for attempt in house.ended(job).attempts] == [Outcome.RETRIED, Outcome.COMPLETED]
    assert house.job(job).retries == 1
    assert loss.lost == 2


@pytest.mark.slow_fault
@pytest.mark.parametrize("move", ["reap", "abandon"])
def test_19_a_lost_reply_to_the_janitor_costs_one_attempt_at_most(house: FaultStack, move: str) -> None:
    [job] = house.running(1, TEXT * 2)
    loss = house.proxy.lose_reply(script(move), 3)
    kill(house.pid("gpu0"))
    assert [attempt.outcome for attempt in house.ended(job).attempts] == [Outcome.LOST, Outcome.COMPLETED]
    assert loss.lost


@pytest.mark.slow_fault
def test_19_a_lost_reply_to_a_cancel_cancels(house: FaultStack) -> None:
    [job] = house.running(1, TEXT * 4)
    house.ledger.may_end(job, "cancelled")
    house.proxy.lose_reply(script("cancel"))
    answers = [house.client.post(f"/jobs/{job}/cancel").status_code for _ in range(2)]
    assert answers[1] in (202, 409), answers
    assert house.ended(job).status is Status.CANCELLED


@pytest.mark.slow_fault
def test_19_a_lost_reply_to_a_ticket_is_no_fault_of_the_submit(house: FaultStack) -> None:
    loss = house.proxy.lose_reply(b"LPUSH")
    job = house.submit()
    assert len(house.ended(job).attempts) == 1
    assert loss.lost == 1


def test_19_a_lost_reply_to_a_submit_makes_one_job_for_one_idempotency_key(house: FaultStack) -> None:
    loss = house.proxy.lose_reply(script("submit"))
    key = {"Idempotency-Key": f"lost-{house.proxy.port}"}
    before = _ids(house)
    house.try_submit(headers=key)
    answer = house.try_submit(headers=key)
    assert (answer.status_code, loss.lost) == (202, 1)
    assert _ids(house) - before == {answer.json()["id"]}


def test_20_a_job_whose_ticket_was_never_issued_runs(house: FaultStack) -> None:
    # The only request that is lost is the ticket's; it must not be sent again by anybody but the janitor.
    loss = house.proxy.lose_request(b"LPUSH", 1)
    job = house.submit()
    assert len(house.ended(job).attempts) == 1
    assert loss.lost == 1


@pytest.mark.slow_fault
def test_20_a_job_whose_server_died_before_the_ticket_runs(house: FaultStack) -> None:
    before = _ids(house)
    loss = house.proxy.lose_reply(script("submit"))
    with pytest.raises((AssertionError, httpx2.HTTPError)):
        house.submit()
    [job] = _ids(house) - before
    house.ledger.accepted(job, text=TEXT)
    assert loss.lost == 1
    assert len(house.ended(job).attempts) == 1


def _ids(house: FaultStack) -> set[str]:
    """Every job there is."""
    return {
        str(key).removeprefix("eh:job:") for key in house.direct.scan_iter("eh:job:*", count=1000) if str(key).count(":") == 2
    }
