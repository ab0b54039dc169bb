"""Worker runtime, stepped by hand: claims, leases, heartbeats, control messages and drain, without a thread or Redis."""

import logging
import signal
import subprocess
import sys
import threading
import weakref
from dataclasses import replace
from typing import Any

import pytest

from shared.jobs.models import Status
from shared.jobs.worker_registry import Worker
from shared.logs import LineCollector
from shared.machine import is_stopped
from shared.settings import Settings
from testing.waiting import wait_until
from tests.unit.runtime_fakes import ManualClock, RecordingTransitions, RegistryInMemory, queued_job
from workers.runtime import worker_runtime
from workers.runtime.attempt import Attempt, Handler
from workers.runtime.lease_alarm import LeaseAlarm
from workers.runtime.worker_runtime import WorkerRuntime, describe_process

QUEUE = "gpu.echo"


class Bench:
    """A runtime whose handler calls ``during`` in the middle of a job."""

    def __init__(self, *, phase: str = "ready") -> None:
        self.clock = ManualClock()
        self.transitions = RecordingTransitions()
        self.registry = RegistryInMemory()
        self.during: Any = lambda attempt: None
        handlers: dict[str, Handler] = {"generate": self._generate}
        worker = describe_process("gpu0@host", pool="gpu", queues=(QUEUE,), slots=2, model="echo", phase=phase)
        self.runtime = WorkerRuntime(
            Settings(), self.transitions, self.transitions, self.registry, handlers, worker, clock=self.clock
        )

    def run_job(self, during: Any = lambda attempt: None, number: int = 1) -> str:
        self.during = during
        self.transitions.queued.append(queued_job(number))
        return self.runtime.run_next_job(QUEUE)

    def _generate(self, attempt: Attempt) -> dict[str, Any]:
        self.during(attempt)
        attempt.raise_if_stopped()
        return {"text": "done"}


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_job_is_claimed_run_and_finished(bench: Bench) -> None:
    assert bench.run_job() == "job_1 generate completed"
    assert bench.transitions.names() == ["claim", "finish"]
    _, (queue, worker, token), _ = bench.transitions.calls[0]
    assert (queue, worker) == (QUEUE, bench.runtime.worker.id)
    assert token


def test_an_ended_attempt_is_freed_without_a_garbage_collection(bench: Bench) -> None:
    attempts: list[weakref.ref[Attempt]] = []
    bench.run_job(lambda attempt: attempts.append(weakref.ref(attempt)))
    assert [attempt() for attempt in attempts] == [None]


def test_what_an_attempt_logs_is_written_with_its_job(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("workers.test")
    monkeypatch.setattr(logger, "handlers", [LineCollector(logging.INFO)])
    monkeypatch.setattr(logger, "level", logging.INFO)

    def during(attempt: Attempt) -> None:
        logger.warning("a page of %s is damaged", attempt.job.id)
        bench.runtime.renew_leases()
        logger.info("the others were read")

    bench.run_job(during)
    written = [values for name, values, _ in bench.transitions.calls if name == "write_log"]
    worker, lease = bench.runtime.worker.id, ("job_1", 1)
    assert written == [
        (worker, (lease, "warning", "a page of job_1 is damaged")),
        (worker, (lease, "info", "the others were read")),
    ], "long jobs have their lines before they end"


def test_an_empty_queue_is_no_error(bench: Bench) -> None:
    assert bench.runtime.run_next_job(QUEUE) == "queue empty"
    assert bench.runtime.busy_slots == 0


def test_a_slot_is_busy_while_its_job_runs(bench: Bench) -> None:
    busy = []
    bench.run_job(lambda attempt: busy.append(bench.runtime.busy_slots))
    assert (busy, bench.runtime.busy_slots) == ([1], 0)


def test_a_slot_that_is_reserved_for_others_keeps_its_wakeup_until_it_gets_a_job(bench: Bench) -> None:
    bench.transitions.held_back = 3
    assert bench.run_job(lambda attempt: None) == "job_1 generate completed"
    assert bench.transitions.names().count("claim") == 4


def test_a_held_back_slot_looks_again_when_a_job_waits_for_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_runtime, "HELD_BACK_SECONDS", 60)
    bench.transitions.held_back = 1
    thread = threading.Thread(target=bench.run_job)
    thread.start()
    wait_until(lambda: bench.transitions.held_back == 0, "the slot is held back")
    # As often as it takes: the slot may not wait yet.
    wait_until(lambda: bench.runtime.handle_control_message({"job_waits": QUEUE}) or not thread.is_alive(), "the job has run")
    assert bench.transitions.names()[-1] == "finish"


