"""Responses with OpenAI's own client: text, tools, streams, conversations, and responses in the background."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, Literal

import httpx2
import openai
import pytest
from openai.types.responses import Response
from pydantic import BaseModel

from testing.stack import Stack
from testing.waiting import wait_until

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
TOOL: dict[str, Any] = {"type": "function", "name": "weather", "description": "x", "parameters": PARAMETERS}
CALL = 'think: it is needed\ncall: weather {"city": "Rome"}'
# An answer that lasts for some seconds.
LONG: dict[str, Any] = {"input": "word " * 1400, "max_output_tokens": 8000}


@pytest.fixture
def create(client: openai.OpenAI) -> Callable[..., Any]:
    def create(input: Any, **options: Any) -> Any:
        return client.responses.create(**{"model": "echo", "input": input, "max_output_tokens": 1000, **options})

    return create


def job_of(response: Any) -> str:
    return f"job_{response.id.removeprefix('resp_')}"


def posted(stack: Stack, **body: Any) -> httpx2.Response:
    return stack.post("/v1/responses", {"model": "echo", "max_output_tokens": 1000, **body})


# The acceptance cases of Open Responses that concern text and tools, by the names of its suite, each also as a stream: requests, and the
# items of their output.
ACCEPTANCE: dict[str, tuple[list[dict[str, Any]], dict[str, Any], list[str]]] = {
    "basic-response": ([{"type": "message", "role": "user", "content": "Say hello."}], {}, ["message"]),
    "system-prompt": (
        [
            {"type": "message", "role": "system", "content": "You are terse."},
            {"type": "message", "role": "user", "content": "Hi."},
        ],
        {},
        ["message"],
    ),
    "multi-turn": (
        [
            {"type": "message", "role": "user", "content": "I am Ada."},
            {"type": "message", "role": "assistant", "content": "Hello Ada."},
            {"type": "message", "role": "user", "content": "Who am I?"},
        ],
        {},
        ["message"],
    ),
    "tool-calling": ([{"type": "message", "role": "user", "content": CALL}], {"tools": [TOOL]}, ["reasoning", "function_call"]),
}


# The fields that its schema of a response requires, and their types.
NULL = type(None)
RESOURCE: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("id", "object", "status", "model", "truncation", "service_tier"), (str,)),
    **dict.fromkeys(("created_at", "top_logprobs"), (int,)),
    **dict.fromkeys(("completed_at", "max_output_tokens", "max_tool_calls"), (int, NULL)),
    **dict.fromkeys(("previous_response_id", "instructions", "safety_identifier", "prompt_cache_key"), (str, NULL)),
    **dict.fromkeys(("incomplete_details", "error", "reasoning", "usage"), (dict, NULL)),
    **dict.fromkeys(("output", "tools"), (list,)),
    **dict.fromkeys(("parallel_tool_calls", "store", "background"), (bool,)),
    **dict.fromkeys(("top_p", "presence_penalty", "frequency_penalty", "temperature"), (int, float)),
    **dict.fromkeys(("text", "metadata"), (dict,)),
    "tool_choice": (str, dict),
}
PLACE = ("item_id", "output_index")
EVENT_FIELDS = {
    "response.output_item.added": ("output_index", "item"),
    "response.output_item.done": ("output_index", "item"),
    "response.content_part.added": (*PLACE, "content_index", "part"),
    "response.content_part.done": (*PLACE, "content_index", "part"),
    "response.output_text.delta": (*PLACE, "content_index", "delta", "logprobs"),
    "response.output_text.done": (*PLACE, "content_index", "text", "logprobs"),
    "response.function_call_arguments.delta": (*PLACE, "delta"),
    "response.function_call_arguments.done": (*PLACE, "arguments"),
}


def misfits(response: dict[str, Any]) -> set[str]:
    """The required fields of a response that are missing or of another type."""
    return {name for name, types in RESOURCE.items() if name not in response or not isinstance(response[name], types)}


@pytest.mark.parametrize("name", ACCEPTANCE)
def test_acceptance_cases_of_open_responses(v1_stack: Stack, create: Callable[..., Any], name: str) -> None:
    input, options, types = ACCEPTANCE[name]
    answer = posted(v1_stack, input=input, **options)
    assert answer.status_code == 200, answer.text
    response = Response.model_validate_json(answer.text, strict=True)
    assert response.status == "completed"
    assert [item.type for item in response.output] == types
    assert misfits(answer.json()) == set()
    lines = posted(v1_stack, input=input, stream=True, **options).text.splitlines()
    sent = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    for event in sent:
        missing = {"type", "sequence_number", *EVENT_FIELDS.get(event["type"], ())} - event.keys()
        assert (event["type"], missing, misfits(event["response"]) if "response" in event else set()) == (
            event["type"],
            set(),
            set(),
        )
    events = list(create(input, stream=True, **options))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [item.type for item in events[-1].response.output] == types
    kinds = [event.type for event in events]
    assert [kinds[0], kinds[1], kinds[-1]] == ["response.created", "response.in_progress", "response.completed"]
    if "function_call" in types:
        assert {"response.function_call_arguments.delta", "response.function_call_arguments.done"} <= set(kinds)
        assert {"response.reasoning_text.delta", "response.reasoning_text.done"} <= set(kinds)


def test_the_helper_of_the_client_accumulates_a_stream(client: openai.OpenAI) -> None:
    tool: Any = {**TOOL, "strict": True}
    with client.responses.stream(model="echo", input=CALL, tools=[tool], max_output_tokens=1000) as stream:
        ids = {event.response.id for event in stream if event.type in ("response.created", "response.completed")}
        final = stream.get_final_response()
    assert ids == {final.id}
    call: Any = final.output[-1]
    assert (call.name, json.loads(call.arguments), final.output[0].type) == ("weather", {"city": "Rome"}, "reasoning")


def test_a_stream_ends_with_done_and_names_its_events(v1_stack: Stack) -> None:
    text = posted(v1_stack, input="hi", stream=True).text
    lines = [line for line in text.splitlines() if line.startswith(("event: ", "data: "))]
    assert lines[-1] == "data: [DONE]"
    for event, data in zip(lines[:-1:2], lines[1:-1:2], strict=True):
        assert json.loads(data.removeprefix("data: "))["type"] == event.removeprefix("event: ")


def test_the_output_of_a_call_goes_back_to_the_model(create: Callable[..., Any]) -> None:
    first = create(CALL, tools=[TOOL])
    output = {"type": "function_call_output", "call_id": first.output[-1].call_id, "output": "sunny"}
    stored = create([output], tools=[TOOL], previous_response_id=first.id)
    own = create([{"role": "user", "content": CALL}, *first.output, output], tools=[TOOL], store=False)
    for second in (stored, own):
        assert "tool: sunny" in second.output_text
        assert "Rome" in second.output_text
    parts = create(
        [{"role": "user", "content": CALL}, *first.output, {**output, "output": [{"type": "input_text", "text": "rain"}]}]
    )
    assert "tool: rain" in parts.output_text


def test_the_tokens_of_a_prompt_are_counted(client: openai.OpenAI, create: Callable[..., Any]) -> None:
    first = create("one", instructions="Be brief.")
    options: Any = {"model": "echo", "input": "one", "instructions": "Be brief."}
    assert client.responses.input_tokens.count(**options).input_tokens == first.usage.input_tokens
    options = {"model": "echo", "input": "two", "previous_response_id": first.id}
    assert client.responses.input_tokens.count(**options).input_tokens == create(**options).usage.input_tokens


def test_a_choice_of_tools_is_obeyed(create: Callable[..., Any]) -> None:
    tools = [TOOL, {**TOOL, "name": "time"}]
    for choice in (
        {"type": "function", "name": "time"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "time"}]},
    ):
        response = create("hi", tools=tools, tool_choice=choice)
        assert response.output[0].name == "time"
        assert response.tool_choice.to_dict() == choice
    assert create(CALL, tools=tools, tool_choice="none").output[-1].type == "message"
    assert create("hi", tools=tools, tool_choice="required", parallel_tool_calls=False).output[0].name == "weather"


def test_a_schema_forces_the_answer(client: openai.OpenAI, create: Callable[..., Any]) -> None:
    class Person(BaseModel):
        name: Literal["Ada", "Grace"]
        age: Literal[36, 85]

    thought = "think: who is it?\nanswer: "
    parsed = client.responses.parse(model="echo", input=f'{thought}{{"name": "Ada", "age": 99}}', text_format=Person)
    assert parsed.output_parsed in (Person(name="Ada", age=36), Person(name="Ada", age=85))
    answer = create(f'{thought}Well, {{"a": 1}}', text={"format": {"type": "json_object"}})
    assert isinstance(json.loads(answer.output_text), dict)


def test_log_probabilities_are_included(create: Callable[..., Any]) -> None:
    include = ["message.output_text.logprobs", "reasoning.encrypted_content"]
    response = create("hi", include=include, top_logprobs=1)
    [part] = response.output[0].content
    assert "".join(entry.token for entry in part.logprobs).rstrip() == part.text == "user: hi"
    assert part.logprobs[0].top_logprobs[0].token == "u"
    events = list(create("hi", include=include, stream=True))
    sent = [entry.token for event in events if event.type == "response.output_text.delta" for entry in event.logprobs]
    assert "".join(sent).rstrip() == "user: hi"


def test_an_answer_at_its_limit_is_incomplete(create: Callable[..., Any]) -> None:
    response = create("one two three", max_output_tokens=9)
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert response.output_text == "user: one"
    assert response.usage.output_tokens == 9
    assert list(create("one two three", max_output_tokens=9, stream=True))[-1].type == "response.incomplete"


def test_a_conversation_is_kept_without_its_instructions(client: openai.OpenAI, create: Callable[..., Any]) -> None:
    first = create("one", instructions="Be brief.")
    second = create("two", previous_response_id=first.id, instructions="Be long.", metadata={"turn": "2"})
    third = create(
        [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": "three"}], previous_response_id=second.id
    )
    assert second.output_text.startswith("system: Be long.\nuser: one\nassistant: system: Be brief.\nuser: one\n")
    assert client.responses.retrieve(second.id).to_dict() == second.to_dict()
    assert (second.metadata, second.previous_response_id) == ({"turn": "2"}, first.id)
    items: list[Any] = list(client.responses.input_items.list(third.id, order="asc", limit=2))
    assert [item.role for item in items] == ["user", "assistant", "user", "assistant", "developer", "user"]
    assert [item.content[0].text for item in items if item.role == "user"] == ["one", "two", "three"]
    newest = client.responses.input_items.list(third.id, limit=2)
    assert [item.id for item in newest.data] == [items[-1].id, items[-2].id]
    assert newest.has_more
    client.responses.delete(first.id)
    assert "user: one" in create("four", previous_response_id=second.id).output_text
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError) as refused:
        create("two", previous_response_id=first.id)
    assert (refused.value.param, refused.value.code) == ("previous_response_id", "previous_response_not_found")


def test_references_to_items_are_replaced_by_them(v1_stack: Stack, create: Callable[..., Any]) -> None:
    first = create(CALL, tools=[TOOL])
    question = create("one")
    [asked] = v1_stack.client.get(f"/v1/responses/{question.id}/input_items").json()["data"]
    input = [
        {"type": "item_reference", "id": asked["id"]},
        {"id": question.output[0].id},
        {"role": "user", "content": CALL},
        {"type": "item_reference", "id": first.output[0].id},
        {"type": "item_reference", "id": first.output[-1].id},
        {"type": "function_call_output", "call_id": first.output[-1].call_id, "output": "sunny"},
        {"type": "item_reference", "id": "msg_68e7d1"},
    ]
    answer = posted(v1_stack, input=input)
    assert answer.headers["x-ignored-params"] == "input[6]"
    text = answer.json()["output"][-1]["content"][0]["text"]
    assert text.startswith("user: one\nassistant: user: one\nuser: ")
    assert "tool: sunny" in text


def test_nothing_is_kept_of_a_response_that_is_not_stored(
    v1_stack: Stack, client: openai.OpenAI, create: Callable[..., Any]
) -> None:
    made = [create("a secret", store=False), list(create("a secret", store=False, stream=True))[-1].response]
    for response in made:
        assert response.store is False
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(response.id)
    paths = [f"/jobs/{job_of(response)}" for response in made]
    wait_until(lambda: all(v1_stack.client.get(path).status_code == 404 for path in paths), "their jobs are deleted", seconds=20)
    with pytest.raises(openai.BadRequestError) as refused:
        create("x", store=False, background=True)
    assert refused.value.param == "store"


def test_a_stream_in_the_background_continues_after_any_event(client: openai.OpenAI, create: Callable[..., Any]) -> None:
    with create("word " * 40, background=True, stream=True) as stream:
        read = [next(iter(stream)) for _ in range(6)]
    id = read[0].response.id
    assert [event.type for event in read[:3]] == ["response.created", "response.queued", "response.in_progress"]
    rest = list(client.responses.retrieve(id, stream=True, starting_after=read[-1].sequence_number))
    whole = [event.to_dict() for event in client.responses.retrieve(id, stream=True)]
    assert [event.to_dict() for event in [*read, *rest]] == whole
    assert rest[-1].response.to_dict() == client.responses.retrieve(id).to_dict()
    for number in range(len(whole) - 1):
        with client.responses.retrieve(id, stream=True, starting_after=number) as one:
            assert next(iter(one)).to_dict() == whole[number + 1]
    assert list(client.responses.retrieve(id, stream=True, starting_after=len(whole))) == []


def test_a_response_in_the_background_runs_without_a_connection(
    v1_stack: Stack, client: openai.OpenAI, create: Callable[..., Any]
) -> None:
    response = create("hi", background=True)
    assert (response.status in ("queued", "in_progress"), response.background, response.output) == (True, True, [])
    wait_until(lambda: client.responses.retrieve(response.id).status == "completed", "it has completed")
    assert client.responses.retrieve(response.id).output_text == "user: hi"
    assert client.responses.cancel(response.id).status == "completed", "one that has ended stays as it is"
    windows = {
        window: create("hi", background=True, background_options={"completion_window": window})
        for window in ("soonest", "2h", "8h")
    }
    jobs = {window: v1_stack.job(job_of(made)) for window, made in windows.items()}
    assert [job["priority"] for job in jobs.values()] == [5, 7, 8]
    assert round(jobs["2h"]["expires_at"] - jobs["2h"]["created_at"]) == 2 * 3600
    assert round(jobs["8h"]["expires_at"] - jobs["8h"]["created_at"]) == 8 * 3600
    tier = create("hi", service_tier="flex")
    assert (tier.service_tier, v1_stack.job(job_of(tier))["priority"]) == ("flex", 8)


def test_a_response_in_the_background_is_cancelled_and_deleted(
    v1_stack: Stack, client: openai.OpenAI, create: Callable[..., Any]
) -> None:
    running = create(**LONG, background=True)
    wait_until(lambda: client.responses.retrieve(running.id).status == "in_progress", "it runs")
    assert client.responses.cancel(running.id).status == "cancelled"
    assert client.responses.cancel(running.id).status == "cancelled"
    assert list(client.responses.retrieve(running.id, stream=True))[-1].response.status == "cancelled"
    for background in (True, False):
        with create(**LONG, background=background, stream=True) as stream:
            id = next(iter(stream)).response.id
            if not background:
                with pytest.raises(openai.BadRequestError):
                    client.responses.cancel(id)
            client.responses.delete(id)
        assert v1_stack.client.get(f"/jobs/job_{id.removeprefix('resp_')}").status_code == 404


def test_a_closed_connection_cancels_only_a_response_in_the_foreground(client: openai.OpenAI, create: Callable[..., Any]) -> None:
    ids = []
    for background in (True, False):
        with create(**LONG, background=background, stream=True) as stream:
            ids.append(next(iter(stream)).response.id)
    wait_until(lambda: client.responses.retrieve(ids[1]).status == "cancelled", "the response in the foreground is cancelled")
    assert client.responses.retrieve(ids[0]).status in ("queued", "in_progress")
    client.responses.delete(ids[0])


def test_a_prompt_that_is_too_long_is_reported_as_clients_expect(create: Callable[..., Any], client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        create("x" * 9000)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "input")
    last = list(create("x" * 9000, stream=True))[-1]
    assert (last.type, last.response.error.code) == ("response.failed", "context_length_exceeded")
    messages = [{"role": "user", "content": f"{number} " + "x" * 900} for number in range(20)]
    shortened = create([{"role": "system", "content": "Be brief."}, *messages], truncation="auto", max_output_tokens=20)
    assert shortened.output_text == "system: Be brief.\nus"
    assert shortened.usage.input_tokens < 8192


CODEX: dict[str, Any] = {
    "model": "echo",
    "instructions": "You are a coding agent.",
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "<permissions/>"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "list the files"}]},
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAAA", "content": None},
        {"type": "function_call", "name": "shell", "arguments": '{"command":["ls"]}', "call_id": "call_1"},
        {"type": "function_call_output", "call_id": "call_1", "output": '{"output":"a.txt","metadata":{"exit_code":0}}'},
        {
            "type": "custom_tool_call",
            "call_id": "call_2",
            "name": "apply_patch",
            "input": "*** Begin Patch",
            "status": "completed",
        },
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": "Done"},
        {"type": "local_shell_call", "call_id": "c", "status": "completed", "action": {"type": "exec", "command": ["ls"]}},
        {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "x"}},
    ],
    "tools": [
        {
            "type": "function",
            "name": "shell",
            "description": "x",
            "strict": False,
            "parameters": {"type": "object", "properties": {}},
        },
        {"type": "custom", "name": "apply_patch", "format": {"type": "grammar", "syntax": "lark", "definition": "start: /x/"}},
        {"type": "web_search", "external_web_access": True},
        {"type": "namespace", "name": "mcp__docs", "tools": [{"type": "function", "name": "search", "parameters": {}}]},
        {"type": "image_generation", "output_format": "png"},
        {"type": "local_shell"},
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "service_tier": "priority",
    "prompt_cache_key": "0199-session",
    "text": {"verbosity": "low"},
    "client_metadata": {"x": "y"},
}
N8N: dict[str, Any] = {
    "model": "echo",
    "input": [
        {"role": "system", "content": "You help."},
        {"role": "user", "content": [{"type": "input_text", "text": "hello"}]},
        {"type": "item_reference", "id": "rs_0f8c"},
        {
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "id": "msg_0f8c",
            "content": [{"type": "output_text", "text": "hi", "annotations": []}],
        },
        {"role": "user", "content": "again"},
    ],
    "tools": [
        {"type": "mcp", "server_label": "s", "server_url": "http://x"},
        {"type": "code_interpreter", "container": {"type": "auto"}},
    ],
    "metadata": None,
    "background": False,
    "conversation": None,
    "max_tool_calls": 15,
    "parallel_tool_calls": True,
    "prompt": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "service_tier": "auto",
    "store": True,
    "top_logprobs": 0,
    "truncation": "disabled",
    "temperature": 1,
    "top_p": 1,
    "text": {"format": {"type": "text"}},
}


def test_requests_of_codex_and_n8n_work(v1_stack: Stack) -> None:
    answer = v1_stack.post("/v1/responses", {**CODEX, "max_output_tokens": 4000})
    assert answer.status_code == 200, answer.text
    last = json.loads([line for line in answer.text.splitlines() if line.startswith("data: {")][-1].removeprefix("data: "))
    assert (last["type"], last["response"]["service_tier"]) == ("response.completed", "priority")
    text = last["response"]["output"][0]["content"][0]["text"]
    assert text.startswith("system: You are a coding agent.\n\n<permissions/>\nuser: list the files\n")
    assert "a.txt" in text
    assert "tool: Done" in text
    ignored = answer.headers["x-ignored-params"].split(", ")
    assert {"client_metadata", *(f"tools[{n}]" for n in range(1, 6)), "input[7]", "input[8]"} <= set(ignored)
    assert {"input[2]", "tools[0]"}.isdisjoint(ignored)
    answer = v1_stack.post("/v1/responses", {**N8N, "max_output_tokens": 4000})
    assert answer.status_code == 200, answer.text
    assert answer.json()["output"][0]["content"][0]["text"] == "system: You help.\nuser: hello\nassistant: hi\nuser: again"
    assert answer.headers["x-ignored-params"].split(", ") == ["input[2]", "tools[0]", "tools[1]"]


IMAGE = [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}]}]
BAD: list[tuple[dict[str, Any], str]] = [
    ({"input": None}, "input"),
    ({"input": []}, "input"),
    ({"input": 5}, "input"),
    ({"input": [5]}, "input[0]"),
    ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
    ({"input": [{"role": "user"}]}, "input[0].content"),
    ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
    ({"input": IMAGE}, "input[0].content[0].type"),
    ({"input": [{"type": "made_up"}]}, "input[0].type"),
    ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id"),
    (
        {"input": [{"type": "function_call_output", "call_id": "c", "output": [{"type": "input_file"}]}]},
        "input[0].output[0].type",
    ),
    ({"input": "x" * 2_500_000}, "input"),
    ({"instructions": 5}, "instructions"),
    ({"previous_response_id": "resp_nope"}, "previous_response_id"),
    ({"previous_response_id": "job_01m84stetzyr7esggznw5rdjds"}, "previous_response_id"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"max_output_tokens": "x"}, "max_output_tokens"),
    ({"temperature": 3}, "temperature"),
    ({"background": "yes"}, "background"),
    ({"background_options": {"completion_window": "3h"}}, "background_options.completion_window"),
    ({"background_options": {"completion_window": "2h"}}, "background_options.completion_window"),
    (
        {"background": True, "stream": True, "background_options": {"completion_window": "8h"}},
        "background_options.completion_window",
    ),
    ({"background": True, "service_tier": "flex", "background_options": {"completion_window": "8h"}}, "service_tier"),
    ({"tools": [{"name": "f"}]}, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
    ({"tools": [TOOL, TOOL]}, "tools[1].name"),
    ({"tools": [{**TOOL, "strict": True, "parameters": {"type": 5}}]}, "tools[0].parameters"),
    ({"tools": [TOOL], "tool_choice": "maybe"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "time"}}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "web_search"}}, "tool_choice"),
    ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice"),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
    ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
    ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": 5}}}}, "text.format.schema"),
    ({"tools": [TOOL], "tool_choice": "required", "text": {"format": {"type": "json_object"}}}, "text.format"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"prompt": {"id": "p"}}, "prompt"),
    ({"metadata": {"a": 5}}, "metadata.a"),
    ({"truncation": "middle"}, "truncation"),
    ({"model": "nope"}, "model"),
]


def test_bad_input_is_refused_by_its_name(v1_stack: Stack) -> None:
    for fields, param in BAD:
        answer = posted(v1_stack, **{"input": "x", **fields})
        error = answer.json().get("error", {})
        assert (answer.status_code, error.get("param")) == (404 if param in ("model", "conversation") else 400, param), (
            str(fields)[:200],
            answer.text,
        )
        assert str(param) in error["message"], error


def test_bad_parameters_of_the_other_calls_are_refused_by_their_name(v1_stack: Stack, create: Callable[..., Any]) -> None:
    id = create("hi").id
    for path, status, param in (
        (f"{id}?starting_after=x&stream=true", 400, "starting_after"),
        (f"{id}?stream=maybe", 400, "stream"),
        (f"{id}/input_items?limit=0", 400, "limit"),
        (f"{id}/input_items?order=up", 400, "order"),
        (f"{id}/input_items?after=nope", 404, "after"),
        ("resp_nope", 404, None),
        (f"job_{id[5:]}", 404, None),
        ("resp_01m84stetzyr7esggznw5rdjds/input_items", 404, None),
    ):
        answer = v1_stack.client.get(f"/v1/responses/{path}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), (path, answer.text)


def test_a_repeated_key_creates_one_response(create: Callable[..., Any]) -> None:
    ids = {create("hi", extra_headers={"Idempotency-Key": "one"}).id for _ in range(2)}
    assert len(ids) == 1


def test_the_asynchronous_client_streams(v1_stack: Stack) -> None:
    async def read() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{v1_stack.url}/v1", api_key="anything", max_retries=0) as client:
            return [event async for event in await client.responses.create(model="echo", input="hi", stream=True)]

    assert asyncio.run(read())[-1].type == "response.completed"
