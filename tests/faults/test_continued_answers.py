"""Answers of a model while its engine, worker and API are killed: each piece comes once, and they are those of an undisturbed run.

The model computes in float32, so that the batch in which a token is computed does not change it.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from enginehouse_client import Client, RetryPolicy
from shared.jobs.deltas import Delta, merge_deltas
from testing.fault_rig.processes import has_word
from testing.stack import QUICK, Stack, models
from testing.waiting import wait_until
from tests.flows.tiny_model import make_tiny_model, tiny_entry

pytest.importorskip("torch")

TEMPLATE = (
    "{% for tool in tools or [] %}{{ tool.function.name }} {% endfor %}{% for message in messages %}{{ message.content }}\n{% endfor %}"
    "{# <tool_call> </tool_call> #}"
)
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"terms": {"type": "array", "items": {"type": "integer"}, "minItems": 150, "maxItems": 200}},
            "required": ["terms"],
            "additionalProperties": False,
        },
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"numbers": {"type": "array", "items": {"enum": [1, 22, 333]}, "minItems": 150, "maxItems": 200}},
    "required": ["numbers"],
    "additionalProperties": False,
}
LENGTH = 400
AT_ONCE = 32
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
KINDS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "greedy": (CHAT, {"temperature": 0}),
    "sampled": (CHAT, {"temperature": 1.0, "top_p": 0.9}),
    "penalties": (CHAT, {"temperature": 0.8, "presence_penalty": 0.5, "frequency_penalty": 0.1, "logit_bias": {"65": 2}}),
    "schema": (
        CHAT,
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}}},
    ),
    "tool": (CHAT, {"tools": [TOOL], "tool_choice": "required"}),
    "log-probabilities": (TEXT, {"temperature": 0.7, "logprobs": 2}),
    "stop": (TEXT, {"temperature": 1.0, "stop": ["no such text", "\x00\x01\x02"]}),
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("continued")
    model = make_tiny_model(folder / "model", byte_level=True)
    environment = {"ENGINEHOUSE_MAX_RETRIES": "20", "ENGINEHOUSE_MAX_ATTEMPTS": "20"}
    stack = Stack(folder, environment={**QUICK, **environment})
    entries = models(0.0)
    entries[0] = tiny_entry(model, max_in_flight=16, chat_template=TEMPLATE)
    stack.models.write_text(json.dumps(entries))
    try:
        yield stack.start()
    finally:
        stack.kill()


def request_of(kind: str, number: int) -> tuple[str, dict[str, Any]]:
    path, options = KINDS[kind]
    content = f"Request number {number} of this test."
    source = {"messages": [{"role": "user", "content": content}]} if path == CHAT else {"prompt": content}
    return path, {"model": "tiny", "max_tokens": LENGTH, "seed": number, "stream": True, **source, **options}


@dataclass
class Stream:
    """One stream of ``/v1``: what its client has read until it ended or broke, and the id of its job."""

    kind: str
    number: int
    job: str = ""
    text: str = ""
    is_whole: bool = False
    is_over: bool = False
    errors: list[str] = field(default_factory=list)

    def read(self, stack: Stack) -> None:
        try:
            self._read(stack)
        finally:
            self.is_over = True

    def _read(self, stack: Stack) -> None:
        path, body = request_of(self.kind, self.number)
        with (
            suppress(httpx2.HTTPError),  # the API was killed
            httpx2.stream("POST", f"{stack.url}{path}", json=body, timeout=120) as response,
        ):
            if response.status_code != 200:
                self.errors.append(response.read().decode())
            self.job = response.headers.get("x-job-id", "")
            for line in response.iter_lines():
                if line == "data: [DONE]":
                    self.is_whole = True
                elif line.startswith("data: "):
                    self._take(json.loads(line.removeprefix("data: ")))

    def _take(self, chunk: Mapping[str, Any]) -> None:
        if "error" in chunk:
            self.errors.append(str(chunk["error"]))
        for choice in chunk.get("choices", ()):
            delta = choice.get("delta", {})
            self.text += str(choice.get("text") or delta.get("content") or "")
            for call in delta.get("tool_calls") or ():
                self.text += call["function"].get("arguments") or ""


def answer_of(stack: Stack, job: str) -> tuple[Delta, dict[str, Any]]:
    """All deltas of a job, and its result."""
    delta: Delta = {}
    with Client(stack.url, retry_policy=RetryPolicy(retries=40, max_delay=2.0)) as client:
        for event in client.stream(job):
            assert event.type != "restart"
            if event.type == "delta":
                merge_deltas(delta, event.data)
    result = dict(stack.ended(job)["result"])
    result.pop("usage")
    for call in (*delta.get("tool_calls", ()), *result.get("tool_calls", ())):
        call["id"] = "of this job"
    return {name: delta[name] for name in ("text", "tool_calls", "logprobs") if name in delta}, result


def check_scores(entries: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]]) -> None:
    """The same tokens, with the same log-probabilities up to rounding, which depends on the other requests of a step."""
    assert [entry["id"] for entry in entries] == [entry["id"] for entry in expected]
    assert [entry["logprob"] for entry in entries] == pytest.approx([entry["logprob"] for entry in expected], abs=1e-3)


def characters_read(streams: Sequence[Stream]) -> int:
    return sum(len(stream.text) for stream in streams)


def run_streams(stack: Stack, streams: list[Stream], interfere: Any = lambda: None) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        reads = [pool.submit(stream.read, stack) for stream in streams]
        interfere()
        for read in reads:
            read.result(600)


def victims(stack: Stack, name: str) -> list[psutil.Process]:
    worker = psutil.Process(stack.pid("gpu0"))
    if name == "worker":
        return [worker]
    if name == "engine":
        return [child for child in worker.children(recursive=True) if has_word(child, "workers.gpu.engine")]
    return psutil.Process(stack.pid("api")).children()


def is_ready(stack: Stack) -> bool:
    with suppress(httpx2.HTTPError):
        return stack.client.get("/health/ready").status_code == 200
    return False


@pytest.mark.parametrize(
    ("count", "deaths"),
    [
        pytest.param(7, ("engine",), marks=pytest.mark.slow_fault),
        pytest.param(200, ("engine", "worker", "api") * 8, marks=[pytest.mark.slow_fault, pytest.mark.timeout(1200)]),
    ],
    ids=["7", "200"],
)
def test_answers_are_those_of_an_undisturbed_run(stack: Stack, tmp_path: Path, count: int, deaths: tuple[str, ...]) -> None:
    kinds = list(KINDS)
    expected: dict[int, tuple[Delta, dict[str, Any]]] = {}
    undisturbed = [Stream(kinds[number % len(kinds)], number) for number in range(count)]
    run_streams(stack, undisturbed)
    for stream in undisturbed:
        assert stream.is_whole, (stream.kind, stream.errors)
        expected[stream.number] = answer_of(stack, stream.job)

    def interfere() -> None:
        choices = random.Random(count)
        for name in deaths:
            wait_until(lambda: is_ready(stack), "ready", seconds=120)
            # Somewhere in the middle of answers.
            read = characters_read(streams) + choices.randint(1, 1000)
            wait_until(
                lambda read=read: characters_read(streams) >= read or all(stream.is_over for stream in streams),
                "text",
                seconds=120,
            )
            with suppress(psutil.Error):
                for process in victims(stack, name):
                    process.kill()

    streams = [Stream(stream.kind, stream.number) for stream in undisturbed]
    run_streams(stack, streams, interfere)
    attempts = 0
    for stream in streams:
        assert not stream.errors
        assert stream.is_whole or "api" in deaths
        if not stream.job:
            continue  # the API was killed before it accepted the request
        delta, result = answer_of(stack, stream.job)
        attempts += len(stack.job(stream.job)["attempts"])
        expected_delta, expected_result = expected[stream.number]
        check_scores(delta.pop("logprobs", []), expected_delta.pop("logprobs", []))
        check_scores(result.pop("logprobs", []), expected_result.pop("logprobs", []))
        assert (delta, result) == (expected_delta, expected_result), stream.kind
        whole = delta.get("text", "") + "".join(call["arguments"] for call in delta.get("tool_calls", ()))
        assert whole.startswith(stream.text)
        assert not stream.is_whole or whole == stream.text
    assert attempts > count, "some were interrupted"
