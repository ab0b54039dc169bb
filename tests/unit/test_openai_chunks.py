"""Chunks of streamed chat completions."""

from typing import Any

from api.openai.chunks import ChatChunks
from tests.unit.runtime_fakes import queued_job

DELTA: dict[str, Any] = {
    "text": "Both.",
    "tool_calls": [
        {"index": 0, "arguments": "}"},
        {"index": 1, "id": "call_b", "name": "g", "arguments": ""},
        {"index": 1, "arguments": "{}"},
    ],
}


def test_a_chunk_has_at_most_one_piece_of_a_call() -> None:
    chunks = ChatChunks(queued_job(), copies=1, includes_usage=False).pieces(0, DELTA)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert [delta.get("content") for delta in deltas] == ["Both.", None, None]
    assert [[call["index"] for call in delta["tool_calls"]] for delta in deltas] == [[0], [1], [1]]
    assert deltas[1]["tool_calls"][0]["function"] == {"name": "g", "arguments": ""}
