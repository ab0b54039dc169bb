"""Events of responses: what the events of a job become, checked with the types and the accumulator of OpenAI's own client."""

import json
import random
from collections.abc import Sequence
from typing import Any, get_args

import pytest
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent

from shared.jobs.deltas import Delta, merge_deltas
from shared.jobs.event_streams import StreamEvent
from shared.jobs.models import Job, Status
from shared.openai.responses.body import initial_response, response_of_job
from shared.openai.responses.events import ResponseEvents

ID = "job_01m84stetzyr7esggznw5rdjds"
REQUEST = {"background": False, "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
# By their types, as validation against the union of all of them takes long.
EVENTS: dict[str, Any] = {
    get_args(event.model_fields["type"].annotation)[0]: event for event in get_args(get_args(ResponseStreamEvent)[0])
}
CALLS = [
    {"index": 0, "id": "call_1", "name": "f", "arguments": '{"a": 1}'},
    {"index": 1, "id": "call_2", "name": "g", "arguments": ""},
]
LOGPROB = {"token": "a", "logprob": -1.0, "bytes": [97], "top": [{"token": "a", "logprob": -1.0, "bytes": [97]}]}
ANSWERS: dict[str, list[Delta]] = {
    "empty": [],
    "text": [{"text": "a"}, {"text": "bc"}],
    "reasoning": [{"reasoning": "x"}, {"reasoning": "y", "text": "a"}, {"text": "b"}],
    "calls": [{"tool_calls": CALLS[:1]}, {"tool_calls": CALLS[1:]}],
    "everything": [{"reasoning": "x"}, {"text": "a"}, {"tool_calls": [*CALLS]}],
    "pieces of a call": [
        {"tool_calls": [{"index": 0, "id": "call_1", "name": "f", "arguments": '{"a"'}]},
        {"tool_calls": [{"index": 0, "arguments": ": 1}"}]},
    ],
    "log-probabilities": [{"logprobs": [LOGPROB]}, {"text": "aa", "logprobs": [LOGPROB]}, {"logprobs": [LOGPROB]}],
}


def job_of(deltas: Sequence[Delta], status: Status = Status.COMPLETED, **fields: Any) -> Job:
    whole: Delta = {}
    for delta in deltas:
        merge_deltas(whole, json.loads(json.dumps(delta)))
    calls = [
        {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
        for call in whole.get("tool_calls", ())
    ]
    result = {"text": whole.get("text", ""), "reasoning": whole.get("reasoning"), "tool_calls": calls, "finish_reason": "stop"}
    result |= {"logprobs": whole.get("logprobs")} | fields.pop("result", {})
    common = {"kind": "generate", "owner": "a", "queue": "q", "phase": "x", "attempt": 1, "model": "echo"}
    times = {"created_at": 1000_000, "expires_at": 0, "phase_at": 2000_000, "ended_at": 2000_000, "started_at": 1000_000}
    final = {"result": result if status is Status.COMPLETED else None}
    return Job(id=ID, status=status, **{**common, **times, **final, **fields})


def job_events(deltas: Sequence[Delta]) -> list[StreamEvent]:
    kinds: list[tuple[str, Any]] = [("queued", {}), ("started", {}), *(("delta", delta) for delta in deltas), ("ended", {})]
    return [StreamEvent(number, kind, 1, 0, data) for number, (kind, data) in enumerate(kinds, 1)]


def run(events: Sequence[StreamEvent], job: Job, *, background: bool = False) -> list[dict[str, Any]]:
    machine = ResponseEvents(job.id, initial_response(job, {**REQUEST, "background": background}))
    return [made for event in events for made in machine.feed(event, job if event.type == "ended" else None)]


def check(made: Sequence[dict[str, Any]], job: Job) -> None:
    """The numbers rise by one, each event has its type, and the accumulator of the client accepts the stream."""
    assert [event["sequence_number"] for event in made] == list(range(len(made)))
    state: ResponseStreamState[None] = ResponseStreamState(input_tools=omit, text_format=omit)
    for event in made:
        shown = event
        if event["type"] == "response.failed" and event["response"]["error"]["code"] == "context_length_exceeded":
            # Codex reacts to this code, which the types lack.
            shown = {**event, "response": {**event["response"], "error": None}}
        state.handle_event(EVENTS[event["type"]].model_validate(shown, strict=True))
    assert {event["response"]["id"] for event in made if "response" in event} == {f"resp_{job.id[4:]}"}
    added, done = (
        [event["item"]["id"] for event in made if event["type"] == f"response.output_item.{end}"] for end in ("added", "done")
    )
    assert added == done
    if job.status is Status.COMPLETED:
        last = made[-1]["response"]
        assert [item["id"] for item in last["output"]] == done
        Response.model_validate(last, strict=True)


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("background", [False, True])
def test_the_stream_and_the_response_agree(name: str, background: bool) -> None:
    deltas = ANSWERS[name]
    job = job_of(deltas)
    made = run(job_events(deltas), job, background=background)
    check(made, job)
    assert made[-1]["response"] == response_of_job(job, {**REQUEST, "background": background})
    kinds = [event["type"] for event in made]
    assert kinds[: 2 + background] == ["response.created", *["response.queued"] * background, "response.in_progress"]
    assert kinds[-1] == "response.completed"


def test_the_same_events_of_a_job_make_the_same_events_of_its_response() -> None:
    choices = random.Random(7)
    for _ in range(50):
        deltas = [choices.choice(choices.choice(list(ANSWERS.values())) or [{"text": "a"}]) for _ in range(choices.randint(0, 9))]
        deltas = [{name: value for name, value in delta.items() if name != "tool_calls"} for delta in deltas]
        job, events = job_of(deltas), job_events(deltas)
        made = run(events, job)
        check(made, job)
        assert made == run(events, job)
        # Lost attempts, waits and progress add nothing.
        noise = [StreamEvent(0, kind, 1, 0, {}) for kind in ("attempt_lost", "requeued", "started", "progress")]
        cut = choices.randint(2, len(events) - 1)
        assert run([*events[:cut], *noise, *events[cut:]], job) == made


@pytest.mark.parametrize("name", [name for name in ANSWERS if name != "empty"])
def test_an_answer_that_reaches_its_limit_is_incomplete(name: str) -> None:
    job = job_of(ANSWERS[name], result={"finish_reason": "length"})
    made = run(job_events(ANSWERS[name]), job)
    check(made, job)
    last = made[-1]
    assert (last["type"], last["response"]["status"]) == ("response.incomplete", "incomplete")
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert last["response"]["output"][-1]["status"] == "incomplete"
    assert last["response"] == response_of_job(job, REQUEST)


@pytest.mark.parametrize(
    ("status", "error", "kind", "code"),
    [
        (
            Status.FAILED,
            {"code": "prompt_too_long", "message": "x", "type": "invalid_request_error"},
            "failed",
            "context_length_exceeded",
        ),
        (Status.FAILED, {"code": "invalid_value", "message": "x", "type": "invalid_request_error"}, "failed", "invalid_prompt"),
        (Status.FAILED, {"code": "worker_lost", "message": "x", "type": "job_error"}, "failed", "server_error"),
        (Status.EXPIRED, None, "failed", "server_error"),
        (Status.CANCELLED, None, "incomplete", None),
    ],
    ids=["too long", "invalid", "lost", "expired", "cancelled"],
)
def test_a_response_that_does_not_complete_ends_its_stream(status: Status, error: Any, kind: str, code: str | None) -> None:
    job = job_of([], status, error=error)
    for deltas in ([], ANSWERS["text"]):
        made = run(job_events(deltas), job)
        check(made, job)
        last = made[-1]
        assert last["type"] == f"response.{kind}"
        assert last["response"]["status"] == ("cancelled" if status is Status.CANCELLED else "failed")
        assert (last["response"]["error"] or {}).get("code") == code
        assert [item["status"] for item in last["response"]["output"]] == ["incomplete"] * bool(deltas)


def test_an_answer_that_begins_again_ends_with_an_error_and_then_the_whole_response() -> None:
    job = job_of([{"text": "other"}])
    events = job_events([{"text": "a"}])
    events[-1:] = [
        StreamEvent(4, "restart", 2, 0, {}),
        StreamEvent(5, "delta", 2, 0, {"text": "other"}),
        StreamEvent(6, "ended", 2, 0, {}),
    ]
    made = run(events, job)
    check(made[:-1], job_of([], Status.FAILED))
    assert [event["type"] for event in made[-3:]] == ["response.output_item.done", "error", "response.completed"]
    assert made[-1]["response"] == response_of_job(job, REQUEST)
    assert "other" not in json.dumps(made[:-1])


def test_a_stream_whose_beginning_has_expired_has_all_its_events() -> None:
    job = job_of([{"text": "a"}])
    made = run([StreamEvent(8, "delta", 1, 0, {"text": "a"}), StreamEvent(9, "ended", 1, 0, {})], job)
    check(made, job)
    assert made == run(job_events([{"text": "a"}]), job)


SEARCH_REQUEST = {**REQUEST, "tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}
FOUND = {
    "queries": ["q"],
    "results": [{"file_id": "file-1", "filename": "a.txt", "score": 1.0, "text": "x", "attributes": {"year": 2026}}],
}
PLACE = {"document_id": "doc_1", "file_id": "file-1", "filename": "a.txt", "page": 2, "start": 3, "end": 9}
CITATIONS = [{**PLACE, "marker": "[1]"}, {**PLACE, "marker": "[12]", "file_id": "file-2"}]


def search_events(texts: Sequence[str]) -> list[StreamEvent]:
    deltas: list[Delta] = [{"text": text} for text in texts]
    deltas[0] = {"citations": CITATIONS, **deltas[0]}
    kinds: list[tuple[str, Any]] = [
        *(
            ("queued", {}),
            ("started", {}),
            ("progress", {}),
            ("attempt_lost", {}),
            ("requeued", {"why": "worker_lost"}),
            ("started", {}),
        ),
        ("requeued", {"why": "handed_over", "file_search": FOUND}),
        *(("started", {}), *(("delta", delta) for delta in deltas), ("ended", {})),
    ]
    return [StreamEvent(number, kind, 1, 0, data) for number, (kind, data) in enumerate(kinds, 1)]


def run_search(events: Sequence[StreamEvent], job: Job) -> list[dict[str, Any]]:
    machine = ResponseEvents(job.id, initial_response(job, SEARCH_REQUEST))
    return [made for event in events for made in machine.feed(event, job if event.type == "ended" else None)]


@pytest.mark.parametrize(
    "texts", [["see [1], [9] and [12]."], ["see [", "1], [9", "] an", "d [1", "2]", "."]], ids=["whole", "pieces"]
)
def test_a_search_comes_first_and_its_markers_are_citations(texts: list[str]) -> None:
    job = job_of([{"text": "".join(texts)}], result={"file_search": FOUND, "citations": CITATIONS})
    made = run_search(search_events(texts), job)
    check(made, job)
    kinds = [event["type"].removeprefix("response.") for event in made]
    search = ["output_item.added", *(f"file_search_call.{state}" for state in ("in_progress", "searching", "completed"))]
    assert kinds[:7] == ["created", "in_progress", *search, "output_item.done"]
    output = made[-1]["response"]["output"]
    assert (output[0]["status"], output[0]["results"]) == ("completed", FOUND["results"])
    annotations = output[1]["content"][0]["annotations"]
    assert [(each["index"], each["file_id"]) for each in annotations] == [(4, "file-1"), (17, "file-2")]
    assert (annotations[0]["page"], annotations[0]["start_index"], annotations[0]["end_index"]) == (2, 3, 9)
    added = [event for event in made if event["type"].endswith("annotation.added")]
    assert [(event["annotation_index"], event["annotation"]) for event in added] == list(enumerate(annotations))
    assert made[-1]["response"] == response_of_job(job, SEARCH_REQUEST)


def test_a_search_that_does_not_end_is_incomplete() -> None:
    job = job_of([], Status.FAILED, error={"code": "index_unavailable", "message": "x", "type": "job_error"})
    events = [event for event in search_events(["a"]) if event.type in ("started", "ended")]
    made = run_search(events[-2:], job)
    check(made, job)
    assert [item["status"] for item in made[-1]["response"]["output"]] == ["incomplete"]


def test_an_answer_after_a_search_may_begin_again_before_its_first_text() -> None:
    job = job_of([{"text": "[1]"}], result={"file_search": FOUND, "citations": CITATIONS})
    events = search_events(["[1]"])
    made = run_search([*events[:-2], StreamEvent(0, "restart", 2, 0, {}), *events[-2:]], job)
    check(made, job)
    # After text that clients have read, the stream ends, and the response is whole.
    made = run_search([*events[:-1], StreamEvent(0, "restart", 2, 0, {}), *events[-2:]], job)
    assert made[-1]["response"] == response_of_job(job, SEARCH_REQUEST)
    assert made[-2]["type"] == "error"
