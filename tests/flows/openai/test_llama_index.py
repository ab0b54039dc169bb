"""LlamaIndex: its model of OpenAI's API (texts, conversations, streams and tools), and a collection as its retriever."""

import json
from pathlib import Path
from typing import Any

import pytest

from enginehouse_client import Client
from testing.client_environment import run_client
from testing.repository import REPOSITORY
from testing.stack import Stack

SCRIPT = Path(__file__).with_name("llama_index_calls.py")
BOTH_CALLS = [["weather", {"city": "Rome"}], ["weather", {"city": "Oslo"}]]
ANSWER = "A blocked valve XK-4711 must be replaced at once."


@pytest.fixture(scope="module")
def found(v1_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What LlamaIndex got, in one process, because importing it takes seconds."""
    with Client(v1_stack.url) as client:
        client.ingest("llama", ("boilers.txt", f"The boiler is inspected every spring.\f{ANSWER}".encode()))
    environment = {"PYTHONPATH": str(REPOSITORY / "client")}
    arguments = [str(SCRIPT), v1_stack.url, "llama", "When is valve XK-4711 replaced?"]
    return dict(json.loads(run_client("python", arguments, tmp_path_factory.mktemp("llama"), environment)))


def test_llama_index_completes_chats_streams_and_calls_tools(found: dict[str, Any]) -> None:
    assert found["complete"] == found["complete in a stream"] == "one two"
    assert found["chat"] == found["chat in a stream"]
    assert "hello" in found["chat"]
    assert found["usage"]["completion_tokens"] > 0
    assert found["tools"] == found["tools in a stream"] == BOTH_CALLS
    assert found["tools with their results"] == "It rains in Rome."


def test_llama_index_retrieves_passages_with_page_citations(found: dict[str, Any]) -> None:
    assert found["retrieved"] == found["retrieved by an async client"] == found["retrieved in a thread"]
    [node] = found["retrieved"]
    assert (node["text"], node["citation"]) == (ANSWER, "boilers.txt, page 2")
    assert node["shown to a model"] == f"source: boilers.txt\npage: 2\n\n{ANSWER}"
    assert node["score"] > 0
