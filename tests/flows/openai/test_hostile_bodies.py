"""Bodies that no client sends by mistake get a 400 that names the field, or are accepted; none gets a 500."""

import json
from typing import Any

import pytest

from testing.stack import Stack
from tests.flows.openai.conftest import user

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def nested(depth: int, value: Any = 1) -> Any:
    for _ in range(depth):
        value = {"a": value}
    return value


def schema(value: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": value}}}


def doubling(depth: int) -> dict[str, Any]:
    """A schema whose references double at each level."""
    definitions = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(depth)}
    return {"$defs": {**definitions, f"d{depth}": {"properties": {"x": {"type": "string"}}}}, "$ref": "#/$defs/d0"}


# Fields, and the param of the refusal.
CHAT_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"messages": "x"}, "messages"),
    ({"messages": [5]}, "messages[0]"),
    ({"messages": [[]]}, "messages[0]"),
    ({"messages": {}}, "messages"),
    ({"messages": user(5)}, "messages[0].content"),
    ({"messages": user({"a": 1})}, "messages[0].content"),
    ({"messages": user([5])}, "messages[0].content[0]"),
    ({"messages": user([{"type": "text"}])}, "messages[0].content[0].text"),
    ({"messages": user([{"type": {"a": 1}, "text": "x"}])}, "messages[0].content[0].type"),
    ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "", "arguments": "x"}}]}]},
        "messages[0].tool_calls[0].function.name",
    ),
    ({"messages": [{"role": "user", "content": "x", "tool_calls": [{"function": {"name": "f"}}]}]}, "messages[0].tool_calls"),
    ({"messages": user("x") * 10_001}, "messages"),
    ({"messages": user("x" * 3_000_000)}, "messages"),
    ({"model": 5}, "model"),
    ({"model": "x" * 201}, "model"),
    ({"model": "\x00"}, "model"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": -0.1}, "top_p"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": 10**30}, "max_tokens"),
    ({"seed": 2**63}, "seed"),
    ({"seed": "x"}, "seed"),
    ({"n": 0}, "n"),
    ({"n": True}, "n"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": 5}, "stream_options"),
    ({"stop": 5}, "stop"),
    ({"stop": [5]}, "stop[0]"),
    ({"stop": "x" * 201}, "stop[0]"),
    ({"logit_bias": {"1": 101}}, "logit_bias.1"),
    ({"logit_bias": [1]}, "logit_bias"),
    ({"logit_bias": {str(n): 1 for n in range(1025)}}, "logit_bias"),
    ({"tools": {}}, "tools"),
    ({"tools": [TOOL, TOOL]}, "tools[1].function.name"),
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": nested(90)}}]}, "tools[0].function.parameters"),
    ({"tools": [TOOL], "tool_choice": "maybe"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": "f"}}, "tool_choice.name"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    (schema([1]), "response_format.json_schema.schema"),
    (schema(nested(90)), "response_format.json_schema.schema"),
    (schema({"enum": ["x" * 1000] * 200}), "response_format.json_schema.schema"),
    (schema({"type": "object", "properties": {"a": {"type": "array", "minItems": -1}}}), "response_format.json_schema.schema"),
    ({"chat_template_kwargs": nested(90)}, "chat_template_kwargs"),
    ({"metadata": {"a": 1}}, "metadata.a"),
    ({"user": 5}, "user"),
]

RAW: list[tuple[str, bytes, str]] = [
    (CHAT, b"", ""),
    (CHAT, b"[]", ""),
    (CHAT, b'"x"', ""),
    (CHAT, b"null", ""),
    (CHAT, b"{'a': 1}", ""),
    (CHAT, b"\xff\xfe", ""),
    (CHAT, b"[" * 100_000, ""),
    (CHAT, b'{"a":' * 100_000, ""),
    (CHAT, b'{"messages": [{"role": "user", "content": "\\ud800"}]}', ""),
    (CHAT, b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}', ""),
    (CHAT, b'{"messages": [{"role": "user", "content": "x"}], "temperature": 1e999}', "temperature"),
    (CHAT, b'{"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": {"a": 1e999}}', "chat_template_kwargs"),
    (COMPLETIONS, b'{"prompt": {"a": 1}}', "prompt"),
    (COMPLETIONS, b'{"prompt": [[]]}', "prompt[0]"),
    (COMPLETIONS, b'{"prompt": [[1], "a"]}', "prompt[1]"),
    (COMPLETIONS, b'{"prompt": [99999999999999999999]}', "prompt[0]"),
    (COMPLETIONS, b"{}", "prompt"),
    (EMBEDDINGS, b'{"input": 5}', "input"),
    (EMBEDDINGS, b'{"input": "x", "encoding_format": "int8"}', "encoding_format"),
    (EMBEDDINGS, b'{"input": {"a": [1]}}', "input"),
    ("/v1/tokenize", b'{"prompt": "x", "messages": [{"role": "user", "content": "x"}]}', "prompt"),
    ("/tokenize", b"{}", "prompt"),
    ("/detokenize", b'{"tokens": [-1]}', "tokens[0]"),
]


def refuse(stack: Stack, path: str, body: bytes) -> dict[str, Any]:
    answer = stack.client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 404, 413), (answer.status_code, answer.text[:300])
    return dict(answer.json()["error"])


@pytest.mark.parametrize(("fields", "param"), CHAT_FIELDS, ids=[f"{n}-{param}" for n, (_, param) in enumerate(CHAT_FIELDS)])
def test_a_refused_field_is_named(v1_stack: Stack, fields: dict[str, Any], param: str) -> None:
    error = refuse(v1_stack, CHAT, json.dumps({"messages": user("x"), **fields}).encode())
    assert error["param"] == param, error
    assert param.split("[")[0].split(".")[0] in error["message"] or error["code"] == "model_not_found"


@pytest.mark.parametrize(("path", "body", "param"), RAW, ids=[f"{n}-{body[:20]!r}" for n, (_, body, _) in enumerate(RAW)])
def test_a_body_that_is_no_request_is_refused(v1_stack: Stack, path: str, body: bytes, param: str) -> None:
    error = refuse(v1_stack, path, body)
    assert (error["param"] or "") == param, error


@pytest.mark.parametrize(
    "value", [doubling(40), {"type": "string", "pattern": "(a{1000}){1000}"}, {"type": "string", "minLength": 10**9}]
)
def test_a_schema_that_could_grow_is_bounded(v1_stack: Stack, value: Any) -> None:
    body = {"messages": user("x"), "max_tokens": 1, **schema(value)}
    assert v1_stack.client.post(CHAT, json=body).status_code in (200, 400)
