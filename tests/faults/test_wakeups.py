"""Maintenance that is killed, concurrent or missing, long queues, and wake-ups that are garbage or surplus."""

import base64
import json
import os
import pickle
import signal
import threading
import uuid

import pytest

from shared.jobs.celery_broker import CeleryBroker
from shared.jobs.models import Outcome
from shared.jobs.queue_names import generation_queue
from shared.jobs.submission import Submission
from shared.redis_connection import PREFIX, connect
from shared.settings import Settings
from testing.fault_rig.duration import hold_fault
from testing.fault_rig.fault_stack import DEFAULT, TEXT, FaultStack
from testing.fault_rig.processes import kill, process_tree, suspended
from testing.waiting import wait_until
from tests.conftest import JobSystem

STACK_OPTIONS = {"environment": {"ENGINEHOUSE_CANARY_SECONDS": "1"}}
QUEUE = generation_queue(DEFAULT)


@pytest.mark.slow_fault
def test_concurrent_reapers_take_one_attempt(stack: FaultStack) -> None:
    jobs = stack.start_jobs(8, TEXT * 2)
    over = threading.Event()

    def reap() -> None:
        client = connect(stack.redis.url)
        system = JobSystem(client, Settings(), CeleryBroker(client).wake)
        while not over.is_set():
            system.maintenance.reap()
            system.maintenance.send_missing_wakeups(100)

    reapers = [threading.Thread(target=reap) for _ in range(4)]
    for reaper in reapers:
        reaper.start()
    kill(stack.pid_of("gpu0"))
    kill(stack.pid_of("io"))
    try:
        for job in jobs:
            assert [attempt.outcome for attempt in stack.wait_for_end(job).attempts] == [Outcome.LOST, Outcome.COMPLETED]
            assert stack.read_job(job).lost == 1
    finally:
        over.set()
        for reaper in reapers:
            reaper.join()


@pytest.mark.parametrize("seconds", [8, pytest.param(60, marks=pytest.mark.slow_fault)])
def test_a_backlog_without_maintenance_is_cleared_without_a_storm(stack: FaultStack, seconds: float) -> None:
    workers = [process.pid for pid in stack.worker_pids().values() for process in process_tree(pid)]
    with suspended(workers):
        jobs = [stack.submit_job(max_tokens=5) for _ in range(50)]
        stack.direct.delete(QUEUE)  # and every wake-up is lost too
        hold_fault(seconds)
    peak = 0

    def done() -> bool:
        nonlocal peak
        peak = max(peak, stack.count_wakeups())
        return all(stack.read_job(job).status.final for job in jobs)

    wait_until(done, "all have ended")
    assert peak <= 50, "no more wake-ups than jobs"


@pytest.mark.slow_fault
def test_ten_thousand_queued_jobs_need_no_new_wakeups_and_slow_nobody_down(stack: FaultStack) -> None:
    system = JobSystem(stack.direct, Settings(), CeleryBroker(stack.direct).wake)
    # No worker has this model, so its wake-ups stay in their list, however long the submission takes.
    jobs = [_submit_directly(system, model="absent") for _ in range(10_000)]
    hold_fault(5)
    # Maintenance that looks between a submit and its wake-up may send a surplus one.
    assert len(jobs) <= stack.count_wakeups("absent") < len(jobs) + 20, "maintenance sends no wake-up that is not missing"
    memory = int(stack.direct.info("memory")["used_memory"])
    assert memory < 200e6
    extra = stack.submit_job(priority="interactive")
    wait_until(lambda: stack.client.get(f"/jobs/{extra}").elapsed.total_seconds() < 0.5, "a job is read quickly")
    assert stack.wait_for_end(extra).status == "completed"
    for job in jobs:
        system.transitions.cancel(job, "local")
    assert not stack.direct.exists(f"{PREFIX}queue:{generation_queue('absent')}:jobs:local")
    stack.direct.delete(generation_queue("absent"))


@pytest.mark.slow_fault
def test_a_full_queue_rejects_jobs_and_says_when_to_retry(stack: FaultStack) -> None:
    system = JobSystem(stack.direct, Settings(max_queued=20), CeleryBroker(stack.direct).wake)
    with suspended(process.pid for process in process_tree(stack.pid_of("gpu0"))):
        jobs = [stack.submit_job() for _ in range(20)]
        with pytest.raises(Exception, match="20") as refused:
            _submit_directly(system)
        assert getattr(refused.value, "status", None) == 429
        assert getattr(refused.value, "retry_after", None)
        assert stack.direct.zcard(f"{PREFIX}queue:{QUEUE}:jobs:local") == len(jobs), "nothing of the rejected job is left"


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
def test_garbage_in_the_celery_queue_stops_no_worker_for_long(stack: FaultStack, name: str) -> None:
    jobs = stack.start_jobs(2, TEXT)
    stack.direct.lpush(QUEUE, GARBAGE[name])
    jobs.append(stack.submit_job())
    for job in jobs:
        assert stack.wait_for_end(job).status == "completed"


@pytest.mark.slow_fault
def test_a_wedged_worker_is_replaced(stack: FaultStack) -> None:
    wedged = stack.pid_of("gpu0")
    jobs = stack.start_jobs(4, TEXT * 2)
    os.kill(wedged, signal.SIGRTMIN)  # blocks the main thread, which reads messages; all other threads continue
    jobs += [stack.submit_job() for _ in range(4)]
    wait_until(lambda: stack.pid_of("gpu0") != wedged, "the worker was replaced")
    for job in jobs:
        stack.wait_for_end(job)


def test_a_hundred_surplus_wakeups_run_a_job_once(stack: FaultStack) -> None:
    with suspended(process.pid for process in process_tree(stack.pid_of("gpu0"))):
        job = stack.submit_job()
        CeleryBroker(stack.direct).wake(QUEUE, 100)
    assert len(stack.wait_for_end(job).attempts) == 1
    wait_until(lambda: not stack.count_wakeups(), "the surplus wake-ups are used up")


def _submit_directly(system: JobSystem, model: str = DEFAULT) -> str:
    submission = Submission(kind="generate", queue=generation_queue(model), spec={"prompt": TEXT}, owner="local", model=model)
    answer = system.submitter.submit_job(submission)
    return answer if isinstance(answer, str) else answer.id
