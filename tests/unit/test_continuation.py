"""A job whose attempts die continues: clients read each piece of its answer once, and the result is that of one attempt."""

import random
import threading
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from shared.errors import EngineFault
from shared.jobs.deltas import Delta, merge_deltas
from shared.jobs.models import Job, Status
from shared.jobs.transitions import Event
from shared.models.catalogue import ECHO, ModelEntry
from shared.sessions.store import Sessions
from workers.gpu.engine.messages import GenerationRequest, StepOutput, TokenLogprobs
from workers.gpu.engine_client.engine_client import EngineClient
from workers.gpu.generation import GenerationHandler
from workers.gpu.tokenization import TextCodec
from workers.runtime.attempt import Attempt, Result
from workers.runtime.event_buffer import EventBuffer

ENTRY = ModelEntry(name="echo", url="echo:", engine=ECHO)
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
    "token limit": ({"prompt": "x", "max_tokens": 7}, "abcdefghij"),
}


class DyingEngine:
    """Generates the bytes of an answer in random steps. It dies after ``lifetime`` of them."""

    def __init__(self, answer: str, lifetime: int | None, choices: random.Random) -> None:
        self._answer, self._lifetime, self._choices = answer.encode(), lifetime, choices
        self.requests: list[GenerationRequest] = []
        self.on_step: Callable[[StepOutput], None] = lambda step: None

    def submit_request(self, request: GenerationRequest, *, timeout: float) -> None:
        self.requests.append(request)
        threading.Thread(target=self._run, args=[request], daemon=True).start()

    def cancel_request(self, id: str) -> None:
        pass

    def _run(self, request: GenerationRequest) -> None:
        if request.prompt_logprobs is not None:
            self.on_step(StepOutput([], [], prompt_logprobs=[(request.id, [entry(id) for id in request.prompt[1:]])]))
        ids = list(self._answer[request.generated_tokens : request.generated_tokens + request.max_new_tokens])
        steps = 0
        while ids and steps != self._lifetime:
            count = self._choices.randint(1, 4)
            new, ids = ids[:count], ids[count:]
            entries = [(request.id, [entry(id) for id in new])] if request.logprobs is not None else []
            self.on_step(StepOutput([(request.id, new)], [], logprobs=entries))
            steps += 1
        reason = "lost" if ids else "length" if request.max_new_tokens < len(self._answer) else "stop"
        self.on_step(StepOutput([], [(request.id, reason, "")]))  # type: ignore[list-item]


def entry(id: int) -> TokenLogprobs:
    return id, -float(id), [(id, -float(id)), (0, -99.0)]


class Record:
    """The stream of a job, and what its next attempt gets."""

    def __init__(self) -> None:
        self.delta: Delta = {}
        self.output = ""
        self.restarts = 0
        self.engines: list[DyingEngine] = []

    def write(self, events: list[Event]) -> None:
        for event in events:
            if event.type == "restart":
                self.restarts, self.delta, self.output = self.restarts + 1, {}, ""
            elif event.type == "delta":
                merge_deltas(self.delta, event.data)
                self.output += event.output

    def attempt(self, number: int, spec: Mapping[str, Any], engine: DyingEngine, choices: random.Random) -> dict[str, Any] | None:
        """Run an attempt whose events are sometimes written. Returns its result, or None if its engine died."""
        handler = GenerationHandler(ENTRY, TextCodec(ENTRY), cast(EngineClient, engine), cast(Sessions, None))
        engine.on_step = handler.on_step
        self.engines.append(engine)
        times = {"created_at": 0, "expires_at": 0, "phase_at": 0, "attempt": number}
        job = Job(
            id="job_1",
            kind="generate",
            owner="me",
            queue="gpu.echo",
            status=Status.IN_PROGRESS,
            phase="",
            spec=spec,
            output=self.output,
            has_deltas=bool(self.delta),
            **times,
        )

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
        self.write(attempt.events.unwritten())
        return dict(result.value)


@pytest.mark.parametrize("name", CASES)
def test_an_answer_is_the_same_however_often_its_engine_dies(name: str) -> None:
    spec, answer = CASES[name]
    choices = random.Random(7)
    whole = Record()
    expected = whole.attempt(1, spec, DyingEngine(answer, None, choices), choices)
    assert expected is not None
    for _ in range(25):
        record, number, result = Record(), 0, None
        while result is None:
            number += 1
            lifetime = choices.randint(0, 6) if number < 12 else None
            result = record.attempt(number, spec, DyingEngine(answer, lifetime, choices), choices)
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
        assert record.attempt(1, {"prompt": "before"}, DyingEngine(ANSWER, 6, choices), choices) is None
    result = record.attempt(2, {"prompt": "after"}, DyingEngine(ANSWER, None, choices), choices)
    assert result is not None
    assert record.restarts == 1
    assert record.delta == {"text": ANSWER}
    assert record.engines[-1].requests[0].generated_tokens == 0