def test_jobs_beside_the_slots_do_not_count_as_slots(bench: Bench) -> None:
    slots: list[int] = []

    def claim_another(attempt: Attempt) -> None:
        bench.during = lambda attempt: None
        bench.transitions.queued.append(queued_job(2))
        bench.runtime.run_next_job(QUEUE)

    bench.during = claim_another
    bench.transitions.queued.append(queued_job(1))
    claim = bench.transitions.claim_for_slot

    def claim_for_slot(*arguments: Any, **options: Any) -> Any:
        slots.append(options["slots"])
        return claim(*arguments, **options)

    bench.transitions.claim_for_slot = claim_for_slot  # type: ignore[method-assign]
    bench.runtime.run_next_job("side", has_slot=False)
    assert slots == [2, 3]


def test_a_held_back_slot_leaves_when_the_worker_drains(bench: Bench) -> None:
    bench.transitions.held_back = 1_000_000
    bench.runtime.begin_drain(0)
    assert bench.runtime.run_next_job("q") == "draining"


def test_leases_of_running_attempts_are_renewed(bench: Bench) -> None:
    bench.run_job(lambda attempt: bench.runtime.renew_leases())
    bench.runtime.renew_leases()
    renewals = [arguments for name, arguments, _ in bench.transitions.calls if name == "renew"]
    worker = bench.runtime.worker.id
    assert renewals == [(worker, [("job_1", 1)]), (worker, [])]


@pytest.mark.parametrize(
    ("answer", "outcome", "last"),
    [("cancel", "cancelled", "finish"), ("timeout", "failed", "finish"), ("lost", "lost", "renew")],
)
def test_the_answer_to_a_renewal_stops_the_attempt(bench: Bench, answer: str, outcome: str, last: str) -> None:
    bench.transitions.answers["leases"] = {("job_1", 1): answer}
    assert bench.run_job(lambda attempt: bench.runtime.renew_leases()).split()[:3] == ["job_1", "generate", outcome]
    assert bench.transitions.names()[-1] == last


def test_a_cancel_message_stops_the_attempt_that_it_names(bench: Bench) -> None:
    message = {"cancel": "job_1", "attempt": 1}
    assert bench.run_job(lambda attempt: bench.runtime.handle_control_message(message)) == "job_1 generate cancelled"
    assert bench.transitions.calls[-1][1][1] is Status.CANCELLED


@pytest.mark.parametrize("message", [{"cancel": "job_2", "attempt": 1}, {"cancel": "job_1", "attempt": 9}])
def test_a_cancel_message_for_another_attempt_changes_nothing(bench: Bench, message: dict[str, Any]) -> None:
    assert bench.run_job(lambda attempt: bench.runtime.handle_control_message(message)) == "job_1 generate completed"


def test_a_heartbeat_carries_status_running_jobs_and_details(bench: Bench) -> None:
    bench.runtime.collect_details = lambda: {"engine": {"in_flight": 1}}
    bench.runtime.update_status(message="warming up", fraction=0.5)
    bench.run_job(lambda attempt: bench.runtime.send_heartbeat())
    bench.clock.now += 7
    bench.runtime.send_heartbeat()
    busy, idle = bench.registry.heartbeats
    assert (busy.running, busy.idle_ms, idle.running, idle.idle_ms) == (1, 0, 0, 7000)
    assert (busy.message, busy.fraction, busy.engine) == ("warming up", 0.5, {"in_flight": 1})


def test_an_idle_child_of_a_stopped_worker_sends_no_heartbeat(bench: Bench) -> None:
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        bench.runtime.worker = replace(bench.runtime.worker, parent=parent.pid)
        parent.send_signal(signal.SIGSTOP)
        wait_until(lambda: is_stopped(parent.pid), "the parent is stopped")
        assert bench.runtime.worker.is_frozen()
        bench.runtime.send_heartbeat()
        assert bench.registry.heartbeats == []
        bench.run_job(lambda attempt: bench.runtime.send_heartbeat())
        assert [worker.running for worker in bench.registry.heartbeats] == [1], "a silent worker would lose its job"
        parent.send_signal(signal.SIGCONT)
        wait_until(lambda: not is_stopped(parent.pid), "the parent goes on")
        bench.runtime.send_heartbeat()
        assert len(bench.registry.heartbeats) == 2
        assert not bench.runtime.worker.is_frozen()
    finally:
        parent.kill()
        parent.communicate()


def test_the_desired_model_is_passed_on_after_each_heartbeat(bench: Bench) -> None:
    models: list[str | None] = []
    bench.runtime.on_heartbeat = models.append
    bench.runtime.send_heartbeat()
    bench.registry.desired_model = "other"
    bench.runtime.handle_control_message({"desired_model": "other"})
    bench.runtime.send_heartbeat()
    assert models == [None, "other"]


def test_a_draining_worker_claims_nothing(bench: Bench) -> None:
    bench.runtime.draining.set()
    assert bench.run_job() == "draining"
    assert bench.transitions.calls == []


