"""A job whose attempts die continues: clients read each piece of its answer once, and the result is that of one attempt."""

import random
from collections.abc import Mapping
from typing import Any

import pytest

from shared.errors import EngineFault
from shared.jobs.deltas import Delta, merge_deltas
from shared.jobs.transitions import Event
from shared.models.catalogue import ModelEntry
from tests.unit.scripted_engine import ENTRY, ScriptedEngine, generation_job, handler_of
from workers.runtime.attempt import Attempt, Result
from workers.runtime.event_buffer import EventBuffer

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {}}}}}]
CALLS = '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>' * 2
ANSWER = "  Grüße, 日本! 👩‍👩‍👧 and the end  "
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "prompt": ({"prompt": "x"}, ANSWER),
    "messages": ({"messages": [{"role": "user", "content": "x"}]}, ANSWER),
    "stop text": ({"prompt": "x", "stop": ["and the", "nd"]}, ANSWER),
    "echo with log-probabilities": ({"prompt": "abc", "echo": True, "logprobs": 1}, ANSWER),
    "log-probabilities up to a stop text": ({"prompt": "x", "logprobs": 2, "stop": ["and the"]}, ANSWER),
    "reasoning and calls": (
        {"messages": [{"role": "user", "content": "x"}], "tools": TOOLS},
        f"<think>\nWhere? < 5 </think>\n\nLet me see.\n{CALLS}",
    ),
    "held back at the end": ({"prompt": "x", "stop": ["end  ?", "\U0001f469?"]}, f"{ANSWER}\U0001f469"),
    "held back at the token limit": ({"prompt": "x", "stop": ["efgh"], "max_tokens": 7}, "abcdefghij"),
    "reasoning without an end": ({"messages": [{"role": "user", "content": "x"}]}, "<think>\nWhere? </thin"),
    "deterministic": ({"prompt": "x", "deterministic": True, "logprobs": 2, "stop": ["and the"]}, ANSWER),
    "deterministic calls": (
        {"messages": [{"role": "user", "content": "x"}], "tools": TOOLS, "deterministic": True, "max_tokens": 120},
        f"Let me see.\n{CALLS}",
    ),
    "token limit": ({"prompt": "x", "max_tokens": 7}, "abcdefghij"),
}


class Record:
    """The stream of a job, and what its next attempt gets."""

    def __init__(self, entry: ModelEntry = ENTRY) -> None:
        self.entry = entry
        self.delta: Delta = {}
        self.output = ""
        self.restarts = 0
        self.engines: list[ScriptedEngine] = []

    def write(self, events: list[Event]) -> None:
        for event in events:
            if event.type == "restart":
                self.restarts, self.delta, self.output = self.restarts + 1, {}, ""
            elif event.type == "delta":
                merge_deltas(self.delta, event.data)
                self.output += event.output

    def attempt(
        self, number: int, spec: Mapping[str, Any], engine: ScriptedEngine, choices: random.Random, *, dies_late: bool = False
    ) -> dict[str, Any] | None:
        """Run an attempt whose events are sometimes written. Returns its result, or None if its engine died."""
        self.engines.append(engine)
        handler = handler_of(engine, self.entry)
        job = generation_job(spec, attempt=number, output=self.output, has_deltas=bool(self.delta))

        def publish(buffer: EventBuffer) -> None:
            if choices.random() < 0.5:
                events = buffer.unwritten()
                self.write(events)
                buffer.drop_through(events[-1].index)

        attempt = Attempt(job, publish)
        try:
            result = handler.run_generation(attempt)
        except EngineFault:
            return None
        assert isinstance(result, Result)
        if dies_late and choices.random() < 0.5:
            # The worker dies between the end of the answer and that of the job.
            if choices.random() < 0.5:
                self.write(attempt.events.unwritten())
            return None
        self.write(attempt.events.unwritten())
        return dict(result.value)


def engine_of(answer: str, lifetime: int | None, choices: random.Random) -> ScriptedEngine:
    return ScriptedEngine(answer, lambda: choices.randint(1, 4), lifetime=lifetime)


@pytest.mark.parametrize("name", CASES)
def test_an_answer_is_the_same_however_often_its_engine_dies(name: str) -> None:
    spec, answer = CASES[name]
    choices = random.Random(7)
    whole = Record()
    expected = whole.attempt(1, spec, engine_of(answer, None, choices), choices)
    assert expected is not None
    for _ in range(25):
        record, number, result = Record(), 0, None
        while result is None:
            number += 1
            lifetime = choices.randint(0, 6) if number < 12 else None
            engine = engine_of(answer, lifetime, choices)
            result = record.attempt(number, spec, engine, choices, dies_late=number < 12)
        # Tokens that came in one step with the end of a stop text count too, and steps differ.
        usage = result.pop("usage")
        assert usage["prompt_tokens"] == expected["usage"]["prompt_tokens"]
        assert "stop" in spec or usage == expected["usage"]
        assert result == {key: value for key, value in expected.items() if key != "usage"}
        assert record.delta == whole.delta
        assert record.restarts == 0
        for engine in record.engines:
            for request in engine.requests:
                assert len(request.prompt) - request.generated_tokens == expected["usage"]["prompt_tokens"]


def test_output_that_continues_another_prompt_is_void() -> None:
    choices = random.Random(3)
    record = Record()
    while not record.output:
        record = Record()
        assert record.attempt(1, {"prompt": "before"}, engine_of(ANSWER, 6, choices), choices) is None
    result = record.attempt(2, {"prompt": "after"}, engine_of(ANSWER, None, choices), choices)
    assert result is not None
    assert record.restarts == 1
    assert record.delta == {"text": ANSWER}
    assert record.engines[-1].requests[0].generated_tokens == 0


@pytest.mark.parametrize(
    ("fields", "restarts"),
    [
        ({}, 0),
        ({"repetition_penalty": 1.2}, 0),
        ({"frequency_penalty": 0.5}, 1),
        ({"constraint": {"type": "json_object"}}, 1),
    ],
)
def test_vllm_continues_an_answer_unless_it_would_lose_count(fields: dict[str, Any], restarts: int) -> None:
    vllm = ModelEntry(name="m", url="/models/m", engine="vllm")
    spec, answer = {"prompt": "x", **fields}, '{"city": "Oslo", "rain": true}'
    choices = random.Random(3)
    record = Record(vllm)
    while not record.output:
        record = Record(vllm)
        assert record.attempt(1, spec, engine_of(answer, 4, choices), choices) is None
    result = record.attempt(2, spec, engine_of(answer, None, choices), choices)
    assert result is not None
    assert result["text"] == record.delta["text"] == answer
    assert record.restarts == restarts
    assert (record.engines[-1].requests[0].generated_tokens == 0) == bool(restarts)
