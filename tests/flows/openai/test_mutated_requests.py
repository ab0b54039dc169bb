"""Valid requests with one value replaced: the server accepts them, or refuses them with a field that the call has."""

import copy
import json
import random
import re
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from shared.openai.requests import (
    BatchRequest,
    ChatCompletionRequest,
    CompactRequest,
    CompletionRequest,
    ConversationItemsRequest,
    ConversationRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    InputTokensRequest,
    OpenAIRequest,
    RerankRequest,
    ResponseRequest,
    TokenizeRequest,
    VectorStoreRequest,
)
from testing.stack import Stack

FUNCTION = {"name": "f", "description": "x", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
ITEMS: list[dict[str, Any]] = [
    {"type": "message", "role": "user", "content": "x"},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "x"},
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}]},
    {"type": "compaction", "encrypted_content": "x"},
]
SAMPLING = {"temperature": 1.0, "top_p": 0.5, "seed": 1, "stream": False, "user": "x", "metadata": {"a": "b"}}
REQUESTS: dict[str, tuple[type[OpenAIRequest], dict[str, Any]]] = {
    "/v1/chat/completions": (
        ChatCompletionRequest,
        {
            "messages": [
                {"role": "developer", "content": "x"},
                {"role": "user", "content": [{"type": "text", "text": "x"}]},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
                {"role": "tool", "tool_call_id": "c", "content": "x"},
            ],
            "tools": [{"type": "function", "function": FUNCTION}],
            "tool_choice": "auto",
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
            "stop": ["x"],
            "logit_bias": {"1": 1},
            "logprobs": True,
            "top_logprobs": 1,
            "max_tokens": 1,
            "n": 1,
            **SAMPLING,
        },
    ),
    "/v1/completions": (
        CompletionRequest,
        {"prompt": ["x", "y"], "max_tokens": 1, "logprobs": 1, "echo": True, "stop": ["x"], **SAMPLING},
    ),
    "/v1/responses": (
        ResponseRequest,
        {
            "input": ITEMS,
            "instructions": "x",
            "tools": [{"type": "function", **FUNCTION}],
            "tool_choice": {"type": "function", "name": "f"},
            "text": {"format": {"type": "text"}, "verbosity": "low"},
            "reasoning": {"effort": "low"},
            "include": ["message.output_text.logprobs"],
            "max_output_tokens": 1,
            "truncation": "auto",
            "store": True,
            "background": False,
            **SAMPLING,
        },
    ),
    "/v1/responses/input_tokens": (InputTokensRequest, {"input": ITEMS, "tools": [{"type": "function", **FUNCTION}]}),
    "/v1/responses/compact": (CompactRequest, {"input": ITEMS, "instructions": "x", "service_tier": "default"}),
    "/v1/conversations": (ConversationRequest, {"items": ITEMS, "metadata": {"a": "b"}}),
    "/v1/conversations/{conversation}/items": (ConversationItemsRequest, {"items": ITEMS}),
    "/v1/embeddings": (EmbeddingRequest, {"model": "hash", "input": ["x", "y"], "encoding_format": "float", "user": "x"}),
    "/v1/rerank": (RerankRequest, {"model": "overlap", "query": "x", "documents": ["x", {"text": "y"}], "top_n": 1}),
    "/v1/batches": (
        BatchRequest,
        {"input_file_id": "file-0", "endpoint": "/v1/responses", "completion_window": "24h", "metadata": {"a": "b"}},
    ),
    "/v1/vector_stores": (
        VectorStoreRequest,
        {
            "name": "x",
            "metadata": {"a": "b"},
            "expires_after": {"anchor": "last_active_at", "days": 1},
            "chunking_strategy": {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 10}},
        },
    ),
    "/v1/tokenize": (TokenizeRequest, {"messages": [{"role": "user", "content": "x"}], "add_special_tokens": True}),
    "/v1/detokenize": (DetokenizeRequest, {"tokens": [1, 2]}),
}
# Of each form that JSON has, and what breaks parsers, headers and databases.
VALUES: list[Any] = [
    *(None, True, 0, -1, 2, 1.5, 10**40, 2**63, -1e308),
    *("", "x", "\x00", "\u2028\r\n", "é" * 300, "x" * 5000, "../..", "{}", "resp_0", "auto"),
    *([], [[]], [None], ["x"], [1], [{}], ["x"] * 300, {}, {"a": {}}, {"type": "x"}, {"type": ["x"]}, {"id": "x"}),
]


@pytest.fixture(scope="module")
def conversation(client: openai.OpenAI) -> str:
    return client.conversations.create().id


def paths(value: Any) -> Iterator[tuple[str | int, ...]]:
    """The places of all values within a value."""
    entries: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, entry in entries:
        yield (name,)
        yield from ((name, *rest) for rest in paths(entry))


def mutate(body: dict[str, Any], fields: list[str], chance: random.Random) -> tuple[dict[str, Any], str]:
    """The body with another value at some place, and the field that has the place."""
    mutated: Any = copy.deepcopy(body)
    place = chance.choice([*paths(body), *((name,) for name in fields)])
    target = mutated
    for part in place[:-1]:
        target = target[part]
    target[place[-1]] = chance.choice(VALUES)
    return mutated, str(place[0])


@pytest.mark.parametrize("count", [20, pytest.param(300, marks=pytest.mark.slow_fault)])
@pytest.mark.parametrize("path", REQUESTS)
def test_a_mutated_request_is_accepted_or_its_field_is_named(v1_stack: Stack, conversation: str, path: str, count: int) -> None:
    model, body = REQUESTS[path]
    fields, chance = sorted(model.known_fields()), random.Random(path)
    url = path.format(conversation=conversation)
    unnamed = []
    for _ in range(count):
        mutated, field = mutate(body, fields, chance)
        answer = v1_stack.client.post(url, content=json.dumps(mutated).encode(), headers={"Content-Type": "application/json"})
        assert answer.status_code in (200, 400, 403, 404, 409), (answer.status_code, answer.text[:500], field, mutated)
        if answer.status_code != 200:
            param = str(answer.json()["error"]["param"])
            if re.split(r"[.\[]", param)[0] not in fields:
                unnamed.append((param, field, answer.text[:300]))
        elif path == "/v1/vector_stores":
            v1_stack.client.delete(f"{path}/{answer.json()['id']}")
    assert not unnamed
