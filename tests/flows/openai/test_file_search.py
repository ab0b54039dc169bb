"""``file_search`` of responses with OpenAI's own client: results, citations, streams, conversations and batches."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState

from testing.stack import Stack

QUESTION = "When is the archive open?"
TEXT = b"The archive is open on weekdays from nine to five."
RESULTS: Any = ["file_search_call.results"]
SEARCH_EVENTS = [f"response.file_search_call.{state}" for state in ("in_progress", "searching", "completed")]
FUNCTION = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}


@pytest.fixture(scope="module")
def file_id(client: openai.OpenAI) -> str:
    return client.files.create(file=("opening.txt", TEXT), purpose="user_data").id


@pytest.fixture(scope="module")
def tool(client: openai.OpenAI, file_id: str) -> Iterator[dict[str, Any]]:
    store = client.vector_stores.create(name="for-file-search")
    assert client.vector_stores.files.create_and_poll(file_id, vector_store_id=store.id, attributes={"year": 2026}).status
    yield {"type": "file_search", "vector_store_ids": [store.id]}
    client.vector_stores.delete(store.id)


def create(client: openai.OpenAI, tool: dict[str, Any], **options: Any) -> Any:
    request = {"model": "echo", "input": QUESTION, "max_output_tokens": 2000, "tools": [tool]}
    return client.responses.create(**{**request, **options})


def test_an_answer_has_what_was_found_and_cites_it(client: openai.OpenAI, tool: dict[str, Any], file_id: str) -> None:
    response = create(client, tool, include=RESULTS)
    search, message = response.output
    assert (search.type, search.status, search.queries) == ("file_search_call", "completed", [QUESTION])
    [result] = search.results
    assert (result.file_id, result.filename, result.text, result.attributes) == (
        file_id,
        "opening.txt",
        TEXT.decode(),
        {"year": 2026},
    )
    [part] = message.content
    # The engine repeats its prompt, in which the passage follows its marker.
    citation = part.annotations[-1].model_dump()
    assert part.text[citation["index"] :].startswith('[1] opening.txt, page 1: "The archive is open')
    place = {name: citation[name] for name in ("type", "file_id", "filename", "page", "start_index", "end_index")}
    assert place == {
        "type": "file_citation",
        "file_id": file_id,
        "filename": "opening.txt",
        "page": 1,
        "start_index": 0,
        "end_index": len(TEXT),
    }
    assert response.tools[0].vector_store_ids == tool["vector_store_ids"]
    assert client.responses.retrieve(response.id) == response
    assert create(client, tool).output[0].results is None


@pytest.mark.parametrize("background", [False, True])
def test_a_stream_has_the_events_of_the_search_in_order(client: openai.OpenAI, tool: dict[str, Any], background: bool) -> None:
    events = list(create(client, tool, include=RESULTS, stream=True, background=background))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    state: ResponseStreamState[None] = ResponseStreamState(input_tools=omit, text_format=omit)
    for event in events:
        state.handle_event(event)
    kinds = [event.type for event in events]
    start = kinds.index("response.output_item.added")
    assert kinds[start : start + 6] == [kinds[start], *SEARCH_EVENTS, "response.output_item.done", "response.output_item.added"]
    added = [event.annotation for event in events if event.type == "response.output_text.annotation.added"]
    final = events[-1].response
    assert [entry.model_dump() for entry in added] == [each.model_dump() for each in final.output[1].content[0].annotations]
    assert final.output == client.responses.retrieve(final.id).output
    for after in (start, start + 3, len(events) - 3) if background else ():
        rest = client.responses.retrieve(final.id, stream=True, starting_after=after)
        assert [event.model_dump() for event in rest] == [event.model_dump() for event in events[after + 1 :]]


def test_conversations_go_on_and_filters_apply(client: openai.OpenAI, tool: dict[str, Any]) -> None:
    first = create(client, tool, max_output_tokens=40)
    filters = {"type": "eq", "key": "year", "value": 1999}
    second = create(client, {**tool, "filters": filters}, input="And tea?", previous_response_id=first.id, include=RESULTS)
    assert (second.output[0].queries, second.output[0].results) == (["And tea?"], [])
    assert second.output[1].content[0].annotations == []
    assert "And tea?" in second.output_text
    assert json.loads(second.model_dump_json())["tools"][0]["filters"] == filters
    # Output that a client sends back, with the search.
    own = create(
        client,
        tool,
        input=[{"role": "user", "content": "x"}, *first.output, {"role": "user", "content": QUESTION}],
        max_output_tokens=40,
    )
    assert own.output[0].queries == [QUESTION]
    kinds = [item.type for item in client.responses.input_items.list(own.id)]
    assert kinds == ["message", "message", "file_search_call", "message"]


def test_what_was_found_fits_after_a_long_conversation_was_cut(client: openai.OpenAI, tool: dict[str, Any]) -> None:
    turns = [
        {"role": "user", "content": "word " * 1700},
        {"role": "assistant", "content": "noted"},
        {"role": "user", "content": QUESTION},
    ]
    response = create(client, tool, input=turns, truncation="auto")
    assert TEXT.decode() in response.output_text
    assert "word word" not in response.output_text
    assert response.output[1].content[0].annotations


def test_tool_choice_says_whether_to_search(client: openai.OpenAI, tool: dict[str, Any]) -> None:
    def kinds(**options: Any) -> list[str]:
        return [item.type for item in create(client, tool, **{"max_output_tokens": 40, **options}).output]

    call = 'call: weather {"city": "Rome"}'
    both = [tool, FUNCTION]
    assert kinds(tool_choice="none") == ["message"]
    assert kinds(tool_choice={"type": "file_search"}) == ["file_search_call", "message"]
    assert kinds(tool_choice="required") == ["file_search_call", "message"]
    assert kinds(tools=both, tool_choice="required") == ["file_search_call", "message"]
    forced = {"type": "function", "name": "weather"}
    assert kinds(tools=both, tool_choice=forced, max_output_tokens=1000) == ["function_call"]
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "file_search"}]}
    assert kinds(tools=both, tool_choice=allowed) == ["file_search_call", "message"]
    allowed["tools"] = [{"type": "function", "name": "weather"}]
    assert kinds(tools=both, tool_choice=allowed) == ["message"]
    # The model may also call a function after the search.
    assert kinds(tools=both, input=[{"role": "user", "content": call}])[0] == "file_search_call"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"vector_store_ids": ["vs_01m84stetzyr7esggznw5rdjds"]}, "tools[0].vector_store_ids[0]"),
        ({"vector_store_ids": []}, "tools[0].vector_store_ids"),
        ({"max_num_results": 51}, "tools[0].max_num_results"),
        ({"filters": {"type": "like", "key": "a", "value": "b"}}, "tools[0].filters"),
        (
            {"ranking_options": {"hybrid_search": {"embedding_weight": 2, "text_weight": 1}}},
            "tools[0].ranking_options.hybrid_search",
        ),
    ],
)
def test_what_is_wrong_with_a_search_is_named(
    client: openai.OpenAI, tool: dict[str, Any], change: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        create(client, {**tool, **change})
    assert (refused.value.status_code in (400, 404), refused.value.param) == (True, param)


def test_lines_of_a_batch_search(v1_stack: Stack, client: openai.OpenAI, tool: dict[str, Any], file_id: str) -> None:
    missing = {**tool, "vector_store_ids": ["vs_01m84stetzyr7esggznw5rdjds"]}
    bodies = [
        {"model": "echo", "input": QUESTION, "tools": [each], "include": RESULTS, "max_output_tokens": 2000}
        for each in (tool, missing)
    ]
    lines = [
        json.dumps({"custom_id": str(number), "method": "POST", "url": "/v1/responses", "body": body})
        for number, body in enumerate(bodies)
    ]
    file = client.files.create(file=("batch.jsonl", "\n".join(lines).encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h")
    v1_stack.ended(f"job_{batch.id.removeprefix('batch_')}")
    batch = client.batches.retrieve(batch.id)
    assert batch.output_file_id
    assert batch.error_file_id
    answer = json.loads(client.files.content(batch.output_file_id).text)["response"]["body"]
    assert answer["output"][0]["results"][0]["file_id"] == file_id
    assert answer["output"][1]["content"][0]["annotations"]
    error = json.loads(client.files.content(batch.error_file_id).text)
    assert (error["custom_id"], error["response"]["body"]["error"]["code"]) == ("1", "vector_store_not_found")
