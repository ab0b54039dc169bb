"""Answers from documents: questions that are rewritten before the search, and answers that need no model."""

from dataclasses import replace
from typing import Any

import pytest

from shared.errors import EngineFault, OutOfMemory
from tests.unit.runtime_fakes import queued_job
from workers.gpu.document_answers import (
    NOT_IN_THE_DOCUMENTS,
    answer_not_found,
    needs_rewriting,
    refuses_to_answer,
    rewrite_question,
)
from workers.io.retrieval import relevant_passages
from workers.rag_prompt import Passage
from workers.runtime.attempt import Attempt, AttemptStopped, Result

CHAT = [
    {"role": "user", "content": "Who built the mill at Ravenholm?"},
    {"role": "assistant", "content": "Ada Byron built it in 1834 [1]."},
    {"role": "user", "content": "And how high is it?"},
]


def attempt(**fields: Any) -> Attempt:
    job = replace(queued_job(), spec={"messages": CHAT, "rewrite": True}, **fields)
    return Attempt(job, publish=lambda events: None)


def rewritten(answer: str, messages: list[dict[str, str]] = CHAT) -> Any:
    prompts = []

    def generate(hidden: Attempt) -> Result:
        prompts.append(hidden.spec["messages"][0]["content"])
        hidden.send_delta({"text": answer})
        return Result(value={"text": answer})

    handover = rewrite_question(attempt(), messages, generate, {"stop": ["x"]})
    assert handover.queue == "io"
    assert all("Ada Byron built it" in prompt and prompt.endswith("Last question: And how high is it?") for prompt in prompts)
    return handover.context["question"], handover.context["rewritten"]


def test_a_question_that_follows_others_is_rewritten() -> None:
    assert needs_rewriting(attempt())
    assert rewritten("How high is the mill at Ravenholm?") == ("How high is the mill at Ravenholm?", True)
    assert rewritten('\n"How high is the mill at Ravenholm?"\n\nI hope so.') == ("How high is the mill at Ravenholm?", True)
    for context in ({"question": "x", "rewritten": True}, {"passages": []}):
        assert not needs_rewriting(attempt(context=context))


def test_the_tokens_of_a_rewriting_are_used_by_its_job() -> None:
    def generate(hidden: Attempt) -> Result:
        hidden.usage.completion_tokens = 9
        return Result(value={"text": "How high is the mill at Ravenholm?"})

    asking = attempt()
    rewrite_question(asking, CHAT, generate, {})
    assert asking.usage.completion_tokens == 9


@pytest.mark.parametrize(
    "answer",
    ["", "\n", "The mill is 40 metres high.", "What is the capital of France?", "How high is the mill " + "very " * 200 + "?"],
    ids=["empty", "blank", "an answer", "another subject", "too long"],
)
def test_the_message_is_searched_for_if_the_model_returns_something_else(answer: str) -> None:
    assert rewritten(answer) == ("And how high is it?", False)


def test_a_first_question_is_not_rewritten() -> None:
    def generate(hidden: Attempt) -> Result:
        raise AssertionError("the model was asked")

    assert rewrite_question(attempt(), CHAT[:1], generate, {}).context == {"question": CHAT[0]["content"], "rewritten": False}


def test_a_rewriting_that_fails_costs_the_rewriting_alone() -> None:
    def generate(hidden: Attempt) -> Result:
        raise OutOfMemory("out of memory")

    assert rewrite_question(attempt(), CHAT, generate, {}).context == {"question": "And how high is it?", "rewritten": False}

    def die(hidden: Attempt) -> Result:
        raise EngineFault("dead")

    with pytest.raises(EngineFault):
        rewrite_question(attempt(), CHAT, die, {})


def test_a_cancelled_job_stops_while_its_question_is_rewritten() -> None:
    job = attempt()

    def generate(hidden: Attempt) -> Result:
        job.request_stop("timeout")
        hidden.raise_if_stopped()
        raise AssertionError("it went on")

    with pytest.raises(AttemptStopped) as stopped:
        rewrite_question(job, CHAT, generate, {})
    assert stopped.value.reason == "timeout"


def test_an_answer_says_that_the_documents_have_none() -> None:
    context = {"passages": [], "retrieval": {"query": "how high", "refused": True, "warnings": []}}
    job = attempt(context=context)
    assert refuses_to_answer(job)
    value = answer_not_found(job).value
    assert (value["text"], value["grounded"], value["citations"]) == (NOT_IN_THE_DOCUMENTS, False, [])
    assert (value["usage"]["total_tokens"], value["retrieval"]["query"]) == (0, "how high")
    assert not refuses_to_answer(attempt(context={"passages": [], "retrieval": {"refused": False}}))


def test_passages_below_the_minimum_are_left_out() -> None:
    def hit(position: int, similarity: float | None, rerank_score: float | None = None) -> Passage:
        place: dict[str, Any] = {"document_id": "d", "document": "a", "page": 1, "start": 0, "end": 1, "text": "x", "score": 1.0}
        return Passage(**place, position=position, similarity=similarity, rerank_score=rerank_score)

    def kept(*hits: Passage, minimum: float) -> list[int]:
        return [passage.position for passage in relevant_passages(hits, minimum)]

    assert kept(hit(0, 0.8), hit(1, 0.2), hit(2, None), minimum=0.5) == [0, 2]
    assert kept(hit(0, 0.4), hit(1, None), minimum=0.5) == []
    assert kept(hit(0, None), minimum=0.5) == [0]  # by words alone
    assert kept(hit(0, 0.1, 0.9), hit(1, 0.9, 0.1), minimum=0.5) == [0]
    assert kept(hit(0, -0.2), minimum=0) == [0]
