"""``file_search`` of models on another server: questions that are rewritten before the search, and citations of the server's answers."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

from testing.scripted_server import Exchange, ScriptedServer, chat_chunk, stream, usage_chunk
from testing.stack import HASH, QUICK, Stack
from testing.waiting import wait_until
from workers.gpu.document_answers import INSTRUCTION

QUESTION, FOLLOW_UP = "When is the archive open?", "And on Sundays?"
REWRITTEN = "Is the archive open on Sundays?"
TEXT = b"The archive is open on weekdays from nine to five, and on Sundays from ten."
ANSWER = "From ten on Sundays [1]."
RESULTS: Any = ["file_search_call.results"]


def answer(exchange: Exchange) -> None:
    """Answer as a model does that can rewrite questions."""
    asked = exchange.request.body["messages"][-1]["content"]
    text = REWRITTEN if asked.startswith(INSTRUCTION) else ANSWER
    pieces = [chat_chunk({"content": piece}) for piece in (text[:12], text[12:])]
    stream(*pieces, chat_chunk({}, reason="stop"), usage_chunk(5, 2))(exchange)


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(answer) as server:
        yield server


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, server: ScriptedServer) -> Iterator[openai.OpenAI]:
    stack = Stack(tmp_path_factory.mktemp("rewriting"), environment=QUICK)
    entry = {"name": "far", "url": server.url, "engine": "openai", "remote_model": "m", "max_tokens": 64, "load": True}
    stack.models.write_text(json.dumps([{**entry, "default": True}, HASH]))
    try:
        stack.start()
        with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="x", max_retries=0, timeout=120) as client:
            yield client
        assert stack.denied_commands() == []
    finally:
        stack.kill()


@pytest.fixture(scope="module")
def tool(client: openai.OpenAI) -> dict[str, Any]:
    store = client.vector_stores.create(name="rewriting").id
    file = client.files.create(file=("opening.txt", TEXT), purpose="user_data")
    assert client.vector_stores.files.create_and_poll(file.id, vector_store_id=store).status == "completed"
    return {"type": "file_search", "vector_store_ids": [store]}


def create(client: openai.OpenAI, tool: dict[str, Any], input: str, **options: Any) -> Any:
    request: dict[str, Any] = {"model": "far", "input": input, "tools": [tool], "include": RESULTS}
    return client.responses.create(**request, **options)


def test_a_question_that_follows_an_answer_is_rewritten_before_the_search(
    client: openai.OpenAI, server: ScriptedServer, tool: dict[str, Any]
) -> None:
    conversation = client.conversations.create().id
    first = create(client, tool, QUESTION, conversation=conversation)
    assert first.output[0].queries == [QUESTION], "a first question stands alone"
    asked = len(server.requests)
    second = create(client, tool, FOLLOW_UP, conversation=conversation)
    search, message = second.output
    assert search.queries == [REWRITTEN]
    assert [result.text for result in search.results] == [TEXT.decode()]
    [part] = message.content
    assert part.text == ANSWER
    [citation] = part.annotations
    assert (citation.filename, citation.index) == ("opening.txt", ANSWER.index("[1]"))
    rewriting, answering = (request.body["messages"] for request in server.requests[asked:])
    assert QUESTION in rewriting[-1]["content"]
    # The model answers what was asked.
    assert FOLLOW_UP in answering[-1]["content"]
    assert REWRITTEN not in json.dumps(answering)
    third = create(client, tool, FOLLOW_UP, previous_response_id=first.id)
    assert third.output[0].queries == [REWRITTEN]
    assert client.responses.retrieve(third.id) == third


def test_a_request_can_search_for_its_message(client: openai.OpenAI, server: ScriptedServer, tool: dict[str, Any]) -> None:
    first = create(client, tool, QUESTION)
    asked = len(server.requests)
    second = create(client, {**tool, "rewrite_query": False}, FOLLOW_UP, previous_response_id=first.id)
    assert second.output[0].queries == [FOLLOW_UP]
    assert len(server.requests) == asked + 1


@pytest.mark.parametrize("background", [False, True])
def test_the_stream_of_a_rewritten_search_has_its_events_once(
    client: openai.OpenAI, tool: dict[str, Any], background: bool
) -> None:
    first = create(client, tool, QUESTION)
    options: dict[str, Any] = {"previous_response_id": first.id, "stream": True, "background": background}
    events = list(create(client, tool, FOLLOW_UP, **options))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    for state in ("in_progress", "searching", "completed"):
        assert kinds.count(f"response.file_search_call.{state}") == 1
    assert kinds[-1] == "response.completed"
    final = events[-1].response
    assert (final.output[0].queries, final.output[1].content[0].text) == ([REWRITTEN], ANSWER)
    assert kinds.count("response.output_text.annotation.added") == 1


def test_the_lines_of_a_batch_are_rewritten_too(client: openai.OpenAI, tool: dict[str, Any]) -> None:
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "At nine."}]
    body = {"model": "far", "input": [*turns, {"role": "user", "content": FOLLOW_UP}], "tools": [tool], "include": RESULTS}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": body}
    file = client.files.create(file=("batch.jsonl", json.dumps(line).encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h")
    job = f"job_{batch.id.removeprefix('batch_')}"
    url = str(client.base_url).removesuffix("/v1/")
    wait_until(lambda: httpx2.get(f"{url}/jobs/{job}", timeout=60).json()["ended_at"] is not None, "the batch has ended")
    batch = client.batches.retrieve(batch.id)
    assert batch.output_file_id, batch
    answer = json.loads(client.files.content(batch.output_file_id).text)["response"]["body"]
    assert answer["output"][0]["queries"] == [REWRITTEN]
