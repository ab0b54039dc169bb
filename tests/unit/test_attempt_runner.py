"""Attempt runner: every ending of a handler, settled in a healthy Redis, after the loss of the lease, and through an outage."""

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import redis

from shared.errors import DiskFull, DocumentRejected, EngineFault, IndexUnavailable, InvalidValue
from shared.jobs.models import AttemptRecord, Outcome, Status
from shared.jobs.usage import Usage
from tests.unit.runtime_fakes import ManualClock, RecordingTransitions, queued_job
from workers.runtime.attempt import Attempt, AttemptStopped, CheckedHandler, Handler, Handover, Result
from workers.runtime.attempt_runner import TRANSITIONS, AttemptRunner, Ending
from workers.runtime.event_publisher import EventPublisher
from workers.runtime.outage import LONGEST_PAUSE_SECONDS

LEASE = ("job_1", 3)


class Stage:
    """One attempt at one job, with everything around it in memory."""

    def __init__(self, handler: Handler, *, kind: str = "generate", retries: int = 0) -> None:
        self.clock = ManualClock()
        self.transitions = RecordingTransitions()
        self.publisher = EventPublisher(self.transitions)
        self.attempt = Attempt(queued_job(kind=kind, attempt=3, retries=retries), self.publisher.enqueue_buffer)
        self.runner = AttemptRunner(
            self.transitions,
            self.publisher,
            {"generate": handler},
            sleep=self.clock.sleep,
        )

    def run(self) -> Outcome:
        return self.runner.run_attempt(self.attempt)


def stop(reason: Any) -> Handler:
    """A handler that notices between two steps that it was asked to stop."""

    def handler(attempt: Attempt) -> Result:
        attempt.send_delta({"text": "partial"})
        attempt.request_stop(reason)
        attempt.raise_if_stopped()
        raise AssertionError("raise_if_stopped must raise")

    return handler


def fail(error: Exception) -> Handler:
    def handler(attempt: Attempt) -> Result:
        attempt.send_delta({"text": "partial"})
        raise error

    return handler


def succeed(value: Any) -> Handler:
    def handler(attempt: Attempt) -> Any:
        attempt.send_delta({"text": "the answer"})
        return value

    return handler


def checked(error: Exception, finding: Exception | None) -> Handler:
    """A handler that fails, with a check that raises ``finding``."""

    def check_subject(attempt: Attempt) -> None:
        if finding is not None:
            raise finding

    return CheckedHandler(handle=fail(error), check_subject=check_subject)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@dataclass(frozen=True)
class Case:
    """A handler, the one transition that settles it, and the outcome of the attempt when Redis accepts that."""

    handler: Callable[[], Handler]
    outcome: Outcome
    transition: str | None
    status: Status | None = None
    code: str | None = None
    kind: str = "generate"


CASES = {
    "completed": Case(lambda: succeed({"text": "x"}), Outcome.COMPLETED, "finish", Status.COMPLETED),
    "failed": Case(
        lambda: fail(DocumentRejected("The file is encrypted.", code="encrypted")),
        Outcome.FAILED,
        "finish",
        Status.FAILED,
        "encrypted",
    ),
    "refused by its own check": Case(
        lambda: fail(InvalidValue("No such filter.")), Outcome.FAILED, "finish", Status.FAILED, InvalidValue.code
    ),
    "retryable failure": Case(lambda: fail(EngineFault("The engine died.")), Outcome.RETRIED, "retry", code=EngineFault.code),
    "cancelled": Case(lambda: stop("cancel"), Outcome.CANCELLED, "finish", Status.CANCELLED),
    "timed out": Case(lambda: stop("timeout"), Outcome.FAILED, "finish", Status.FAILED, "timeout"),
    "released": Case(lambda: stop("release"), Outcome.RELEASED, "release"),
    "handed over": Case(lambda: succeed(Handover(queue="gpu.echo", context={"passages": []})), Outcome.HANDED_OVER, "hand_over"),
    "lost": Case(lambda: stop("lost"), Outcome.LOST, None),
    "unknown exception": Case(lambda: fail(ZeroDivisionError("oops")), Outcome.FAILED, "finish", Status.FAILED, "internal_error"),
    "outage of Redis inside the handler": Case(
        lambda: fail(redis.ConnectionError("refused")), Outcome.RELEASED, "release_after_outage", code="redis_unavailable"
    ),
    "full disk": Case(
        lambda: fail(OSError(errno.ENOSPC, "No space left on device")), Outcome.RELEASED, "release_after_outage", code="disk_full"
    ),
    "full disk while a file is stored": Case(
        lambda: fail(DiskFull("The disk is full.")), Outcome.RELEASED, "release_after_outage", code="disk_full"
    ),
    "fault that an outage has caused": Case(
        lambda: fail(caused(ValueError("no reply"), redis.TimeoutError("late"))),
        Outcome.RELEASED,
        "release_after_outage",
        code="redis_unavailable",
    ),
    "outage of the index": Case(
        lambda: fail(IndexUnavailable("refused", outage=True)), Outcome.RELEASED, "release_after_outage", code="index_unavailable"
    ),
    "fault of the index": Case(lambda: fail(IndexUnavailable("damaged")), Outcome.RETRIED, "retry", code="index_unavailable"),
    "subject deleted": Case(
        lambda: checked(FileNotFoundError("pages.jsonl"), AttemptStopped("cancel")), Outcome.CANCELLED, "finish", Status.CANCELLED
    ),
    "subject still there": Case(
        lambda: checked(FileNotFoundError("pages.jsonl"), None), Outcome.FAILED, "finish", Status.FAILED, "internal_error"
    ),
    "outage while the subject is looked for": Case(
        lambda: checked(FileNotFoundError("pages.jsonl"), redis.ConnectionError("refused")),
        Outcome.RELEASED,
        "release_after_outage",
        code="redis_unavailable",
    ),
    "unknown kind": Case(lambda: succeed({}), Outcome.FAILED, "finish", Status.FAILED, "internal_error", kind="no_such_kind"),
}


