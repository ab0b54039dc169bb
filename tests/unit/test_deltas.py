"""Deltas: pieces of an answer are joined in order, and the result of a job has the same answer as its deltas together."""

from typing import Any

from shared.jobs.deltas import Delta, delta_of_result, merge_deltas
from workers.runtime.event_buffer import EventBuffer

PIECES: list[dict[str, Any]] = [
    {"reasoning": "I "},
    {"reasoning": "see."},
    {"text": "One ", "logprobs": [{"id": 1}]},
    {"tool_calls": [{"index": 0, "id": "call_a", "name": "f", "arguments": ""}]},
    {"tool_calls": [{"index": 0, "arguments": "{"}, {"index": 1, "id": "call_b", "name": "g", "arguments": "{}"}]},
    {"text": "moment", "tool_calls": [{"index": 0, "arguments": "}"}], "logprobs": [{"id": 2}]},
]
WHOLE = {
    "reasoning": "I see.",
    "text": "One moment",
    "logprobs": [{"id": 1}, {"id": 2}],
    "tool_calls": [
        {"index": 0, "id": "call_a", "name": "f", "arguments": "{}"},
        {"index": 1, "id": "call_b", "name": "g", "arguments": "{}"},
    ],
}


def test_pieces_are_joined_and_stay_as_they_were() -> None:
    whole: Delta = {}
    before = repr(PIECES)
    for piece in PIECES:
        merge_deltas(whole, piece)
    assert whole == WHOLE
    assert repr(PIECES) == before


def test_a_result_is_one_delta() -> None:
    calls = [
        {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": "{}"}}
        for call in WHOLE["tool_calls"]
    ]
    result = {**WHOLE, "tool_calls": calls, "finish_reason": "tool_calls", "usage": {}}
    assert delta_of_result(result) == WHOLE
    assert delta_of_result({"text": "", "finish_reason": "stop"}) == {}


def test_an_event_that_was_taken_is_not_changed_by_later_pieces() -> None:
    buffer = EventBuffer(("job_1", 1))
    buffer.add_delta(PIECES[3])
    buffer.add_delta(PIECES[2])
    [first] = buffer.unwritten()
    for piece in PIECES[4:]:
        buffer.add_delta(piece)
    first_again, second = buffer.unwritten()
    assert first == first_again
    assert first.data == {**PIECES[2], **PIECES[3]}
    assert second.data["text"] == "moment"
