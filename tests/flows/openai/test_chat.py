"""``POST /v1/chat/completions`` by OpenAI's client."""

import asyncio
from typing import Any

import openai
import pytest

from testing.stack import Stack
from tests.flows.openai.conftest import user


def test_an_answer_is_a_job(v1_stack: Stack, client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="echo", messages=user("hello"), user="u-7", metadata={"order": "17"}, temperature=0, service_tier="flex"
    )
    answer = raw.parse()
    job = v1_stack.job(raw.headers["x-job-id"])
    assert answer.choices[0].message.content == job["result"]["text"] == "user: hello"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    assert (answer.model, answer.service_tier) == ("echo", "flex")
    assert (job["kind"], job["priority"], job["metadata"], job["end_user"]) == ("generate", 8, {"order": "17"}, "u-7")
    assert raw.headers["x-request-id"].startswith("req_")


def test_a_stream_has_the_role_first_and_the_usage_last(v1_stack: Stack, client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="echo", messages=user("hello there"), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "user: hello there"
    assert [chunk.choices[0].finish_reason for chunk in chunks[-3:-1]] == [None, "stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert len({chunk.id for chunk in chunks}) == 1
    assert v1_stack.job(stream.response.headers["x-job-id"])["status"] == "completed"


def test_the_asynchronous_client_streams_too(v1_stack: Stack) -> None:
    async def read() -> str:
        async with openai.AsyncOpenAI(base_url=f"{v1_stack.url}/v1", api_key="x") as client:
            stream = await client.chat.completions.create(model="echo", messages=user("hi"), stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(read()) == "user: hi"


@pytest.mark.parametrize("stream", [False, True])
def test_several_answers_are_several_jobs_and_their_prompt_counts_once(client: openai.OpenAI, stream: bool) -> None:
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    raw = client.chat.completions.with_raw_response.create(model="echo", messages=user("hello"), n=3, seed=5, **options)
    assert len(set(raw.headers["x-job-id"].split(","))) == 3
    answer = raw.parse()
    if stream:
        chunks = list(answer)
        texts = ["", "", ""]
        for chunk in chunks:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
        usage = chunks[-1].usage
    else:
        texts = [choice.message.content for choice in answer.choices]
        usage = answer.usage
    assert texts == ["user: hello"] * 3
    assert usage.completion_tokens == 3 * usage.prompt_tokens


def test_every_form_of_message_is_accepted(client: openai.OpenAI) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"word": "tea"}'}}
    messages: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "tea?"}], "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "A drink."}]},
    ]
    answer = client.chat.completions.create(model="echo", messages=messages, max_completion_tokens=4000)
    text = answer.choices[0].message.content or ""
    assert "What is tea?" in text
    assert "A drink." in text


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        (
            {"messages": user([{"type": "image_url", "image_url": {"url": "data:…"}}])},
            "messages[0].content[0].type",
            "unsupported_content",
        ),
        ({"messages": user([{"type": "input_audio", "input_audio": {}}])}, "messages[0].content[0].type", "unsupported_content"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_completion_tokens": -5}, "max_completion_tokens", "invalid_value"),
        ({"top_logprobs": 3}, "top_logprobs", "invalid_value"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"logit_bias": {"tea": 1}}, "logit_bias.tea", "invalid_value"),
        ({"stop": ["x"] * 17}, "stop", "invalid_value"),
        ({"n": 33}, "n", "invalid_value"),
        ({"modalities": ["audio"]}, "modalities", "unsupported_parameter"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction", "unsupported_parameter"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"messages": user("x" * 9000)}, "prompt", "context_length_exceeded"),
        ({"model": "nope"}, "model", "model_not_found"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_refusal_names_the_field(client: openai.OpenAI, fields: dict[str, Any], param: str, code: str) -> None:
    expected = openai.NotFoundError if code == "model_not_found" else openai.BadRequestError
    with pytest.raises(expected) as refused:
        client.chat.completions.create(**{"model": "echo", "messages": user("x"), **fields})
    assert (refused.value.param, refused.value.code, refused.value.type) == (param, code, "invalid_request_error")
    assert param.rpartition(".")[2] in refused.value.message or code in ("model_not_found", "context_length_exceeded")


def test_an_error_after_the_start_of_a_stream_raises(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="echo", messages=user("x" * 9000), stream=True)
    with pytest.raises(openai.APIError, match="context") as failed:
        list(stream)
    assert failed.value.code == "context_length_exceeded"


def test_unknown_fields_are_ignored_and_listed(client: openai.OpenAI) -> None:
    tools: list[Any] = [{"type": "web_search"}, {"type": "function", "function": {"name": "f"}}]
    raw = client.chat.completions.with_raw_response.create(
        model="echo",
        messages=user("x"),
        tools=tools,
        reasoning_effort="high",
        store=True,
        verbosity="low",
        presence_penalty=0,
        frequency_penalty=0,
        extra_body={
            "num_ctx": 4096,
            "thinking": {"type": "disabled"},
            "logit_bias": None,
            "modalities": ["text"],
            "function_call": "auto",
        },
    )
    assert raw.headers["x-ignored-params"].split(", ") == ["num_ctx", "thinking", "tools[0]", "reasoning_effort"]


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"not": {"type": "string"}}, "not"),
        ({"$ref": "https://example.com/x.json"}, "example.com"),
        ({"type": "string", "pattern": "(?=x)y"}, "look-around"),
        ({"type": "nonsense"}, "nonsense"),
        (
            {"allOf": [{"anyOf": [{"properties": {f"{i}{j}": {}}, "type": "object"} for j in range(8)]} for i in range(8)]},
            "too large",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_refused_schema_names_the_keyword(client: openai.OpenAI, schema: dict[str, Any], reason: str) -> None:
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    with pytest.raises(openai.BadRequestError, match=reason) as refused:
        client.chat.completions.create(model="echo", messages=user("x"), response_format=wanted)
    assert (refused.value.param, refused.value.code) == ("response_format.json_schema.schema", "invalid_schema")


def test_a_forced_call_and_a_schema_exclude_each_other(client: openai.OpenAI) -> None:
    tools: list[Any] = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    options: Any = {"model": "echo", "messages": user("x"), "tools": tools, "response_format": {"type": "json_object"}}
    for choice in ("required", {"type": "function", "function": {"name": "f"}}):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(**options, tool_choice=choice)
        assert refused.value.param == "response_format"
    with pytest.raises(openai.BadRequestError, match="Available: f"):
        client.chat.completions.create(
            **{**options, "response_format": None}, tool_choice={"type": "function", "function": {"name": "g"}}
        )


def test_a_request_id_is_kept_if_it_is_a_plain_word(v1_stack: Stack) -> None:
    body = {"messages": user("x")}
    assert v1_stack.post("/v1/chat/completions", body, **{"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert v1_stack.post("/v1/chat/completions", body, **{"x-request-id": "a b\tc"}).headers["x-request-id"].startswith("req_")


def test_every_status_has_the_envelope_and_unknown_calls_list_the_known(v1_stack: Stack) -> None:
    http = v1_stack.client
    answers = {
        404: http.post("/v1/nothing", json={}),
        405: http.get("/v1/chat/completions"),
        400: http.post("/v1/chat/completions", content=b"{", headers={"Content-Type": "application/json"}),
        415: http.post(
            "/v1/chat/completions", content=b"{}", headers={"Content-Type": "application/json", "Content-Encoding": "gzip"}
        ),
        413: http.post("/v1/chat/completions", content=b"x" * 40_000_000, headers={"Content-Type": "application/json"}),
    }
    for status, answer in answers.items():
        assert answer.status_code == status
        assert set(answer.json()["error"]) >= {"message", "type", "param", "code"}
        assert answer.headers["x-request-id"]
    assert "POST /v1/chat/completions" in answers[404].json()["error"]["message"]


def test_the_same_idempotency_key_returns_the_same_answer(v1_stack: Stack) -> None:
    body = {"messages": user("x"), "n": 2, "temperature": 0.5}
    first, second = (v1_stack.post("/v1/chat/completions", body, **{"Idempotency-Key": "once"}) for _ in range(2))
    assert first.headers["x-job-id"] == second.headers["x-job-id"]
    assert first.json() == second.json()
    assert v1_stack.post("/v1/chat/completions", {**body, "n": 1}, **{"Idempotency-Key": "once"}).status_code == 409