def test_a_worker_that_is_loading_claims_nothing_until_it_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.runtime.worker_runtime.READY_POLL_SECONDS", 0.01)
    bench = Bench(phase="loading")
    bench.runtime.draining.set()
    assert bench.run_job() == "draining", "it waited, and was drained before it became ready"
    bench.runtime.draining.clear()
    bench.runtime.update_status(phase="ready")
    assert bench.runtime.run_next_job(QUEUE) == "job_1 generate completed"


def test_a_worker_whose_model_failed_claims_jobs_so_that_they_end() -> None:
    bench = Bench(phase="loading")
    bench.runtime.update_status(phase="failed", message="no such file")
    assert bench.run_job() == "job_1 generate completed"


def test_running_attempts_are_released(bench: Bench) -> None:
    assert bench.run_job(lambda attempt: bench.runtime.release_attempts()) == "job_1 generate released"
    assert bench.transitions.names()[-1] == "release"


def test_a_drain_without_patience_releases_what_runs(bench: Bench) -> None:
    def drain(attempt: Attempt) -> None:
        stopped = threading.Event()
        attempt.on_stop(stopped.set)
        bench.runtime.begin_drain(0)
        assert stopped.wait(60)

    assert bench.run_job(drain) == "job_1 generate released"
    assert bench.run_job(number=2) == "draining"


def test_an_attempt_that_does_not_stop_is_released_without_its_handler(bench: Bench) -> None:
    def ignore_stop(attempt: Attempt) -> None:
        bench.runtime.release_attempts()
        bench.runtime.release_leases()
        assert bench.transitions.names()[-1] == "release"
        bench.transitions.answers["release"] = "lost"  # as Redis answers any further write of this attempt

    assert bench.run_job(ignore_stop) == "job_1 generate released"


def test_a_renewal_that_meets_the_end_of_its_own_attempt_stops_nothing(bench: Bench) -> None:
    bench.transitions.answers["leases"] = {("job_1", 1): "settled"}

    def renew(attempt: Attempt) -> None:
        bench.runtime.renew_leases()
        assert attempt.stop_requested_at is None

    assert bench.run_job(renew) == "job_1 generate completed"


def test_a_job_claimed_while_attempts_are_released_is_released_too(bench: Bench) -> None:
    claim = bench.transitions.claim_for_slot

    def claim_during_release(queue: str, worker: str, token: str, **options: Any) -> Any:
        job = claim(queue, worker, token, **options)
        bench.runtime.release_attempts()
        return job

    bench.transitions.claim_for_slot = claim_during_release
    assert bench.run_job() == "job_1 generate released"


def test_a_claim_is_repeated_with_the_same_token_through_an_outage(bench: Bench) -> None:
    tokens = []
    claim = bench.transitions.claim_for_slot

    def claim_and_note(queue: str, worker: str, token: str, **options: Any) -> Any:
        tokens.append(token)
        return claim(queue, worker, token, **options)

    bench.transitions.claim_for_slot = claim_and_note
    bench.transitions.outages["claim"] = 1
    assert bench.run_job() == "job_1 generate completed"
    assert len(tokens) == 2
    assert len(set(tokens)) == 1


def test_a_shut_down_worker_leaves_the_registry_even_if_redis_is_away(bench: Bench) -> None:
    bench.transitions.outages["mark_worker_dead"] = 1
    bench.runtime.shut_down()
    assert bench.transitions.failures["mark_worker_dead"] == 1


def test_the_registry_entry_describes_this_process() -> None:
    worker: Worker = describe_process("io@host", pool="io", queues=("io",), slots=4)
    assert worker.id == f"io@host/{worker.pid}"
    assert (worker.pool, worker.queues, worker.slots, worker.phase) == ("io", ("io",), 4, "ready")


def test_a_worker_that_loads_a_model_says_so_from_its_first_heartbeat() -> None:
    worker = describe_process("gpu0@host", pool="gpu", queues=("gpu.m",), slots=1, model="m", phase="loading")
    assert (worker.message, worker.fraction) == ("starting", 0.0)


def test_the_alarm_is_not_postponed_while_an_attempt_ignores_a_stop() -> None:
    bench, alarm = Bench(), RecordingAlarm()
    bench.runtime._alarm = alarm

    def ignore_stop(attempt: Attempt) -> None:
        bench.runtime.postpone_alarm()
        attempt.request_stop("cancel")
        bench.clock.now += Settings().lease_seconds
        bench.runtime.postpone_alarm()
        assert alarm.postponed == 2
        bench.clock.now += 2 * Settings().lease_seconds
        bench.runtime.postpone_alarm()
        assert alarm.postponed == 2

    bench.run_job(ignore_stop)
    bench.runtime.postpone_alarm()
    assert alarm.postponed == 3


class RecordingAlarm(LeaseAlarm):
    """Counts how often it was postponed."""

    def __init__(self) -> None:
        super().__init__(1)
        self.postponed = 0

    def postpone(self) -> None:
        self.postponed += 1
