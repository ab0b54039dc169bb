"""Faults 27 to 29, 45 to 47: janitors that are killed, doubled or missing, long queues, tickets that are garbage or too many."""

import base64
import json
import os
import pickle
import signal
import threading
import uuid

import pytest

from shared.jobs.celery_broker import CeleryBroker, generation_queue
from shared.jobs.models import Outcome
from shared.jobs.transitions import Lifecycle, Submission
from shared.redis_connection import PREFIX, connect
from shared.settings import Settings
from testing.fault_rig.fault_stack import DEFAULT, TEXT, FaultStack
from testing.fault_rig.pausing import pause
from testing.fault_rig.processes import family, kill, stopped
from testing.waiting import wait_until

HOUSE = {"environment": {"ENGINEHOUSE_CANARY_SECONDS": "1"}}
QUEUE = generation_queue(DEFAULT)


@pytest.mark.slow_fault
def test_27_many_janitors_at_once_take_one_attempt(house: FaultStack) -> None:
    jobs = house.running(8, TEXT * 2)
    over = threading.Event()

    def reap() -> None:
        client = connect(house.redis.url)
        lifecycle = Lifecycle(client, Settings(), CeleryBroker(client).wake)
        while not over.is_set():
            lifecycle.reap()
            lifecycle.missing_wakeups(100)

    janitors = [threading.Thread(target=reap) for _ in range(4)]
    for janitor in janitors:
        janitor.start()
    kill(house.pid("gpu0"))
    kill(house.pid("io"))
    try:
        for job in jobs:
            assert [attempt.outcome for attempt in house.ended(job).attempts] == [Outcome.LOST, Outcome.COMPLETED]
            assert house.job(job).lost == 1
    finally:
        over.set()
        for janitor in janitors:
            janitor.join()


@pytest.mark.parametrize("seconds", [8, pytest.param(60, marks=pytest.mark.slow_fault)])
def test_28_what_was_left_undone_without_janitors_is_done_without_a_storm(house: FaultStack, seconds: float) -> None:
    workers = [process.pid for pid in house.pids().values() for process in family(pid)]
    with stopped(workers):
        jobs = [house.submit(max_tokens=5) for _ in range(50)]
        house.direct.delete(QUEUE)  # and every ticket is lost too
        pause(seconds)
    most = 0

    def done() -> bool:
        nonlocal most
        most = max(most, house.wakeups())
        return all(house.job(job).status.final for job in jobs)

    wait_until(done, "all have ended", seconds=30)
    assert most <= 50, "no more tickets than jobs"


@pytest.mark.slow_fault
def test_29_ten_thousand_queued_jobs_need_no_new_tickets_and_slow_nobody(house: FaultStack) -> None:
    lifecycle = Lifecycle(house.direct, Settings(), CeleryBroker(house.direct).wake)
    with stopped(process.pid for process in family(house.pid("gpu0"))):
        jobs = [_submitted(lifecycle) for _ in range(10_000)]
        pause(5)
        # A janitor that looks between a submit and its ticket may issue one too many.
        assert len(jobs) <= house.wakeups() < len(jobs) + 20, "janitors issue none where none is missing"
        memory = int(house.direct.info("memory")["used_memory"])
        assert memory < 200e6
        extra = house.submit(priority="interactive")
        assert house.client.get(f"/jobs/{extra}").elapsed.total_seconds() < 0.5
    assert house.ended(extra).status == "completed"
    for job in jobs:
        lifecycle.cancel(job, "local")
    wait_until(lambda: not house.wakeups(), "the tickets for nothing are used up", seconds=60)


@pytest.mark.slow_fault
def test_29_a_queue_at_its_bound_refuses_and_says_when_to_come_back(house: FaultStack) -> None:
    lifecycle = Lifecycle(house.direct, Settings(max_queued=20), CeleryBroker(house.direct).wake)
    with stopped(process.pid for process in family(house.pid("gpu0"))):
        jobs = [house.submit() for _ in range(20)]
        with pytest.raises(Exception, match="20") as refused:
            _submitted(lifecycle)
        assert getattr(refused.value, "status", None) == 429
        assert getattr(refused.value, "retry_after", None)
        assert house.direct.zcard(f"{PREFIX}queue:{QUEUE}:jobs:local") == len(jobs), "nothing of the refused one is left"


def _message(**changes: object) -> str:
    body = base64.b64encode(json.dumps([[QUEUE], {}, {}]).encode()).decode()
    headers = {
        "lang": "py",
        "task": "no.such.task",
        "id": str(uuid.uuid4()),
        "root_id": None,
        "argsrepr": "()",
        "kwargsrepr": "{}",
    }
    properties = {
        "correlation_id": str(uuid.uuid4()),
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": QUEUE},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": str(uuid.uuid4()),
    }
    message = {"body": body, "content-encoding": "utf-8", "content-type": "application/json", "headers": headers}
    return json.dumps(message | {"properties": properties} | changes)


PICKLE = base64.b64encode(pickle.dumps(((QUEUE,), {}, {}))).decode()
GARBAGE = {
    "not JSON": "garbage",
    "JSON of another kind": "[1, 2, 3]",
    "nothing in it": "{}",
    "a pickle": _message(**{"body": PICKLE, "content-type": "application/x-python-serialize", "content-encoding": "binary"}),
    "an unknown task": _message(),
    "wrong arguments": _message(headers={"lang": "py", "task": "enginehouse.run_next_job", "id": str(uuid.uuid4())}, body="AAAA"),
}


@pytest.mark.slow_fault
@pytest.mark.parametrize("name", GARBAGE)
def test_45_garbage_among_the_tickets_stops_nobody_for_long(house: FaultStack, name: str) -> None:
    jobs = house.running(2, TEXT)
    house.direct.lpush(QUEUE, GARBAGE[name])
    jobs.append(house.submit())
    for job in jobs:
        house.ended(job, 30)


@pytest.mark.slow_fault
def test_46_a_worker_that_takes_no_tickets_any_more_is_replaced(house: FaultStack) -> None:
    wedged = house.pid("gpu0")
    jobs = house.running(4, TEXT * 2)
    os.kill(wedged, signal.SIGRTMIN)  # its main thread, which takes tickets, stands still; all others live
    jobs += [house.submit() for _ in range(4)]
    wait_until(lambda: house.pid("gpu0") != wedged, "it was replaced", seconds=20)
    for job in jobs:
        house.ended(job)


def test_47_a_hundred_tickets_too_many_run_a_job_once(house: FaultStack) -> None:
    with stopped(process.pid for process in family(house.pid("gpu0"))):
        job = house.submit()
        CeleryBroker(house.direct).wake(QUEUE, 100)
    assert len(house.ended(job).attempts) == 1
    wait_until(lambda: not house.wakeups(), "the tickets for nothing are used up")


def _submitted(lifecycle: Lifecycle) -> str:
    submission = Submission(kind="generate", queue=QUEUE, spec={"prompt": TEXT}, owner="local", model=DEFAULT)
    answer = lifecycle.submit_job(submission)
    return answer if isinstance(answer, str) else answer.id
