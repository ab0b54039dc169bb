"""Responses whose API, worker, engine and Redis die: each event of a stream comes once, and a conversation has each item once."""

import json
import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx2
import openai
import pytest
from openai import omit
from openai._models import construct_type
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent

from shared.redis_connection import PREFIX
from testing.fault_rig.duration import hold_fault
from testing.fault_rig.fault_stack import TEXT, FaultStack
from testing.fault_rig.processes import kill, process_tree
from testing.waiting import wait_until

STACK_OPTIONS = {"environment": {"ENGINEHOUSE_MAX_RETRIES": "40", "ENGINEHOUSE_MAX_ATTEMPTS": "40"}}
VICTIMS = ("api", "engine", "worker", "redis")
ARGUMENTS = {"city": "Rome", "when": TEXT}
DOCUMENT = "The archive is open on weekdays."
TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
ANSWERS: dict[str, dict[str, Any]] = {
    "text": {"input": TEXT * 8},
    "call": {"input": f"think: {TEXT}\ncall: weather {json.dumps(ARGUMENTS)}", "tools": [TOOL]},
    "log-probabilities": {"input": TEXT * 2, "include": ["message.output_text.logprobs"]},
}


class Reader:
    """A client that reads the stream of a response in pieces, each on a connection of its own."""

    def __init__(self, stack: FaultStack, body: dict[str, Any]) -> None:
        self._stack = stack
        self._body = {"model": "echo", "background": True, "stream": True, "max_output_tokens": 500, **body}
        self.events: list[dict[str, Any]] = []

    @property
    def id(self) -> str:
        return str(self.events[0]["response"]["id"])

    @property
    def is_over(self) -> bool:
        return bool(self.events) and self.events[-1]["type"] in ("response.completed", "response.failed", "response.incomplete")

    def create(self, limit: int) -> "Reader":
        self._read("POST", "/v1/responses", limit, json=self._body)
        assert self.events
        return self

    def read(self, limit: int) -> None:
        """Read up to ``limit`` more events. A broken connection, or a server that is away, is not an error."""
        if not self.is_over:
            after = {"stream": "true", "starting_after": self.events[-1]["sequence_number"]}
            self._read("GET", f"/v1/responses/{self.id}", limit, params=after)

    def _read(self, method: str, path: str, limit: int, **request: Any) -> None:
        with (
            suppress(httpx2.HTTPError),
            httpx2.stream(method, f"{self._stack.server.url}{path}", timeout=30, **request) as answer,
        ):
            assert answer.status_code in (200, 503), answer.read()
            for line in answer.iter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line.removeprefix("data: "))
                if event["type"] == "error":
                    assert event["code"] == "redis_unavailable", event
                    return
                self.events.append(event)
                limit -= 1
                if not limit or self.is_over:
                    return

    def check(self) -> None:
        assert [event["sequence_number"] for event in self.events] == list(range(len(self.events)))
        whole: list[dict[str, Any]] = []
        answer = self._stack.client.get(f"/v1/responses/{self.id}?stream=true")
        whole = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: {")]
        assert self.events == whole
        assert self.events[-1]["type"] == "response.completed"
        assert self.events[-1]["response"] == self._stack.client.get(f"/v1/responses/{self.id}").json()
        state: ResponseStreamState[None] = ResponseStreamState(input_tools=omit, text_format=omit)
        for event in self.events:
            state.handle_event(construct_type(type_=ResponseStreamEvent, value=event))  # type: ignore[arg-type]
        output = self.events[-1]["response"]["output"]
        if "include" in self._body and "tools" in self._body:
            assert [item["type"] for item in output] == ["file_search_call", "message"]
            annotations = output[1]["content"][0]["annotations"]
            assert output[0]["results"][0]["text"] == DOCUMENT
            assert {each["filename"] for each in annotations} == {"a.txt"}
            added = [event["annotation"] for event in self.events if event["type"] == "response.output_text.annotation.added"]
            assert added == annotations
        elif "tools" in self._body:
            assert json.loads(output[-1]["arguments"]) == ARGUMENTS
            assert output[0]["content"][0]["text"] == TEXT
        else:
            assert output[0]["content"][0]["text"] == f"user: {self._body['input']}"
        streamed = "".join(event["delta"] for event in self.events if event["type"] == "response.output_text.delta")
        assert streamed == "".join(part["text"] for item in output if item["type"] == "message" for part in item["content"])


def strike(stack: FaultStack, victim: str) -> None:
    match victim:
        case "api":
            for process in process_tree(stack.pid_of("api")):
                kill(process.pid)
        case "worker":
            kill(stack.pid_of("gpu0"))
        case "engine":
            kill(stack.engine_process().pid)
        case "redis":
            stack.kill_redis()
            hold_fault(0.5)
            stack.start_redis()


@pytest.mark.parametrize(
    ("victims", "count"),
    [(VICTIMS, 3), pytest.param(VICTIMS * 6, 30, marks=[pytest.mark.slow_fault, pytest.mark.timeout(900)])],
    ids=["short", "long"],
)
def test_a_stream_continues_after_any_death_with_each_event_once(stack: FaultStack, victims: tuple[str, ...], count: int) -> None:
    choices = random.Random(count)
    kinds = list(ANSWERS.values())
    readers = [Reader(stack, kinds[number % len(kinds)]).create(2) for number in range(count)]
    for reader in readers:
        stack.ledger.record_accepted(f"job_{reader.id.removeprefix('resp_')}")
    for victim in victims:
        for reader in choices.sample(readers, 3):
            reader.read(choices.randint(1, 5))
        strike(stack, victim)

    def finish() -> bool:
        for reader in readers:
            reader.read(10_000)
        return all(reader.is_over for reader in readers)

    wait_until(finish, "all streams have ended", seconds=300)
    for reader in readers:
        reader.check()
    attempts = [len(stack.read_job(f"job_{reader.id.removeprefix('resp_')}").attempts) for reader in readers]
    assert max(attempts) > 1, "some were interrupted"


@pytest.mark.slow_fault
def test_a_search_and_its_citations_continue_after_any_death(stack: FaultStack) -> None:
    _, ingest = stack.upload_file("cited", "a.txt", DOCUMENT.encode())
    stack.wait_for_end(ingest)
    store = next(each for each in stack.client.get("/v1/vector_stores").json()["data"] if each["name"] == "cited")
    tools = [{"type": "file_search", "vector_store_ids": [store["id"]]}]
    body = {"input": "When is the archive open?", "tools": tools, "include": ["file_search_call.results"]}
    readers = [Reader(stack, body).create(number + 1) for number in range(3)]
    for reader in readers:
        stack.ledger.record_accepted(f"job_{reader.id.removeprefix('resp_')}")
    for victim in ("io", "gpu0", "api"):
        for reader in readers:
            reader.read(2)
        for process in process_tree(stack.pid_of(victim)):
            kill(process.pid)

    def finish() -> bool:
        for reader in readers:
            reader.read(10_000)
        return all(reader.is_over for reader in readers)

    wait_until(finish, "all streams have ended", seconds=300)
    for reader in readers:
        reader.check()


@pytest.mark.slow_fault
@pytest.mark.parametrize("victims", [("api", "worker", "engine"), ("engine", "api", "worker")], ids=["api first", "engine first"])
def test_a_conversation_has_each_item_once_after_any_death(stack: FaultStack, victims: tuple[str, ...]) -> None:
    asked = ["Where is the archive of the town?", "And the library?", "Who knows?"]
    said: list[str] = []
    # The client repeats a request whose connection broke.
    with openai.OpenAI(base_url=f"{stack.server.url}/v1", api_key="anything", max_retries=20, timeout=60) as client:
        conversation = client.conversations.create().id
        for text, victim in zip(asked, victims, strict=True):
            said.append(respond_through_fault(stack, client, conversation, text, victim))
            read = said[:-1]
            turns = [f"user: {q}\nassistant: {a}\n" for q, a in zip(asked, read, strict=False)]
            assert said[-1] == f"{''.join(turns)}user: {text}", "the engine echoes what the model reads"
            expected = [each for turn in zip(asked, said, strict=False) for each in turn]
            items: Any = list(client.conversations.items.list(conversation, order="asc"))
            assert [item.content[0].text for item in items] == expected
            assert [item.role for item in items] == ["user", "assistant"] * len(said)
            assert len({item.id for item in items}) == len(items)


def respond_through_fault(stack: FaultStack, client: openai.OpenAI, conversation: str, text: str, victim: str) -> str:
    """The answer of a turn whose process ``victim`` is killed in the middle of it."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.responses.create, model="echo", input=text, conversation=conversation, max_output_tokens=500)
        job = wait_until(lambda: running_response(stack, conversation), "the turn runs")
        assert job is not None
        stack.ledger.record_accepted(job)
        wait_until(lambda: stack.read_job(job).first_token_at, "it has a first token")
        strike(stack, victim)
        response = answer.result(120)
    assert response.id == f"resp_{job.removeprefix('job_')}", "the repeated request starts no second turn"
    assert response.status == "completed"
    assert len(stack.read_job(job).attempts) == (1 if victim == "api" else 2)
    return response.output_text


def running_response(stack: FaultStack, conversation: str) -> str | None:
    """The job of the conversation's response that has not been added to it."""
    pending: Any = stack.direct.lrange(f"{PREFIX}conversation:{conversation}:pending", 0, -1)
    return str(pending[-1]) if pending else None
