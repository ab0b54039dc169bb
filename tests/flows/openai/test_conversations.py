"""Conversations with OpenAI's own client: their items, and the responses that read them and add to them."""

from typing import Any

import openai
import pytest

from testing.stack import Stack
from testing.waiting import wait_until

CALL = 'call: weather {"city": "Rome"}'
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
TOOL: dict[str, Any] = {"type": "function", "name": "weather", "description": "x", "parameters": PARAMETERS}


def message(text: str, role: str = "user") -> Any:
    return {"type": "message", "role": role, "content": text}


def texts(client: openai.OpenAI, conversation: str) -> list[str]:
    """The texts of a conversation, oldest first, with the types of items that have none."""
    items: Any = client.conversations.items.list(conversation, order="asc", limit=3)
    return [item.content[0].text if item.type == "message" else item.type for item in items]


def respond(client: openai.OpenAI, conversation: Any, input: Any, **options: Any) -> Any:
    return client.responses.create(
        **{"model": "echo", "input": input, "conversation": conversation, "max_output_tokens": 500, **options}
    )


def test_a_conversation_is_created_changed_and_deleted(client: openai.OpenAI) -> None:
    items = [message("I am Ada.", "developer"), message("Hello.")]
    created = client.conversations.create(items=items, metadata={"topic": "demo"})
    assert created.object == "conversation"
    assert created.metadata == {"topic": "demo"}
    assert client.conversations.retrieve(created.id) == created
    assert client.conversations.update(created.id, metadata={"topic": "other"}).metadata == {"topic": "other"}
    assert client.conversations.update(created.id, metadata=None).metadata == {}
    assert texts(client, created.id) == ["I am Ada.", "Hello."]
    deleted = client.conversations.delete(created.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (created.id, True, "conversation.deleted")
    for call in (client.conversations.retrieve, client.conversations.delete, client.conversations.items.list):
        with pytest.raises(openai.NotFoundError) as refused:
            call(created.id)
        assert (refused.value.code, refused.value.param) == ("conversation_not_found", "conversation")


def test_items_are_added_listed_retrieved_and_deleted(client: openai.OpenAI) -> None:
    conversation = client.conversations.create().id
    added = client.conversations.items.create(conversation, items=[message(f"text {number}") for number in range(7)])
    ids = [str(item.id) for item in added.data]
    assert (added.first_id, added.last_id, added.has_more) == (ids[0], ids[-1], False)
    # The client reads page after page.
    assert [item.id for item in client.conversations.items.list(conversation, limit=2)] == ids[::-1]
    assert [item.id for item in client.conversations.items.list(conversation, limit=3, order="asc")] == ids
    found: Any = client.conversations.items.retrieve(ids[3], conversation_id=conversation)
    assert (found.id, found.content[0].text) == (ids[3], "text 3")
    assert client.conversations.items.delete(ids[3], conversation_id=conversation).id == conversation
    assert texts(client, conversation) == [f"text {number}" for number in (0, 1, 2, 4, 5, 6)]
    for call in (client.conversations.items.retrieve, client.conversations.items.delete):
        with pytest.raises(openai.NotFoundError, match=r"item_id: .* has no item"):
            call(ids[3], conversation_id=conversation)
    with pytest.raises(openai.NotFoundError, match=r"after: .* has no item"):
        client.conversations.items.list(conversation, after=ids[3])


@pytest.mark.parametrize("form", ["id", "object"])
def test_a_response_reads_a_conversation_and_is_added_to_it(client: openai.OpenAI, form: str) -> None:
    id = client.conversations.create(items=[message("I am Ada.")]).id
    conversation: Any = id if form == "id" else {"id": id}
    first = respond(client, conversation, "Who am I?")
    assert first.conversation.id == id
    # The engine echoes what the model reads.
    assert "I am Ada." in first.output_text
    assert texts(client, id) == ["I am Ada.", "Who am I?", first.output_text]
    second = respond(client, conversation, "And you?", instructions="Be brief.")
    assert second.output_text.count("Who am I?") == 2
    counted = client.responses.input_tokens.count(model="echo", input="And you?", conversation=conversation).input_tokens
    assert counted > second.usage.input_tokens
    listed = client.responses.input_items.list(second.id, order="asc").data
    assert len(listed) == 4
    assert texts(client, id)[3:] == ["And you?", second.output_text]


def test_the_output_of_a_call_is_read_from_the_conversation(client: openai.OpenAI) -> None:
    conversation = client.conversations.create().id
    first = respond(client, conversation, CALL, tools=[TOOL])
    output = {"type": "function_call_output", "call_id": first.output[-1].call_id, "output": "sunny"}
    second = respond(client, conversation, [output], tools=[TOOL])
    assert "tool: sunny" in second.output_text
    assert texts(client, conversation) == [CALL, "function_call", "function_call_output", second.output_text]


def test_streamed_and_background_responses_are_added_once(client: openai.OpenAI) -> None:
    conversation = client.conversations.create().id
    events = list(respond(client, conversation, "streamed", stream=True))
    streamed = events[-1].response
    assert streamed.conversation.id == conversation
    started = respond(client, conversation, "in the background", background=True)
    wait_until(lambda: client.responses.retrieve(started.id).status == "completed", "the response has ended")
    answer = client.responses.retrieve(started.id).output_text
    client.responses.delete(streamed.id)
    client.responses.delete(started.id)
    assert texts(client, conversation) == ["streamed", streamed.output_text, "in the background", answer]


def test_a_cancelled_response_adds_nothing(client: openai.OpenAI) -> None:
    conversation = client.conversations.create(items=[message("before")]).id
    # An answer of half a minute.
    started = respond(client, conversation, "word " * 1400, background=True, max_output_tokens=8000)
    assert client.responses.cancel(started.id).status == "cancelled"
    assert texts(client, conversation) == ["before"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"conversation": "conv_0"}, "conversation"),
        ({"conversation": {"id": 1}}, "conversation"),
        ({"conversation": {}}, "conversation"),
        ({"conversation": "{id}", "store": False}, "store"),
        ({"conversation": "{id}", "previous_response_id": "resp_0"}, "conversation"),
    ],
)
def test_refusals_name_the_field(v1_stack: Stack, client: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    if fields["conversation"] == "{id}":
        fields = {**fields, "conversation": client.conversations.create().id}
    answer = v1_stack.post("/v1/responses", {"model": "echo", "input": "x", **fields})
    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "items"),
        ({"items": []}, "items"),
        ({"items": [{"type": "message", "role": "user", "content": [{"type": "input_image"}]}]}, "items[0].content[0].type"),
        ({"items": [message("x"), {"type": "unheard_of"}]}, "items[1].type"),
    ],
)
def test_items_that_are_refused_are_named(v1_stack: Stack, client: openai.OpenAI, body: dict[str, Any], param: str) -> None:
    conversation = client.conversations.create().id
    answer = v1_stack.post(f"/v1/conversations/{conversation}/items", body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert texts(client, conversation) == []


def test_a_compacted_conversation_is_continued(v1_stack: Stack, client: openai.OpenAI) -> None:
    turns = [message("I am Ada."), message("Hello.", "assistant"), message("I like tea.")]
    compacted = client.responses.compact(model="echo", input=turns, instructions="Be brief.")
    output: Any = compacted.output
    assert compacted.object == "response.compaction"
    assert [item.type for item in output] == ["message", "message", "compaction"]
    assert [item.content[0].text for item in output[:2]] == ["I am Ada.", "I like tea."]
    assert compacted.usage.output_tokens > 0
    items = [item.to_dict(warnings=False) for item in output]
    following = {"input": [*items, message("Who am I?")], "model": "echo", "max_output_tokens": 1000}
    answer = v1_stack.post("/v1/responses", {**following, "instructions": "Be kind."})
    assert "x-ignored-params" not in answer.headers
    # The engine echoes: its summary is the beginning of its prompt, and its answer repeats what it reads.
    text = answer.json()["output"][0]["content"][0]["text"]
    assert text.index("Be kind.") < text.index("Summary of the conversation so far:") < text.index("Summarize the conversation")
    assert text.index("Summarize the conversation") < text.index("Who am I?")
    assert "I like tea." not in text.partition("Summarize")[0], "the summary stands for the messages before it"
    conversation = client.conversations.create(items=items).id
    assert texts(client, conversation) == ["I am Ada.", "I like tea.", "compaction"]
    assert "Summary of the conversation" in respond(client, conversation, "Who am I?", max_output_tokens=1000).output_text


@pytest.mark.parametrize("content", ["gAAAA…", "eh1.", "eh1.AAAA", "eh1.e30=", None])
def test_compactions_of_other_servers_are_skipped(v1_stack: Stack, content: str | None) -> None:
    item = {"type": "compaction", "encrypted_content": content} if content is not None else {"type": "compaction"}
    answer = v1_stack.post("/v1/responses", {"model": "echo", "input": [item, message("x")]})
    assert (answer.status_code, answer.headers["x-ignored-params"]) == (200, "input[0]"), answer.text


def test_nothing_cannot_be_compacted(v1_stack: Stack) -> None:
    bodies: list[dict[str, Any]] = [{}, {"input": []}, {"input": " "}]
    for body in bodies:
        answer = v1_stack.post("/v1/responses/compact", {"model": "echo", **body})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input"), answer.text
