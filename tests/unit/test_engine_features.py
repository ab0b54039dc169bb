"""Fields that an engine cannot honour are rejected with the names of field and engine; values that change nothing are not."""

from typing import Any

import pytest

from shared.errors import InvalidValue
from shared.models.catalogue import ModelEntry
from shared.models.engine_features import SERVERS, UNSUPPORTED, check_generation, check_tokenization

LOCAL = ModelEntry(name="m", url="echo:0", engine="echo")


def on_server(server: Any) -> ModelEntry:
    return ModelEntry(name="m", url="http://host/v1", engine="openai", server=server)


@pytest.mark.parametrize(
    ("server", "spec", "param"),
    [
        ("generic", {"prompt": "x", "top_k": 5}, "top_k"),
        ("generic", {"messages": [], "min_p": 0.1}, "min_p"),
        ("generic", {"messages": [], "repetition_penalty": 1.1}, "repetition_penalty"),
        ("generic", {"messages": [], "template_options": {"enable_thinking": False}}, "chat_template_kwargs"),
        ("generic", {"prompt_ids": [1]}, "prompt"),
        ("openai", {"prompt": "x"}, "prompt"),
        ("openai", {"messages": [], "stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ("llama.cpp", {"messages": [], "stop_token_ids": [2]}, "stop_token_ids"),
        ("sglang", {"prompt_ids": [1], "echo": True}, "echo"),
        ("vllm", {"prompt": "x", "echo": True, "logprobs": 0, "prompt_logprobs": 0}, "logprobs"),
    ],
)
def test_a_field_that_a_server_does_not_know_is_rejected(server: str, spec: dict[str, Any], param: str) -> None:
    check_generation(LOCAL, spec)
    with pytest.raises(InvalidValue, match=rf"^{param}: model 'm' runs on engine openai \(server {server}\)") as caught:
        check_generation(on_server(server), spec)
    assert (caught.value.param, caught.value.code) == (param, UNSUPPORTED)


def test_a_field_that_vllm_cannot_honour_is_rejected() -> None:
    vllm = ModelEntry(name="m", url="/models/m", engine="vllm")
    everything = {"messages": [], "top_k": 5, "min_p": 0.1, "logprobs": 3, "prompt_logprobs": 1, "seed": 7, "ignore_eos": True}
    check_generation(vllm, {**everything, "deterministic": False})
    with pytest.raises(InvalidValue, match=r"^deterministic: model 'm' runs on engine vllm, which cannot compute") as caught:
        check_generation(vllm, {**everything, "deterministic": True})
    assert (caught.value.param, caught.value.code) == ("deterministic", UNSUPPORTED)


@pytest.mark.parametrize("server", SERVERS)
def test_values_that_change_nothing_are_accepted(server: str) -> None:
    neutral = {
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "stop_token_ids": [],
        "ignore_eos": False,
        "template_options": {},
    }
    check_generation(on_server(server), {"messages": [], **neutral, "temperature": 0.0, "logprobs": 0, "stop": None})
    check_generation(on_server(server), {"prompt": "x", "collection": "col_1", "top_k": None})


def test_tokenizer_calls_that_a_server_does_not_have_are_rejected() -> None:
    for operation in ("tokenize", "detokenize", "info"):
        check_tokenization(LOCAL, operation)
        check_tokenization(on_server("enginehouse"), operation)
        with pytest.raises(InvalidValue, match=f"does not support the tokenizer call '{operation}'"):
            check_tokenization(on_server("generic"), operation)
    check_tokenization(on_server("vllm"), "detokenize")
