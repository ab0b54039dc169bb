"""Tools and reasoning, whose texts the echo engine writes as a user's lines say."""

import json
from typing import Any

import openai
import pytest
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from testing.stack import Stack
from tests.flows.openai.conftest import user

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "description": "x", "parameters": PARAMETERS}} for name in ("weather", "time")
]
TWO_CALLS = 'think: both are needed\ncall: weather {"city": "Rome"}\ncall: time {"city": "Oslo"}'


def test_a_model_calls_functions_after_reasoning(v1_stack: Stack, client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="echo", messages=user(TWO_CALLS), tools=TOOLS, max_tokens=1000)
    [choice] = raw.parse().choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    calls: list[Any] = list(choice.message.tool_calls or ())
    assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == [
        ("weather", {"city": "Rome"}),
        ("time", {"city": "Oslo"}),
    ]
    assert len({call.id for call in calls}) == 2
    extra = choice.message.model_extra or {}
    assert extra["reasoning_content"] == extra["reasoning"] == "both are needed"
    assert v1_stack.job(raw.headers["x-job-id"])["result"]["finish_reason"] == "tool_calls"


def test_streamed_calls_have_their_name_first_and_then_arguments(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="echo", messages=user(TWO_CALLS), tools=TOOLS, max_tokens=1000, stream=True)
    reasoning, reasons, calls, pieces = "", set(), dict[int, dict[str, Any]](), 0
    for chunk in stream:
        [choice] = chunk.choices
        reasons.add(choice.finish_reason)
        reasoning += (choice.delta.model_extra or {}).get("reasoning_content") or ""
        assert not choice.delta.content
        assert len(choice.delta.tool_calls or ()) <= 1, "some clients read only the first piece of a chunk"
        for piece in choice.delta.tool_calls or ():
            function: Any = piece.function
            if piece.index not in calls:
                assert (piece.type, bool(piece.id), bool(function.name)) == ("function", True, True)
                calls[piece.index] = {"name": function.name, "arguments": ""}
            else:
                assert function.name is None
            calls[piece.index]["arguments"] += function.arguments or ""
            pieces += 1
    assert reasoning == "both are needed"
    assert pieces > len(calls), "arguments come as they are written"
    assert reasons == {None, "tool_calls"}
    assert [(call["name"], json.loads(call["arguments"])) for call in calls.values()] == [
        ("weather", {"city": "Rome"}),
        ("time", {"city": "Oslo"}),
    ]


def test_the_helper_of_the_client_accumulates_a_stream(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="echo", messages=user(TWO_CALLS), tools=TOOLS, max_tokens=1000) as stream:
        final = stream.get_final_completion()
    calls: list[Any] = list(final.choices[0].message.tool_calls or ())
    assert [call.function.name for call in calls] == ["weather", "time"]


def test_a_call_of_a_strict_tool_follows_its_schema_although_none_is_forced(client: openai.OpenAI) -> None:
    strict = {"name": "weather", "strict": True, "parameters": {**PARAMETERS, "additionalProperties": False}}
    tools: list[Any] = [{"type": "function", "function": strict}, TOOLS[1]]

    def answer(text: str) -> Any:
        return client.chat.completions.create(model="echo", messages=user(text), tools=tools, max_tokens=200).choices[0].message

    free = answer("a < b, and <tool_ call> is no call")
    assert (free.content, free.tool_calls) == ("user: a < b, and <tool_ call> is no call", None)
    assert [json.loads(call.function.arguments) for call in answer(TWO_CALLS).tool_calls] == [{"city": "Rome"}, {"city": "Oslo"}]
    # The echo engine writes what the grammar allows.
    [call] = answer('call: weather {"town": 5}').tool_calls
    assert list(json.loads(call.function.arguments)) == ["city"]
    [call] = answer('call: time {"town": 5}').tool_calls
    assert json.loads(call.function.arguments) == {"town": 5}, "this tool is not strict"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "time"}}])
def test_a_forced_call_is_made(client: openai.OpenAI, choice: Any) -> None:
    answer = client.chat.completions.create(model="echo", messages=user("hi"), tools=TOOLS, tool_choice=choice, max_tokens=1000)
    calls: list[Any] = list(answer.choices[0].message.tool_calls or ())
    assert calls[0].function.name == ("weather" if choice == "required" else "time")


def test_without_tools_nothing_is_a_call(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="echo", messages=user("hi"), tools=TOOLS, tool_choice="none", max_tokens=1000)
    assert not answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "stop"


class City(BaseModel):
    city: str


def test_langchain_binds_tools_and_reads_structured_output(v1_stack: Stack) -> None:
    model = ChatOpenAI(model="echo", base_url=f"{v1_stack.url}/v1", api_key="x", max_tokens=1000)  # type: ignore[arg-type]
    asked = [HumanMessage('call: City {"city": "Rome"}')]
    assert model.bind_tools([City]).invoke(asked).tool_calls[0]["args"] == {"city": "Rome"}
    assert model.with_structured_output(City, method="function_calling").invoke(asked) == City(city="Rome")
    pieces = list(model.bind_tools([City]).stream(asked))
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece  # type: ignore[assignment]
    assert whole.tool_calls[0]["args"] == {"city": "Rome"}


def test_langchain_reads_an_answer_that_matches_a_schema(v1_stack: Stack) -> None:
    model = ChatOpenAI(model="echo", base_url=f"{v1_stack.url}/v1", api_key="x", max_tokens=1000)  # type: ignore[arg-type]
    asked = [HumanMessage('answer: {"city": "Rome"}')]
    assert model.with_structured_output(City, method="json_schema").invoke(asked) == City(city="Rome")