def check_written(stage: Stage, case: Case) -> None:
    """Exactly one transition was written, with the lease of the attempt and what the ending carries."""
    if case.transition is None:
        assert stage.transitions.calls == []
        return
    [(name, arguments, fields)] = stage.transitions.calls
    assert (name, arguments[0]) == (case.transition, LEASE)
    if case.status is not None:
        assert arguments[1] is case.status
        error = fields.get("error")
        assert (error or {}).get("code") == case.code
    elif name in ("retry", "release_after_outage"):
        assert arguments[-1]["code"] == case.code


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_ending_is_settled_by_one_transition(case: Case) -> None:
    stage = Stage(case.handler(), kind=case.kind)
    assert stage.run() is case.outcome
    check_written(stage, case)
    assert stage.clock.sleeps == []


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_ending_reports_what_the_attempt_has_used(case: Case) -> None:
    stage = Stage(case.handler(), kind=case.kind)
    stage.attempt.usage.completion_tokens = 7
    stage.run()
    assert stage.transitions.usages == ([] if case.transition is None else [Usage(completion_tokens=7)])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_attempt_that_lost_its_lease_ends_lost_whatever_its_handler_did(case: Case) -> None:
    stage = Stage(case.handler(), kind=case.kind)
    if case.transition is not None:
        stage.transitions.answers[case.transition] = "lost"
    assert stage.run() is Outcome.LOST
    check_written(stage, case)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_ending_is_settled_once_redis_is_back(case: Case) -> None:
    stage = Stage(case.handler(), kind=case.kind)
    if case.transition is not None:
        stage.transitions.outages[case.transition] = 6
    assert stage.run() is case.outcome
    check_written(stage, case)
    if case.transition is not None:
        assert stage.transitions.failures[case.transition] == 6
        assert stage.clock.sleeps == [0.1, 0.2, 0.4, 0.8, 1.6, LONGEST_PAUSE_SECONDS]


@pytest.mark.parametrize("case", [case for case in CASES.values() if case.transition], ids=[n for n in CASES if n != "lost"])
def test_an_ending_that_cannot_be_written_before_the_worker_has_to_exit_leaves_the_lease_to_lapse(case: Case) -> None:
    stage = Stage(case.handler(), kind=case.kind)
    stage.clock.stops_at = stage.clock.now + 3600
    assert case.transition is not None
    stage.transitions.outages[case.transition] = 10_000
    with pytest.raises(redis.ConnectionError):
        stage.run()
    assert stage.transitions.calls == []
    assert 3600 <= sum(stage.clock.sleeps) <= 3600 + LONGEST_PAUSE_SECONDS


def test_a_transition_that_redis_rejects_is_not_repeated() -> None:
    stage = Stage(succeed({}))

    def reject(*arguments: Any, **fields: Any) -> str:
        raise redis.ResponseError("ERR wrong number of arguments")

    stage.transitions.finish = reject
    with pytest.raises(redis.ResponseError):
        stage.run()
    assert stage.clock.sleeps == []


