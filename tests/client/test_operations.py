"""Operations without a server: the test supplies the results of effects and checks the next effect."""

import json
from datetime import date
from typing import Any

import pytest

from enginehouse_client import (
    Conflict,
    ConnectionFailed,
    InvalidRequest,
    Job,
    JobFailed,
    NotFound,
    RateLimited,
    RetryPolicy,
    Timeout,
    Unavailable,
)
from enginehouse_client.calls import Calls
from enginehouse_client.effects import Emit, Open, Receive, Response, Send, Sleep

EffectResult = Response | bytes | Exception | None


class Time:
    """A clock that advances only while an operation sleeps, or when a test sets it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def calls(time: Time) -> Calls:
    return Calls(RetryPolicy(retries=2, clock=time, jitter=lambda: 0.0))


class Run:
    """The effects of an operation, and its result."""

    def __init__(self, operation: Any, received: list[EffectResult], time: Time | None = None) -> None:
        self.effects: list[Any] = []
        self.emitted: list[Any] = []
        self.value: Any = None
        answers = iter(received)
        try:
            effect = next(operation)
            while True:
                self.effects.append(effect)
                if isinstance(effect, Emit):
                    self.emitted.append(effect.value)
                    effect = next(operation)
                elif isinstance(effect, Sleep):
                    if time is not None:
                        time.now += effect.seconds
                    effect = next(operation)
                else:
                    outcome = next(answers)
                    effect = operation.throw(outcome) if isinstance(outcome, Exception) else operation.send(outcome)
        except StopIteration as end:
            self.value = end.value

    @property
    def sent(self) -> list[Any]:
        return [effect.request for effect in self.effects if isinstance(effect, Send | Open)]

    @property
    def slept(self) -> list[float]:
        return [effect.seconds for effect in self.effects if isinstance(effect, Sleep)]


def job(status: str = "completed", **more: Any) -> dict[str, Any]:
    result = {"text": "hi"} if status == "completed" else None
    return {"id": "job_1", "kind": "generate", "status": status, "result": result, "error": None, "attempts": [], **more}


def answer(status: int, body: Any = None, **headers: str) -> Response:
    return Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, json.dumps(body).encode())


def error_from_status(status: int, code: str = "x", param: str | None = None, **headers: str) -> Response:
    return answer(status, {"error": {"code": code, "message": "no", "param": param, "type": "t"}}, **headers)


def test_a_retried_submission_keeps_its_idempotency_key(calls: Calls) -> None:
    run = Run(calls.generate("x"), [ConnectionFailed("reset"), error_from_status(503), answer(202, job("queued"))])
    assert run.value.status == "queued"
    keys = {request.headers["Idempotency-Key"] for request in run.sent}
    assert len(run.sent) == 3
    assert len(keys) == 1
    other = Run(calls.generate("x"), [answer(202, job("queued"))])
    assert other.sent[0].headers["Idempotency-Key"] not in keys
    own = Run(calls.generate("x", idempotency_key="mine"), [answer(202, job("queued"))])
    assert own.sent[0].headers["Idempotency-Key"] == "mine"


def test_retries_are_bounded_and_the_last_error_is_raised(calls: Calls) -> None:
    with pytest.raises(ConnectionFailed, match="third"):
        Run(calls.get("job_1"), [ConnectionFailed("first"), ConnectionFailed("second"), ConnectionFailed("third")])
    with pytest.raises(RateLimited) as raised:
        Run(calls.get("job_1"), [error_from_status(429, "queue_full")] * 3)
    assert (raised.value.code, raised.value.attempts) == ("queue_full", 3)


def test_delays_grow_and_retry_after_is_the_minimum(calls: Calls) -> None:
    run = Run(calls.get("job_1"), [error_from_status(503), error_from_status(503, retry_after="7"), answer(200, job())])
    assert run.slept == [0.5, 7.0]
    retry_policy = RetryPolicy(jitter=lambda: 1.0)
    assert [retry_policy.delay(n) for n in range(1, 7)] == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0]
    assert retry_policy.delay(1, 100_000) == retry_policy.max_retry_after


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 500])
def test_permanent_errors_are_not_retried(calls: Calls, status: int) -> None:
    with pytest.raises(Exception, match="no"):
        Run(calls.get("job_1"), [error_from_status(status)])


def test_x_should_retry_false_stops_retries(calls: Calls) -> None:
    with pytest.raises(RateLimited):
        Run(calls.generate("x"), [error_from_status(429, x_should_retry="false")])


def test_unrepeatable_requests_are_not_repeated(calls: Calls) -> None:
    with pytest.raises(ConnectionFailed):
        Run(calls.retry("job_1"), [ConnectionFailed("it may have arrived")])
    for perhaps in (answer(502), error_from_status(503, "redis_unavailable")):
        with pytest.raises(Unavailable):
            Run(calls.retry("job_1"), [perhaps])
    run = Run(
        calls.retry("job_1"), [ConnectionFailed("nobody there", unsent=True), error_from_status(503), answer(202, job("queued"))]
    )
    assert len(run.sent) == 3


def test_a_deletion_with_a_lost_response_succeeds(calls: Calls) -> None:
    assert Run(calls.delete("job_1"), [ConnectionFailed("reset"), error_from_status(404)]).value is None
    with pytest.raises(NotFound):
        Run(calls.delete("job_1"), [error_from_status(404)])
    with pytest.raises(Conflict):
        Run(calls.delete("job_1"), [error_from_status(409, "job_not_ended")])


def test_a_slow_deletion_is_waited_for(calls: Calls) -> None:
    run = Run(calls.delete_document("doc_1", permanent=True), [answer(202, job("queued")), answer(200, job())])
    assert [request.path for request in run.sent] == ["/documents/doc_1?permanent=true", "/jobs/job_1"]


def test_wait_uses_long_polls(calls: Calls) -> None:
    seen: list[str] = []
    received: list[EffectResult] = [answer(200, job("queued")), answer(200, job("in_progress")), answer(200, job())]
    run = Run(calls.wait("job_1", on_poll=lambda found: seen.append(found.status)), received)
    assert run.value.text == "hi"
    assert seen == ["queued", "in_progress", "completed"]
    assert [request.query for request in run.sent] == [{"wait": "20"}] * 3
    assert all(request.timeout > 20 for request in run.sent)
    assert run.slept == []


def test_a_server_without_long_polls_is_polled_at_growing_intervals(calls: Calls) -> None:
    received: list[EffectResult] = [
        error_from_status(422, "invalid_value", "wait"),
        *[answer(200, job("queued"))] * 9,
        answer(200, job()),
    ]
    run = Run(calls.wait("job_1"), received)
    assert [request.query for request in run.sent] == [{"wait": "20"}, *[{}] * 10]
    assert run.slept == sorted(run.slept)
    assert (run.slept[0], run.slept[-1]) == (0.5, 10.0)


def test_wait_falls_back_to_polling_when_long_polls_are_full(calls: Calls) -> None:
    run = Run(calls.wait("job_1"), [*[error_from_status(503, retry_after="1")] * 3, answer(200, job())])
    assert run.sent[-1].query == {}


def test_a_timeout_reports_the_status_of_the_job(calls: Calls, time: Time) -> None:
    received: list[EffectResult] = [answer(200, job("queued"))] * 100
    with pytest.raises(Timeout, match=r"not ended within 3 s \(status queued\)"):
        Run(calls.wait("job_1", timeout=3, every=0.5), received, time)
    assert 2.9 < time.now < 3.6


def test_other_errors_do_not_stop_long_polls(calls: Calls) -> None:
    with pytest.raises(InvalidRequest):
        Run(calls.wait("job_1"), [error_from_status(422, "invalid_value", "job")])


def test_ask_raises_the_error_of_the_job(calls: Calls) -> None:
    failed = job("failed", error={"code": "prompt_too_long", "message": "too long", "param": "prompt"})
    with pytest.raises(JobFailed, match="too long") as raised:
        Run(calls.ask("x"), [answer(202, job("queued")), answer(200, failed)])
    assert (raised.value.code, raised.value.job, raised.value.status, raised.value.param) == (
        *("prompt_too_long", "job_1", "failed", "prompt"),
    )
    with pytest.raises(JobFailed) as raised:
        Job.from_json(job("cancelled")).completed()
    assert raised.value.code == "cancelled"


def sse(number: int, kind: str, **data: Any) -> bytes:
    received = json.dumps({"attempt": 1, "at": 1.0, **data})
    return f"id: {number}\nevent: {kind}\ndata: {received}\n\n".encode()


def test_a_broken_stream_resumes_after_its_last_event(calls: Calls) -> None:
    first = sse(1, "queued") + sse(2, "delta", text="a")
    received: list[EffectResult] = [
        *(answer(200), first + sse(3, "delta", text="b")[:9], ConnectionFailed("reset")),
        *(ConnectionFailed("refused", unsent=True), error_from_status(503)),
        *(answer(200), b": still there\n\n", b""),
        *(answer(200), sse(2, "delta", text="a") + sse(3, "delta", text="b"), sse(4, "ended", status="completed")),
    ]
    with pytest.raises(Unavailable):
        Run(calls.stream("job_1"), received[:5])
    run = Run(Calls(RetryPolicy(retries=4, jitter=lambda: 0.0)).stream("job_1"), received)
    assert [event.id for event in run.emitted] == [1, 2, 3, 4]
    assert "".join(event.text for event in run.emitted) == "ab"
    assert [request.headers.get("Last-Event-ID") for request in run.sent] == [None, *["2"] * 4]
    assert run.slept == [0.5, 1.0, 2.0, 4.0]


def test_a_stream_without_further_events_is_empty(calls: Calls) -> None:
    assert Run(calls.stream("job_1", after=9), [answer(204)]).emitted == []
    with pytest.raises(NotFound):
        Run(calls.stream("job_1"), [error_from_status(404)])


def test_an_event_resets_the_retry_count(calls: Calls) -> None:
    received: list[EffectResult] = []
    for number in range(1, 9):
        received += [answer(200), sse(number, "delta", text="x"), ConnectionFailed("reset")]
    received += [answer(200), sse(9, "ended")]
    assert len(Run(calls.stream("job_1"), received).emitted) == 9


def test_lists_follow_pages(calls: Calls) -> None:
    pages: list[EffectResult] = [
        answer(200, {"data": [job(), job()], "next": "job_1"}),
        answer(200, {"data": [], "next": "job_0"}),
        answer(200, {"data": [job()], "next": None}),
    ]
    run = Run(calls.jobs(status="failed", batch="job_9"), pages)
    assert len(run.emitted) == 3
    assert [request.query.get("after") for request in run.sent] == [None, "job_1", "job_0"]
    assert all(request.query["status"] == "failed" and request.query["batch"] == "job_9" for request in run.sent)


def test_filters_of_jobs_become_parameters(calls: Calls) -> None:
    counted = {"status": {"failed": 2}, "kind": {}, "model": {}, "total": 2, "complete": True}
    run = Run(
        calls.job_counts(
            status=("failed", "expired"), collection="handbook", since=1795457629, model=None, metadata={"order": "17"}
        ),
        [answer(200, counted)],
    )
    assert (run.value.total, run.value.status) == (2, {"failed": 2})
    assert run.sent[0].query == {
        "status": ("failed", "expired"),
        "collection": "handbook",
        "since": "1795457629.000",
        "metadata.order": "17",
    }


def test_many_jobs_are_changed_part_by_part(calls: Calls) -> None:
    failure = {"id": "job_3", "code": "job_ended", "message": "It has ended."}
    run = Run(
        calls.change_jobs("cancel", [f"job_{number}" for number in range(1500)]),
        [answer(200, {"failed": [failure]}), answer(200, {"failed": []})],
    )
    assert [one.code for one in run.value] == ["job_ended"]
    assert [len(request.json["ids"]) for request in run.sent] == [1000, 500]
    assert not any(request.repeatable for request in run.sent)


def test_keys_are_created_changed_and_rotated(calls: Calls) -> None:
    shown = {"id": "key_1", "scopes": ["chat"], "secret": "eh_x"}
    created = Run(calls.create_key("app", scopes=["chat"], expires_in=60), [answer(201, shown)])
    assert (created.value.secret, created.sent[0].json) == (
        "eh_x",
        {"name": "app", "scopes": ["chat"], "expires_in": 60},
    )
    changed = Run(calls.change_key("key_1", scopes=["chat"], clear=["models"]), [answer(200, shown)])
    assert changed.sent[0].json == {"scopes": ["chat"], "models": None}
    with pytest.raises(ConnectionFailed):
        Run(calls.rotate_key("key_1"), [ConnectionFailed("reset")])  # a repetition could create two keys


def test_ids_are_quoted_in_paths(calls: Calls) -> None:
    assert Run(calls.get("../x?y"), [answer(200, job())]).sent[0].path == "/jobs/..%2Fx%3Fy"


def test_health_is_returned_when_not_ready(calls: Calls) -> None:
    health = Run(calls.health(), [answer(503, {"status": "not_ready", "waiting_for": ["model echo"]})]).value
    assert (health.ready, health.waiting_for) == (False, ["model echo"])


def test_usage_is_summed_by_what_the_caller_names(calls: Calls) -> None:
    report = {"object": "usage", "group_by": ["day", "model"], "data": [{"day": "2026-01-02", "model": "m", "jobs": 1}]}
    run = Run(calls.usage("day", "model", since=date(2026, 1, 2)), [answer(200, report)])
    assert (run.sent[0].path, run.sent[0].query) == ("/usage", {"group_by": "day,model", "since": "2026-01-02"})
    assert run.value.data[0]["model"] == "m"


def test_stats_are_those_of_the_last_minutes(calls: Calls) -> None:
    run = Run(calls.stats(5), [answer(200, {"object": "stats", "intervals": 30, "totals": {"queued": [None, 2]}})])
    assert (run.sent[0].path, run.sent[0].query) == ("/stats", {"minutes": "5"})
    assert run.value.totals["queued"] == [None, 2]


def test_attention_and_the_overview_are_records(calls: Calls) -> None:
    entry = {"object": "attention", "code": "queue_paused", "message": "…", "subject": {"object": "queue", "id": "cpu"}}
    run = Run(calls.attention(), [answer(200, {"data": [entry]})])
    assert (run.sent[0].path, run.value[0].code, run.value[0].subject["id"]) == ("/attention", "queue_paused", "cpu")
    run = Run(calls.overview(), [answer(200, {"queues": [{"queue": "cpu"}], "workers": [], "gpus": [], "dead_letters": []})])
    assert (run.sent[0].path, run.value.queues, run.value.workers) == ("/admin/overview", [{"queue": "cpu"}], [])


def test_receive_needs_an_open_stream(calls: Calls) -> None:
    run = Run(calls.stream("job_1"), [answer(200), sse(1, "ended")])
    assert [type(effect) for effect in run.effects] == [Open, Receive, Emit]
