"""LlamaIndex's model of OpenAI's API: texts, conversations, streams and tools."""

import json
from pathlib import Path

from testing.client_environment import run_client
from testing.stack import Stack

SCRIPT = Path(__file__).with_name("llama_index_calls.py")
BOTH_CALLS = [["weather", {"city": "Rome"}], ["weather", {"city": "Oslo"}]]


def test_llama_index_completes_chats_streams_and_calls_tools(v1_stack: Stack, tmp_path: Path) -> None:
    found = json.loads(run_client("python", [str(SCRIPT), v1_stack.url], tmp_path))
    assert found["complete"] == found["complete in a stream"] == "one two"
    assert found["chat"] == found["chat in a stream"]
    assert "hello" in found["chat"]
    assert found["usage"]["completion_tokens"] > 0
    assert found["tools"] == found["tools in a stream"] == BOTH_CALLS
    assert found["tools with their results"] == "It rains in Rome."
