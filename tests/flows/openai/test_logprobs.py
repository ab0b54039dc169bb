"""Log-probabilities in both of OpenAI's forms, and in the way in which lm-eval reads them."""

from typing import Any

import openai
import pytest

from testing.stack import Stack
from tests.flows.openai.conftest import user


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_has_scores_of_each_token(client: openai.OpenAI, stream: bool) -> None:
    options: Any = {"model": "echo", "messages": user("hi"), "logprobs": True, "top_logprobs": 2, "max_tokens": 100}
    if stream:
        choices = [chunk.choices[0] for chunk in client.chat.completions.create(**options, stream=True)]
        text = "".join(choice.delta.content or "" for choice in choices)
    else:
        choices = client.chat.completions.create(**options).choices
        text = choices[0].message.content or ""
    scores = [token for choice in choices if choice.logprobs for token in choice.logprobs.content or ()]
    # The last line end is a token of the answer, and no part of its text.
    assert "".join(score.token for score in scores).rstrip() == text == "user: hi"
    assert all(score.logprob <= 0 and 1 <= len(score.top_logprobs) <= 2 for score in scores)
    assert bytes(byte for score in scores for byte in score.bytes or ()).rstrip() == text.encode()


def test_no_scores_are_sent_unless_they_are_asked_for(client: openai.OpenAI) -> None:
    assert client.chat.completions.create(model="echo", messages=user("hi")).choices[0].logprobs is None
    plain = client.chat.completions.create(model="echo", messages=user("hi"), logprobs=True).choices[0].logprobs
    assert plain is not None
    assert all(token.top_logprobs == [] for token in plain.content or ())


def test_a_prompt_is_scored_as_lm_eval_asks(v1_stack: Stack, client: openai.OpenAI) -> None:
    context, ending = (
        v1_stack.post("/tokenize", {"prompt": text, "add_special_tokens": False}).json()["tokens"] for text in ("one ", "two")
    )
    answer = client.completions.create(
        model="echo", prompt=[context + ending] * 2, max_tokens=1, logprobs=1, echo=True, temperature=0, seed=1234
    )
    for choice in answer.choices:
        scores = choice.logprobs
        assert scores is not None
        assert scores.token_logprobs is not None
        assert scores.top_logprobs is not None
        assert len(scores.token_logprobs) == len(context + ending) + 1
        assert scores.token_logprobs[0] is None
        own, top = scores.token_logprobs[len(context) : -1], scores.top_logprobs[len(context) : -1]
        assert len(own) == len(ending)
        assert all(score is not None and score <= max(best.values()) for score, best in zip(own, top, strict=True))
        assert choice.text.startswith("one two")
        assert scores.text_offset == list(range(len(context + ending) + 1))


def test_a_prompt_alone_is_scored_without_an_answer(client: openai.OpenAI) -> None:
    [choice] = client.completions.create(model="echo", prompt="one two", max_tokens=0, logprobs=0, echo=True).choices
    assert choice.text == "one two"
    assert choice.logprobs is not None
    assert len(choice.logprobs.token_logprobs or ()) == 7


def test_a_stream_of_a_completion_has_scores(client: openai.OpenAI) -> None:
    chunks = list(client.completions.create(model="echo", prompt="one two", logprobs=1, stream=True))
    scores = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
    assert "".join(token for score in scores for token in score.tokens or ()) == "one two"
    assert [offset for score in scores for offset in score.text_offset or ()] == list(range(7))
