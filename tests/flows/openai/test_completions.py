"""``POST /v1/completions`` and ``GET /v1/models`` by OpenAI's client."""

from typing import Any

import openai
import pytest

from testing.stack import Stack


def test_each_prompt_has_its_answers(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="echo", prompt=["one two", "three"], n=2)
    assert [(choice.index, choice.text) for choice in answer.choices] == [
        (0, "one two"),
        (1, "one two"),
        (2, "three"),
        (3, "three"),
    ]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 2 * answer.usage.prompt_tokens


def test_a_stream_of_several_prompts(client: openai.OpenAI) -> None:
    stream = client.completions.create(model="echo", prompt=["one", "two"], stream=True, stream_options={"include_usage": True})
    texts, reasons = ["", ""], ["", ""]
    chunks = list(stream)
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert (texts, reasons) == (["one", "two"], ["stop", "stop"])
    assert chunks[-1].usage is not None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt[1]"),
        ({"prompt": [[1], [-2]]}, "prompt[1][0]"),
        ({"prompt": ["a"] * 200, "n": 2}, "n"),
        ({"logprobs": 21}, "logprobs"),
        ({"stream": True, "echo": True, "logprobs": 1}, "stream"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_refusal_names_the_field(client: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(**{"model": "echo", "prompt": "x", **fields})
    assert refused.value.param == param


def test_neutral_values_are_accepted(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="echo", prompt="x", suffix="", best_of=1, stop="", logit_bias={}, max_tokens=-1, user=""
    )
    assert answer.choices[0].text == "x"


def test_models_are_listed_and_found(v1_stack: Stack, client: openai.OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}
    assert set(models) == {"echo", "hash", "overlap"}, "a model that no worker can load is left out"
    assert models["echo"].owned_by == "enginehouse"
    assert client.models.retrieve("echo") == models["echo"]
    # Its entry has no max_context.
    assert models["echo"].model_extra["max_model_len"] == 8192  # type: ignore[index]
    assert v1_stack.client.get("/tokenizer_info").json()["max_model_len"] == 8192
    assert client.models.retrieve("not-started").model_extra["state"] == "not_served"  # type: ignore[index]
    assert [model["name"] for model in v1_stack.client.get("/v1/models").json()["models"]] == ["echo", "hash", "overlap"]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nope")
    with pytest.raises(openai.InternalServerError, match="No worker serves"):
        client.completions.create(model="not-started", prompt="x")


@pytest.mark.parametrize("tokens", [[1, 2], [[1], [2]], [1.5], ["a", 1]])
def test_token_ids_are_refused_for_embeddings(client: openai.OpenAI, tokens: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False") as refused:
        client.embeddings.create(model="hash", input=tokens)
    assert refused.value.param == "input"


def test_embeddings_need_an_embedding_model_and_some_text(client: openai.OpenAI) -> None:
    for options, param in (
        ({"model": "echo", "input": "x"}, "model"),
        ({"model": "hash", "input": [""]}, "input[0]"),
        ({"model": "hash", "input": []}, "input"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            client.embeddings.create(**options)
        assert refused.value.param == param


def test_embeddings_in_both_forms(v1_stack: Stack, client: openai.OpenAI) -> None:
    texts = ["the archive", "the library"]
    asked = client.embeddings.with_raw_response.create(model="hash", input=texts)
    packed = asked.parse()
    plain = client.embeddings.create(model="hash", input=texts, encoding_format="float", dimensions=384)
    assert [item.index for item in packed.data] == [0, 1]
    assert [len(item.embedding) for item in plain.data] == [384, 384]
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding)
    assert packed.usage.total_tokens > 0
    assert v1_stack.job(asked.headers["x-job-id"])["kind"] == "embed"
    [single] = client.embeddings.create(model="hash", input="the archive").data
    # Asked for, the prefix of the model is added, and this one has none.
    for role in ("query", "passage", "document"):
        [same] = client.embeddings.create(model="hash", input="the archive", extra_body={"input_type": role}).data
        assert same.embedding == single.embedding
    with pytest.raises(openai.BadRequestError, match="input_type"):
        client.embeddings.create(model="hash", input="x", extra_body={"input_type": "title"})
    assert single.embedding == packed.data[0].embedding
    with pytest.raises(openai.BadRequestError, match="have 384 dimensions") as refused:
        client.embeddings.create(model="hash", input="x", dimensions=128)
    assert refused.value.param == "dimensions"
    with pytest.raises(openai.BadRequestError, match=r"text 1 has \d+ tokens, and model hash takes at most \d+") as refused:
        client.embeddings.create(model="hash", input=["x", "word " * 2000])
    assert refused.value.param == "input"


@pytest.mark.parametrize("root", ["", "/v1"])
def test_the_tokenizer_calls_have_the_form_that_lm_eval_reads(v1_stack: Stack, root: str) -> None:
    made = v1_stack.post(
        f"{root}/tokenize", {"prompt": "hi there", "add_special_tokens": False, "return_token_strs": True}
    ).json()
    assert made["count"] == len(made["tokens"]) == len(made["token_strs"])
    assert made["max_model_len"] > 0
    assert v1_stack.post(f"{root}/detokenize", {"tokens": made["tokens"]}).json() == {"prompt": "hi there"}
    chat = v1_stack.post(f"{root}/tokenize", {"messages": [{"role": "user", "content": "hi"}]}).json()
    assert chat["count"] > 2
    assert chat["token_strs"] is None
    info = v1_stack.client.get(f"{root}/tokenizer_info", params={"model": "echo"}).json()
    assert info["tokenizer_class"]
    assert v1_stack.client.get(f"{root}/tokenizer_info", params={"model": "hash"}).status_code == 400


def test_a_completion_of_token_ids_is_that_of_their_text(v1_stack: Stack, client: openai.OpenAI) -> None:
    ids = v1_stack.post("/tokenize", {"prompt": "by ids", "add_special_tokens": False}).json()["tokens"]
    answer = client.completions.create(model="echo", prompt=[ids, ids])
    assert [choice.text for choice in answer.choices] == ["by ids", "by ids"]
    assert client.completions.create(model="echo", prompt=ids, echo=True).choices[0].text == "by idsby ids"
