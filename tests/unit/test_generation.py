"""Generations: tokens of the engine become deltas and a result, with the log-probabilities of exactly the text that counts."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from shared.errors import EngineFault, JobFailure, ModelUnavailable
from shared.jobs.deltas import Delta, merge_deltas
from shared.models.catalogue import ModelEntry
from tests.unit.runtime_fakes import ManualClock
from tests.unit.scripted_engine import ScriptedEngine, generation_job, handler_of
from workers.gpu.engine.messages import FinishReason
from workers.runtime.attempt import Attempt, Result
from workers.runtime.event_buffer import EventBuffer


def run(spec: Mapping[str, Any], engine: ScriptedEngine) -> tuple[dict[str, Any], Delta]:
    """The result of a job, and its deltas joined."""
    attempt = Attempt(generation_job(spec), lambda buffer: None)
    result = handler_of(engine).run_generation(attempt)
    assert isinstance(result, Result)
    whole: Delta = {}
    for event in attempt.events.unwritten():
        merge_deltas(whole, event.data)
    return dict(result.value), whole


def engine_with(answer: str, size: int, *, reason: FinishReason = "stop", has_logprobs: bool = True) -> ScriptedEngine:
    return ScriptedEngine(answer, lambda: size, reason=reason, has_logprobs=has_logprobs)


def tokens(entries: Sequence[Mapping[str, Any]]) -> bytes:
    return bytes(byte for entry in entries for byte in entry["bytes"])


@pytest.mark.parametrize("size", [1, 3, 100])
def test_every_token_has_its_log_probability(size: int) -> None:
    result, deltas = run({"prompt": "x", "logprobs": 1}, engine_with("hé!", size))
    assert result["text"] == deltas["text"] == "hé!"
    assert deltas["logprobs"] == result["logprobs"]
    assert tokens(result["logprobs"]) == "hé!".encode()
    first = result["logprobs"][0]
    assert first == {
        "token": "h",
        "id": 104,
        "logprob": -104.0,
        "bytes": [104],
        "top": [
            {"token": "h", "id": 104, "logprob": -104.0, "bytes": [104]},
            {"token": "\0", "id": 0, "logprob": -9999.0, "bytes": [0]},
        ],
    }


@pytest.mark.parametrize("size", [1, 2, 7, 100])
@pytest.mark.parametrize(
    ("stop", "kept"), [("three", "one two "), ("o", ""), (" two", "one"), ("xyz", "one two three four"), ("r", "one two th")]
)
def test_log_probabilities_end_where_a_stop_text_cuts(size: int, stop: str, kept: str) -> None:
    engine = engine_with("one two three four", size)
    result, deltas = run({"prompt": "x", "logprobs": 0, "stop": [stop]}, engine)
    assert result["text"] == deltas.get("text", "") == kept
    assert tokens(result["logprobs"]) == kept.encode() == tokens(deltas.get("logprobs", ()))
    assert bool(engine.cancelled) == (kept != "one two three four")


def test_the_prompt_has_log_probabilities_but_for_its_first_token() -> None:
    result, deltas = run({"prompt": "abc", "echo": True, "logprobs": 0, "max_tokens": 0}, engine_with("", 1))
    assert [item["logprob"] for item in result["prompt_logprobs"]] == [None, -98.0, -99.0]
    assert (result["text"], deltas["text"], result["logprobs"]) == ("abc", "abc", [])


def test_a_chat_keeps_the_log_probabilities_of_trimmed_text_and_markup() -> None:
    answer = "<think>\nHm.\n</think>\n\nYes. "
    result, deltas = run({"messages": [{"role": "user", "content": "?"}], "logprobs": 0}, engine_with(answer, 4))
    assert (result["text"], result["reasoning"]) == (deltas["text"], deltas["reasoning"]) == ("Yes.", "Hm.")
    assert tokens(result["logprobs"]) == answer.encode()


def test_an_engine_without_log_probabilities_still_answers() -> None:
    engine = engine_with("abc", 2, has_logprobs=False)
    result, _ = run({"prompt": "x", "logprobs": 1}, engine)
    assert (result["text"], result["logprobs"]) == ("abc", [])


def test_a_raw_prompt_is_continued_as_it_is() -> None:
    result, deltas = run({"prompt": "x"}, engine_with(" <think>a</think> ", 5))
    assert result["text"] == deltas["text"] == " <think>a</think> "


@pytest.mark.parametrize(("reason", "finish"), [("stop", "tool_calls"), ("length", "length")])
def test_calls_end_an_answer_that_was_not_cut(reason: FinishReason, finish: str) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    spec = {"messages": [{"role": "user", "content": "?"}], "tools": tools, "tool_choice": "required"}
    engine = engine_with('<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>', 9, reason=reason)
    result, deltas = run(spec, engine)
    [call] = result["tool_calls"]
    assert result["finish_reason"] == finish
    assert deltas["tool_calls"] == [{"index": 0, "id": call["id"], "name": "f", "arguments": "{}"}]
    assert "%json" in engine.requests[0].grammar


def test_an_answer_that_the_engine_lost_is_retried() -> None:
    with pytest.raises(EngineFault):
        run({"prompt": "x"}, engine_with("ab", 1, reason="lost"))


@pytest.mark.parametrize("reason", ["stop", "lost", "nan_logits"])
def test_an_attempt_counts_its_usage_however_it_ends(reason: FinishReason) -> None:
    attempt = Attempt(generation_job({"prompt": "abc"}), lambda buffer: None)
    with suppress(JobFailure):
        handler_of(engine_with("xyz", 1, reason=reason)).run_generation(attempt)
    assert (attempt.usage.prompt_tokens, attempt.usage.completion_tokens) == (3, 3)


def test_an_answer_that_was_complete_when_its_worker_died_counts() -> None:
    first = Attempt(generation_job({"prompt": "abc"}), lambda buffer: None)
    handler_of(engine_with("xyz", 3)).run_generation(first)
    output = "".join(event.output for event in first.events.unwritten())
    again = Attempt(replace(generation_job({"prompt": "abc"}), output=output), lambda buffer: None)
    handler_of(engine_with("", 3)).run_generation(again)
    assert (again.usage.prompt_tokens, again.usage.completion_tokens) == (3, 3)


def test_an_adapter_reaches_the_engine_and_must_still_exist() -> None:
    entry = ModelEntry(name="base", url="org/base", engine="vllm", adapters={"sql": "org/sql"})
    engine = engine_with("SELECT 1", 4)
    handler = handler_of(engine, entry)
    handler.run_generation(Attempt(generation_job({"prompt": "x"}, model="base:sql"), lambda buffer: None))
    handler.run_generation(Attempt(generation_job({"prompt": "x"}, model="base"), lambda buffer: None))
    assert [request.adapter for request in engine.requests] == ["sql", ""]
    with pytest.raises(ModelUnavailable, match="no longer has the adapter other"):
        handler.run_generation(Attempt(generation_job({"prompt": "x"}, model="base:other"), lambda buffer: None))


CHAT = {"messages": [{"role": "user", "content": "?"}]}


@pytest.mark.parametrize("spec", [CHAT, {**CHAT, "logprobs": 0}, {**CHAT, "stop": ["end"]}], ids=["plain", "logprobs", "stop"])
def test_the_request_of_a_batch_has_the_answer_of_any_other_job(spec: Mapping[str, Any]) -> None:
    answer = "<think>\nHm.\n</think>\n\nYes, héllo. end of it"
    whole, deltas = run(spec, engine_with(answer, 1))
    job = generation_job(spec, line_of="job_batch")
    attempt = Attempt(job, lambda buffer: None)
    result = handler_of(engine_with(answer, 1)).run_generation(attempt)
    assert isinstance(result, Result)
    assert result.value == whole
    [event] = attempt.events.unwritten()
    assert event.data == deltas


def test_tokens_of_a_batch_are_decoded_together_and_kept_if_the_engine_dies() -> None:
    attempt = Attempt(generation_job(CHAT, line_of="job_batch"), lambda buffer: None)
    with pytest.raises(EngineFault):
        handler_of(ScriptedEngine("0123456789", lambda: 1, lifetime=4)).run_generation(attempt)
    [event] = attempt.events.unwritten()
    assert event.data == {"text": "0123"}
    assert event.output.splitlines()[1:] == [str(list(b"0123"))], "one step"
    assert attempt.usage.completion_tokens == 4


def test_what_a_batch_has_generated_is_published_now_and_then() -> None:
    clock = ManualClock()
    published: list[EventBuffer] = []

    def one_token() -> int:
        clock.sleep(0.5)
        return 1

    attempt = Attempt(generation_job(CHAT, line_of="job_batch"), published.append, clock)
    handler_of(ScriptedEngine("0123456789", one_token)).run_generation(attempt)
    assert len(published) == 2
    [event] = attempt.events.unwritten()
    assert event.output.splitlines()[1:] == [str(list(text)) for text in (b"0123", b"4567", b"89")] + ['"stop"']


def test_what_nobody_follows_is_published_now_and_then_but_the_first_token_at_once() -> None:
    clock = ManualClock()
    published: list[tuple[float, EventBuffer]] = []
    start = clock()

    def one_token() -> int:
        clock.sleep(0.0625)
        return 1

    attempt = Attempt(generation_job(CHAT), lambda buffer: published.append((clock() - start, buffer)), clock)
    handler_of(ScriptedEngine("0123456789", one_token)).run_generation(attempt)
    assert [at for at, _ in published] == [0.0625, 0.3125, 0.5625]
    [event] = attempt.events.unwritten()
    assert event.output.splitlines()[1:] == [str(list(text)) for text in (b"0", b"1234", b"5678", b"9")] + ['"stop"']


@pytest.mark.parametrize("followed_from", ["before", "during"])
def test_what_a_client_follows_is_published_at_once(followed_from: str) -> None:
    clock = ManualClock()
    published: list[EventBuffer] = []
    given = iter(range(10))

    def one_token() -> int:
        clock.sleep(0.0625)
        if next(given) == 5:
            attempt.note_follower()
        return 1

    attempt = Attempt(generation_job(CHAT, followed=followed_from == "before"), published.append, clock)
    handler_of(ScriptedEngine("0123456789", one_token)).run_generation(attempt)
    assert len(published) == (10 if followed_from == "before" else 2 + 5)
