"""Models on servers: Enginehouse in front of another Enginehouse, whose processes are killed meanwhile."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import openai
import pytest

from testing.stack import HASH, QUICK, Stack
from testing.waiting import wait_until

TOKEN_SECONDS = 0.01
LONG = "word " * 60


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("remote"), token_seconds=TOKEN_SECONDS, environment=QUICK)
    try:
        yield stack.start()
    finally:
        stack.kill()


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory, remote: Stack) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("front"), environment={**QUICK, "ENGINEHOUSE_MAX_RETRIES": "20"})
    shared = {"url": f"{remote.url}/v1", "engine": "openai", "remote_model": "echo", "max_tokens": 64, "load": True}
    entries = [{"name": "far", "server": "enginehouse", "default": True, **shared}, {"name": "plain", **shared}, HASH]
    stack.models.write_text(json.dumps(entries))
    try:
        yield stack.start()
        assert stack.denied_commands() == []
    finally:
        stack.kill()


def answers(stack: Stack, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = stack.post(path, body)
    assert response.status_code == 200, response.text
    return dict(response.json())


TOOL = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
}
SCHEMA = {"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"], "additionalProperties": False}


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": "Hello"}], "logprobs": True, "top_logprobs": 1},
        {"messages": [{"role": "user", "content": "think: Hm.\nanswer: Yes."}]},
        {"messages": [{"role": "user", "content": 'call: add {"a": 1}'}], "tools": [TOOL]},
        {"messages": [{"role": "user", "content": "x"}], "tools": [TOOL], "tool_choice": "required"},
        {
            "messages": [{"role": "user", "content": "x"}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
        },
        {"messages": [{"role": "user", "content": "one two three"}], "stop": ["two"]},
        {"prompt": "Hello", "logprobs": 1, "top_k": 3, "min_p": 0.1},
        {"prompt": [72, 105], "echo": True, "max_tokens": 3},
        {"prompt": "a b c d", "max_tokens": 2},
    ],
)
def test_answers_are_those_of_the_server(front: Stack, remote: Stack, fields: dict[str, Any]) -> None:
    path = "/v1/chat/completions" if "messages" in fields else "/v1/completions"
    far, near = answers(front, path, fields), answers(remote, path, fields)
    for answer in (far, near):
        for call in answer["choices"][0].get("message", {}).get("tool_calls", ()):
            call["id"] = ""
    assert far["choices"] == near["choices"]
    assert far["usage"] == near["usage"]


def test_tokenizer_calls_reach_the_server(front: Stack, remote: Stack) -> None:
    for path, body in (("/tokenize", {"prompt": "hé", "return_token_strs": True}), ("/detokenize", {"tokens": [72, 105]})):
        assert answers(front, path, body) == answers(remote, path, body)
    far, near = (stack.client.get("/tokenizer_info").json() for stack in (front, remote))
    assert {**far, "model": ""} == {**near, "model": ""}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/completions", {"prompt": "x", "top_k": 3}, "top_k"),
        ("/v1/completions", {"prompt": [1, 2]}, "prompt"),
        ("/generate", {"prompt": "x", "top_k": 3}, "top_k"),
        ("/tokenize", {"prompt": "x"}, "model"),
    ],
)
def test_what_the_server_cannot_do_is_rejected_before_a_job_exists(
    front: Stack, path: str, body: dict[str, Any], param: str
) -> None:
    before = front.client.get("/jobs").json()["data"]
    response = front.post(path, {"model": "plain", **body})
    error = response.json()["error"]
    assert response.status_code == (400 if path.startswith(("/v1", "/tokenize")) else 422)
    assert (error["code"], error["param"]) == ("unsupported_by_engine", param)
    assert "engine openai (server generic)" in error["message"]
    assert front.client.get("/jobs").json()["data"] == before


def test_a_chat_session_has_its_history(front: Stack) -> None:
    session = front.post("/chat/start", {}).json()["sessionId"]
    replies = []
    for text in ("first", "second"):
        answer = front.post("/chat/message", {"sessionId": session, "message": text}).json()
        replies.append(answer["messages"][-1]["content"])
    assert "first" in replies[1]
    assert "second" in replies[1]


def test_a_cancel_reaches_the_server(front: Stack, remote: Stack) -> None:
    job = front.generate(LONG, max_tokens=64)
    wait_until(lambda: running(remote), "the server runs the job")
    front.post(f"/jobs/{job['id']}/cancel", {})
    assert front.ended(job["id"])["status"] == "cancelled"
    wait_until(lambda: not running(remote), "the server has stopped the job")
    assert remote.client.get("/jobs", params={"limit": 1}).json()["data"][0]["status"] == "cancelled"


def test_a_stream_goes_on_after_the_server_was_killed(front: Stack, remote: Stack) -> None:
    client = openai.OpenAI(base_url=f"{front.url}/v1", api_key="none", max_retries=0, timeout=120)
    pieces: list[str] = []
    with client, client.completions.create(model="far", prompt=LONG, max_tokens=200, stream=True) as stream:
        for chunk in stream:
            pieces += [choice.text for choice in chunk.choices]
            if len(pieces) == 5:
                kill_tree(remote.pid("api"))
    # The echo of the continued prompt begins with the prompt again.
    text = "".join(pieces)
    assert text in [LONG[:begun] + LONG[: 200 - begun] for begun in range(5, 200)]
    jobs = front.client.get("/jobs", params={"limit": 1}).json()["data"]
    assert [attempt["outcome"] for attempt in jobs[0]["attempts"]] == ["retried", "completed"]


def test_jobs_wait_for_a_server_that_is_away(front: Stack, remote: Stack) -> None:
    remote.stop()
    job = front.generate("Hello")
    wait_until(lambda: state(front, "far") == "loading", "the worker has noticed that its server is away")
    assert "waiting for the server" in front.client.get("/models").json()[0]["reason"]
    assert front.job(job["id"])["status"] != "failed"
    remote.start()
    assert front.ended(job["id"])["result"]["text"] == "Hello"
    wait_until(lambda: state(front, "far") == "ready", "the worker is ready again")


def running(stack: Stack) -> list[Any]:
    return list(stack.client.get("/jobs", params={"status": "in_progress"}).json()["data"])


def state(stack: Stack, model: str) -> str:
    return next(entry["state"] for entry in stack.client.get("/models").json() if entry["name"] == model)


def kill_tree(pid: int) -> None:
    import psutil

    for process in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
