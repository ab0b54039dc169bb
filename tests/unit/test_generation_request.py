"""Generation requests: each field of a spec reaches the engine, with the model's defaults, and bad ones are named."""

from typing import Any

import pytest

from shared.errors import InvalidValue, PromptTooLong
from shared.models.catalogue import ECHO, ModelEntry
from workers.gpu.engine.messages import GenerationRequest
from workers.gpu.generation_request import build_request
from workers.gpu.tokenization import TextCodec

ENTRY = ModelEntry(name="echo", url="echo:", engine=ECHO, max_context=100, max_tokens=40)
PROMPT = [104, 105]


def request_for(spec: dict[str, Any], prompt: list[int] = PROMPT, **attributes: Any) -> GenerationRequest:
    codec = TextCodec(ENTRY)
    for name, value in attributes.items():
        setattr(codec._tokenizer, name, value)
    return build_request("1", prompt, spec, owner="me", entry=ENTRY, codec=codec)


def test_an_empty_spec_is_neutral() -> None:
    request = request_for({"temperature": None, "stop_token_ids": None})
    assert (request.temperature, request.top_p, request.top_k, request.max_new_tokens) == (1.0, 1.0, 0, 40)
    assert (request.min_p, request.presence_penalty, request.frequency_penalty, request.repetition_penalty) == (0, 0, 0, 1)
    assert (request.logit_bias, request.ignore_stop_tokens, request.logprobs, request.prompt_logprobs) == ([], False, None, None)


def test_every_field_reaches_the_engine() -> None:
    spec = {
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 7,
        "seed": 3,
        "min_p": 0.1,
        "max_tokens": 9,
        "stop_token_ids": [5],
        "presence_penalty": 0.2,
        "frequency_penalty": -0.3,
        "repetition_penalty": 1.1,
        "logit_bias": {"65": -100.0},
        "logprobs": 0,
        "prompt_logprobs": 20,
    }
    request = request_for(spec, stop_token_ids=(3, 4))
    assert (request.temperature, request.top_p, request.top_k, request.seed, request.min_p) == (0.0, 0.5, 7, 3, 0.1)
    assert (request.presence_penalty, request.frequency_penalty, request.repetition_penalty) == (0.2, -0.3, 1.1)
    assert (request.logit_bias, request.logprobs, request.prompt_logprobs) == ([(65, -100.0)], 0, 20)
    assert (request.max_new_tokens, request.stop_token_ids) == (9, [3, 4, 5])


def test_the_model_has_defaults_of_its_own() -> None:
    own = {"temperature": 0.6, "top_k": 20}
    request = request_for({"temperature": None}, sampling_defaults=own)
    assert (request.temperature, request.top_p, request.top_k) == (0.6, 1.0, 20)
    assert request_for({"temperature": 0.0, "top_k": 0}, sampling_defaults=own).top_k == 0


def test_ignore_eos_leaves_only_the_stop_tokens_of_the_request() -> None:
    request = request_for({"ignore_eos": True}, stop_token_ids=(3,))
    assert (request.stop_token_ids, request.ignore_stop_tokens) == ([], True)
    request = request_for({"ignore_eos": True, "stop_token_ids": [9]}, stop_token_ids=(3,))
    assert (request.stop_token_ids, request.ignore_stop_tokens) == ([9], False)


def test_an_echo_with_logprobs_includes_the_prompt() -> None:
    request = request_for({"echo": True, "logprobs": 1, "max_tokens": 0}, prompt=[65] * 100)
    assert (request.prompt_logprobs, request.max_new_tokens) == (1, 0)


@pytest.mark.parametrize(
    ("spec", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 0, "echo": True}, "max_tokens"),
        ({"logprobs": 21}, "logprobs"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"logit_bias": {"256": 1}}, "logit_bias"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"stop_token_ids": [-1]}, "stop_token_ids"),
    ],
)
def test_a_bad_field_is_named(spec: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        request_for(spec)
    assert caught.value.param == param


def test_a_prompt_leaves_room_for_a_token() -> None:
    assert request_for({}, prompt=[65] * 99).max_new_tokens == 1
    with pytest.raises(PromptTooLong):
        request_for({}, prompt=[65] * 100)


def test_each_owner_has_a_cache_salt_of_its_own() -> None:
    def salt(owner: str) -> int:
        return build_request("1", PROMPT, {}, owner=owner, entry=ENTRY, codec=TextCodec(ENTRY)).cache_salt

    assert salt("ada") == salt("ada")
    assert len({salt(owner) for owner in ("", "ada", "bob", "local")}) == 4
