"""Every field that OpenAI's own client can send has a rule, and each rule does what it says."""

import json
from typing import Any, get_args, get_type_hints

import pytest
from openai.types import (
    completion_create_params,
    embedding_create_params,
    vector_store_create_params,
    vector_store_search_params,
)
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.conversations import conversation_create_params, conversation_update_params
from openai.types.responses import input_token_count_params, response_compact_params, response_create_params
from openai.types.vector_stores import file_batch_create_params, file_create_params
from pydantic import ValidationError

from shared.errors import InvalidValue
from shared.openai.requests import (
    ChatCompletionRequest,
    CompactRequest,
    CompletionRequest,
    ConversationChanges,
    ConversationItemsRequest,
    ConversationRequest,
    EmbeddingRequest,
    FileBatchRequest,
    InputTokensRequest,
    OpenAIRequest,
    RerankRequest,
    ResponseRequest,
    VectorStoreFileRequest,
    VectorStoreRequest,
    VectorStoreSearch,
)

REQUIRED: dict[type[OpenAIRequest], dict[str, Any]] = {
    ChatCompletionRequest: {"messages": [{"role": "user", "content": "x"}]},
    CompletionRequest: {"prompt": "x"},
    EmbeddingRequest: {"input": "x"},
    ResponseRequest: {"input": "x"},
    InputTokensRequest: {"input": "x"},
    CompactRequest: {"input": "x"},
    ConversationRequest: {},
    ConversationChanges: {},
    ConversationItemsRequest: {"items": [{"role": "user", "content": "x"}]},
    RerankRequest: {"query": "x", "documents": ["x"]},
    VectorStoreRequest: {},
    VectorStoreSearch: {"query": "x"},
    VectorStoreFileRequest: {"file_id": "x"},
    FileBatchRequest: {"file_ids": ["x"]},
}
CALLS: list[tuple[type[OpenAIRequest], list[Any]]] = [
    (ChatCompletionRequest, list(get_args(chat_create_params.CompletionCreateParams))),
    (CompletionRequest, list(get_args(completion_create_params.CompletionCreateParams))),
    (EmbeddingRequest, [embedding_create_params.EmbeddingCreateParams]),
    (ResponseRequest, list(get_args(response_create_params.ResponseCreateParams))),
    (InputTokensRequest, [input_token_count_params.InputTokenCountParams]),
    (ConversationRequest, [conversation_create_params.ConversationCreateParams]),
    (ConversationChanges, [conversation_update_params.ConversationUpdateParams]),
    (CompactRequest, [response_compact_params.ResponseCompactParams]),
    (VectorStoreRequest, [vector_store_create_params.VectorStoreCreateParams]),
    (VectorStoreSearch, [vector_store_search_params.VectorStoreSearchParams]),
    (VectorStoreFileRequest, [file_create_params.FileCreateParams]),
    (FileBatchRequest, [file_batch_create_params.FileBatchCreateParams]),
]
NEUTRAL = [(model, name, value) for model in REQUIRED for name, rule in model.neutral.items() for value in (None, *rule.values)]
FIELDS = [(model, name) for model, params in CALLS for name in sorted({name for call in params for name in get_type_hints(call)})]
# Of each form that a value of JSON can have, some of which a field refuses.
VALUES: list[Any] = [0, -1, 1.5, 10**40, True, "", "x", [], [1], ["x"], [[]], {}, {"a": 1}, {"type": "x"}]


@pytest.mark.parametrize(("model", "name"), FIELDS, ids=lambda value: getattr(value, "__name__", value))
def test_every_field_of_the_client_has_a_rule(model: type[OpenAIRequest], name: str) -> None:
    assert name in model.known_fields()


@pytest.mark.parametrize(("model", "name"), FIELDS, ids=lambda value: getattr(value, "__name__", value))
def test_a_field_is_accepted_or_refused_by_its_name(model: type[OpenAIRequest], name: str) -> None:
    assert {refused_field(model, name, value) for value in VALUES} <= {"", name}


def refused_field(model: type[OpenAIRequest], name: str, value: Any) -> str:
    """The field that a refusal of this value names; "" if it is accepted."""
    try:
        _, ignored = model.from_body({**REQUIRED[model], name: value})
    except InvalidValue as refused:
        return str(refused.param)
    except ValidationError as refused:
        return str(refused.errors()[0]["loc"][0])
    return ", ".join(ignored)


@pytest.mark.parametrize(
    ("model", "name", "value"),
    NEUTRAL,
    ids=lambda value: getattr(value, "__name__", json.dumps(value) if not isinstance(value, type) else ""),
)
def test_a_neutral_value_is_accepted(model: type[OpenAIRequest], name: str, value: Any) -> None:
    _, ignored = model.from_body({**REQUIRED[model], name: value})
    assert not ignored


@pytest.mark.parametrize("model", REQUIRED, ids=lambda model: model.__name__)
def test_null_means_missing_for_every_field(model: type[OpenAIRequest]) -> None:
    body = dict.fromkeys(model.known_fields() - REQUIRED[model].keys())
    request, ignored = model.from_body({**REQUIRED[model], **body})
    assert not ignored
    assert request == model.from_body(REQUIRED[model])[0]


@pytest.mark.parametrize("model", REQUIRED, ids=lambda model: model.__name__)
def test_every_rule_says_why(model: type[OpenAIRequest]) -> None:
    assert not model.harmless.keys() & model.neutral.keys() & model.model_fields.keys()
    texts = (
        [field.description for field in model.model_fields.values()]
        + list(model.harmless.values())
        + [rule.reason for rule in model.neutral.values()]
    )
    assert all(texts)


def test_other_names_are_listed_without_breaking_a_header() -> None:
    body = {**REQUIRED[EmbeddingRequest], "a,b": 1, "line\nend": 1, "ä": 1, "x" * 500: 1, "null": None}
    _, ignored = EmbeddingRequest.from_body(body)
    assert ignored == ["'a,b'", "'line\\nend'", "?", "x" * 40]
    assert len(EmbeddingRequest.from_body({"input": "x", **{f"f{n}": 1 for n in range(100)}})[1]) == 20