def test_every_ending_but_lost_has_a_transition() -> None:
    assert set(TRANSITIONS) == set(Ending) - {Ending.LOST}


def test_a_result_carries_service_and_session_messages() -> None:
    message = {"role": "assistant", "content": "hello"}
    stage = Stage(succeed(Result(value={"text": "hello"}, service=12, messages=[message])))
    stage.run()
    [(_, _, fields)] = stage.transitions.calls
    assert (fields["result"], fields["service"], list(fields["messages"])) == ({"text": "hello"}, 12, [message])


def test_a_handover_carries_queue_and_context() -> None:
    stage = Stage(succeed(Handover(queue="gpu.other", context={"passages": [1]})))
    stage.run()
    [(_, arguments, _)] = stage.transitions.calls
    assert arguments == (LEASE, "gpu.other", {"passages": [1]})


def test_outages_in_a_row_are_counted_for_the_pause_before_the_next_attempt() -> None:
    stage = Stage(fail(redis.ConnectionError("refused")))
    earlier = [
        AttemptRecord(number, "w", "gpu.echo", 0, 1, Outcome.RELEASED, error)
        for number, error in ((1, None), (2, "redis_unavailable"))
    ]
    stage.attempt.job = replace(stage.attempt.job, attempts=(*earlier, AttemptRecord(3, "w", "gpu.echo", 2)))
    stage.run()
    [(_, arguments, _)] = stage.transitions.calls
    assert arguments[:3] == (LEASE, "gpu.echo", 1), "the first attempt was released by a stopping worker"


def test_a_release_returns_the_job_to_its_own_queue() -> None:
    stage = Stage(stop("release"))
    stage.run()
    [(_, arguments, _)] = stage.transitions.calls
    assert arguments == (LEASE, "gpu.echo")


def test_a_retryable_failure_out_of_retries_fails_the_job() -> None:
    stage = Stage(fail(EngineFault("The engine died.")), retries=3)
    stage.transitions.answers["retry"] = "failed"
    assert stage.run() is Outcome.FAILED
    [(_, arguments, _)] = stage.transitions.calls
    assert arguments[1] == 3


def test_the_newest_text_is_written_with_the_end_of_the_job() -> None:
    stage = Stage(succeed({"text": "the answer"}))
    stage.run()
    [(_, _, fields)] = stage.transitions.calls
    assert fields["last"].data == {"text": "the answer"}
    assert stage.transitions.written == [], "no separate write for it"


def test_text_keeps_its_index_through_an_outage_at_the_end() -> None:
    stage = Stage(succeed({}))
    stage.transitions.outages["finish"] = 2
    stage.run()
    [(_, _, fields)] = stage.transitions.calls
    assert fields["last"].index == 1


def test_a_handler_does_not_start_once_a_stop_was_requested() -> None:
    called = []
    stage = Stage(lambda attempt: called.append(attempt) or {})
    stage.attempt.request_stop("cancel")
    assert stage.run() is Outcome.CANCELLED
    assert called == []


def test_the_error_of_an_unknown_exception_hides_its_message_and_names_the_job() -> None:
    stage = Stage(fail(RuntimeError("secret of another owner")))
    stage.run()
    [(_, _, fields)] = stage.transitions.calls
    assert "secret" not in fields["error"]["message"]
    assert "RuntimeError" in fields["error"]["message"]
    assert "job_1" in fields["error"]["message"]


def test_the_error_of_an_unknown_kind_names_kind_and_queue() -> None:
    stage = Stage(succeed({}), kind="no_such_kind")
    stage.run()
    [(_, _, fields)] = stage.transitions.calls
    assert "no_such_kind" in fields["error"]["message"]
    assert "gpu.echo" in fields["error"]["message"]


def test_a_loss_overrides_an_earlier_cancel_request() -> None:
    attempt = Attempt(queued_job(), lambda buffer: None)
    attempt.request_stop("cancel")
    attempt.request_stop("timeout")
    with pytest.raises(AttemptStopped, match="cancel"):
        attempt.raise_if_stopped()
    attempt.request_stop("lost")
    with pytest.raises(AttemptStopped, match="lost"):
        attempt.raise_if_stopped()


def test_an_interrupt_is_called_when_a_stop_is_requested_and_at_once_if_it_was() -> None:
    interrupts = []
    attempt = Attempt(queued_job(), lambda buffer: None)
    attempt.on_stop(lambda: interrupts.append("first"))
    assert interrupts == []
    attempt.request_stop("cancel")
    attempt.on_stop(lambda: interrupts.append("second"))
    assert interrupts == ["first", "second"]
