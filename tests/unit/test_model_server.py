"""Jobs on an OpenAI-compatible server that answers, refuses, breaks off and hangs: a real HTTP server with scripted answers."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from cli.local.redis_server import free_port
from shared.errors import EngineFault, InvalidValue, ModelUnavailable, PromptTooLong
from shared.jobs.deltas import Delta, merge_deltas
from shared.models.catalogue import ModelEntry
from shared.sessions.store import Sessions
from shared.settings import Settings
from testing.scripted_server import (
    Exchange,
    Script,
    ScriptedServer,
    broken_stream,
    chat_chunk,
    refuse,
    stream,
    text_chunk,
    usage_chunk,
)
from testing.waiting import wait_until
from tests.unit.scripted_engine import generation_job
from workers.gpu.model_server.connection import ServerAway, ServerConnection
from workers.gpu.model_server.generation import ServerGenerationHandler
from workers.gpu.model_server.server_worker import ServerModelWorker
from workers.runtime.attempt import Attempt, AttemptStopped, Result
from workers.runtime.worker_runtime import WorkerRuntime

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
HELLO = stream(
    chat_chunk({"role": "assistant", "content": "Hel"}), chat_chunk({"content": "lo"}, reason="stop"), usage_chunk(5, 2)
)


class Rig:
    """The handler of one model on a scripted server."""

    def __init__(self, server: ScriptedServer, cleanup: ExitStack, /, **fields: Any) -> None:
        self.server = server
        self.entry = ModelEntry.model_validate({"name": "m", "url": server.url, "engine": "openai", **fields})
        self.connection = ServerConnection(self.entry, hang_seconds=0.3)
        cleanup.callback(self.connection.close)
        self.handler = ServerGenerationHandler(self.entry, self.connection, cast(Sessions, None))

    def attempt(self, spec: Mapping[str, Any], earlier: Attempt | None = None) -> Attempt:
        """An attempt; it finds what an earlier one has stored."""
        fields: dict[str, Any] = {}
        if earlier is not None:
            events = earlier.events.unwritten()
            fields = {"output": "".join(event.output for event in events), "has_deltas": bool(events), "attempt": 2}
        return Attempt(generation_job(spec, **fields), lambda buffer: None)

    def run(self, spec: Mapping[str, Any], earlier: Attempt | None = None) -> tuple[dict[str, Any], Delta]:
        """The result of a job, and the deltas of this attempt joined."""
        attempt = self.attempt(spec, earlier)
        result = self.handler.run_generation(attempt)
        assert isinstance(result, Result)
        return dict(result.value), deltas_of(attempt)

    def fail(self, spec: Mapping[str, Any] = CHAT) -> Attempt:
        """An attempt that the server breaks off."""
        attempt = self.attempt(spec)
        with pytest.raises(EngineFault):
            self.handler.run_generation(attempt)
        return attempt


def deltas_of(attempt: Attempt) -> Delta:
    whole: Delta = {}
    for event in attempt.events.unwritten():
        if event.type == "delta":
            merge_deltas(whole, event.data)
    return whole


def restarts(attempt: Attempt) -> bool:
    return any(event.type == "restart" for event in attempt.events.unwritten())


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def serve(cleanup: ExitStack) -> Any:
    def start(*scripts: Script, **fields: Any) -> Rig:
        return Rig(cleanup.enter_context(ScriptedServer(*scripts)), cleanup, **fields)

    return start


def test_a_chat_is_streamed_and_counted(serve: Any) -> None:
    rig = serve(HELLO)
    result, deltas = rig.run(CHAT)
    assert (result["text"], result["finish_reason"], deltas["text"]) == ("Hello", "stop", "Hello")
    assert result["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    [request] = rig.server.requests
    assert request.path == "/v1/chat/completions"
    assert request.body == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 512,
        "messages": CHAT["messages"],
    }
    assert "authorization" not in request.headers


def test_the_key_comes_from_the_environment_or_a_file(serve: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rig = serve(HELLO, api_key_env="MY_KEY")
    with pytest.raises(ModelUnavailable, match="MY_KEY"):
        rig.run(CHAT)
    monkeypatch.setenv("MY_KEY", "sesame")
    rig.run(CHAT)
    file = tmp_path / "key"
    other = serve(HELLO, api_key_file=str(file))
    with pytest.raises(ModelUnavailable, match="api_key_file"):
        other.run(CHAT)
    for key in ("first\n", "second\n"):
        file.write_text(key)
        other.run(CHAT)
    assert [request.headers["authorization"] for request in (*rig.server.requests, *other.server.requests)] == [
        "Bearer sesame",
        "Bearer first",
        "Bearer second",
    ]


SAMPLING = {
    "temperature": 0.5,
    "top_p": 0.9,
    "seed": 3,
    "stop": ["x"],
    "max_tokens": 9,
    "logit_bias": {"7": 1.0},
    "presence_penalty": 0.1,
    "frequency_penalty": 0.2,
    "min_p": 0,
    "repetition_penalty": 1.2,
    "top_k": 4,
    "ignore_eos": False,
}


@pytest.mark.parametrize(
    ("server", "renamed"),
    [("vllm", {}), ("llama.cpp", {"repeat_penalty": 1.2}), ("openai", {"max_completion_tokens": 9})],
)
def test_sampling_fields_have_the_names_of_the_server(serve: Any, server: str, renamed: dict[str, Any]) -> None:
    rig = serve(HELLO, server=server, stop=["y"], remote_model="org/m")
    rig.run({**CHAT, **SAMPLING})
    body = rig.server.bodies[0]
    replaced = {"repeat_penalty": "repetition_penalty", "max_completion_tokens": "max_tokens"}
    for name, value in renamed.items():
        assert (body.pop(name), replaced[name] in body) == (value, False)
        body[replaced[name]] = value
    fields = {name: value for name, value in SAMPLING.items() if name not in ("min_p", "ignore_eos")} | {"stop": ["y", "x"]}
    assert {name: value for name, value in body.items() if name not in ("stream", "stream_options", "messages")} == {
        "model": "org/m",
        **fields,
    }


def test_tools_schemas_and_reasoning_are_passed_through(serve: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    calls = [
        {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a":'}},
        {"index": 0, "id": "", "function": {"name": None, "arguments": "1}"}},
    ]
    chunks = [
        chat_chunk({"reasoning_content": "Hm"}),
        chat_chunk({"reasoning": "."}),
        *(chat_chunk({"tool_calls": [call]}) for call in calls),
    ]
    schema = {"type": "json_schema", "schema": {"type": "object"}}
    rig = serve(stream(*chunks, chat_chunk({}, reason="stop")), HELLO)
    result, deltas = rig.run({**CHAT, "tools": [tool], "tool_choice": {"name": "f"}, "parallel_tool_calls": False})
    assert result["finish_reason"] == "tool_calls"
    assert result["reasoning"] == deltas["reasoning"] == "Hm."
    assert result["tool_calls"] == [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}]
    rig.run({**CHAT, "constraint": schema, "template_options": {"enable_thinking": False}})
    rig.run({**CHAT, "constraint": {"type": "json_object"}, "tools": [tool], "tool_choice": "none"})
    first, second, third = rig.server.bodies
    assert first["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert (first["tools"], first["parallel_tool_calls"]) == ([tool], False)
    assert second["response_format"]["json_schema"] == {"name": "answer", "strict": True, "schema": {"type": "object"}}
    assert second["chat_template_kwargs"] == {"enable_thinking": False}
    assert (third["response_format"], "tools" in third) == ({"type": "json_object"}, False)


def test_log_probabilities_have_our_form(serve: Any) -> None:
    content = [
        {"token": "é", "logprob": -0.5, "bytes": [195, 169], "top_logprobs": [{"token": "e", "logprob": -1.0, "bytes": None}]}
    ]
    legacy = {"tokens": ["a"], "token_logprobs": [-0.25], "top_logprobs": [{"a": -0.25, "b": -2.0}], "text_offset": [0]}
    rig = serve(
        stream(chat_chunk({"content": "é"}, reason="stop", logprobs={"content": content})),
        stream(text_chunk("a", reason="length", logprobs=legacy)),
    )
    chat, deltas = rig.run({**CHAT, "logprobs": 1})
    assert (
        chat["logprobs"]
        == deltas["logprobs"]
        == [{"token": "é", "logprob": -0.5, "bytes": [195, 169], "top": [{"token": "e", "logprob": -1.0, "bytes": [101]}]}]
    )
    text, _ = rig.run({"prompt": "x", "logprobs": 2, "echo": True})
    assert text["text"] == "xa"
    assert [entry["token"] for entry in text["logprobs"][0]["top"]] == ["a", "b"]
    assert (rig.server.bodies[0]["top_logprobs"], rig.server.bodies[1]["logprobs"]) == (1, 2)
    # A server that reports no usage.
    assert text["usage"] == {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_when_it_says(serve: Any, status: int) -> None:
    rig = serve(refuse(status, {"message": "slow down"}, retry_after="0.2"), refuse(429, retry_after="0.1"), HELLO)
    started = time.monotonic()
    assert rig.run(CHAT)[0]["text"] == "Hello"
    assert (len(rig.server.requests), time.monotonic() - started > 0.3) == (3, True)


def test_a_pause_holds_for_all_requests(serve: Any) -> None:
    rig = serve(refuse(429, retry_after="0.5"), HELLO)
    threads = [threading.Thread(target=rig.run, args=[CHAT])]
    threads[0].start()
    wait_until(lambda: rig.connection.pause_seconds, "the server has refused the first request")
    threads += [threading.Thread(target=rig.run, args=[CHAT]) for _ in range(3)]
    for thread in threads[1:]:
        thread.start()
    assert len(rig.server.requests) == 1
    for thread in threads:
        thread.join(10)
    assert len(rig.server.requests) == 5


@pytest.mark.parametrize(
    ("script", "error", "text"),
    [
        (refuse(400, {"message": "temperature is odd", "param": "temperature"}), InvalidValue, "temperature is odd"),
        (refuse(422, "unknown field"), InvalidValue, "unknown field"),
        (refuse(404, {"message": "no such path"}), InvalidValue, "no such path"),
        (refuse(400, {"message": "too long", "code": "context_length_exceeded"}), PromptTooLong, "too long"),
        (refuse(400, {"message": "This model's maximum context length is 9 tokens."}), PromptTooLong, "9 tokens"),
        (refuse(401, {"message": "bad key"}), ModelUnavailable, "bad key"),
        (refuse(429, {"message": "pay", "code": "insufficient_quota"}), ModelUnavailable, "no quota left: pay"),
        (refuse(429, "come tomorrow", retry_after="86400"), ServerAway, "refuses requests: come tomorrow"),
        (refuse(500, {"message": "it crashed"}), EngineFault, "it crashed"),
        (refuse(502), ServerAway, "status 502"),
        (refuse(503, {"message": "starting"}), ServerAway, "starting"),
        (stream({"error": {"message": "out of memory", "code": 500}}), EngineFault, "out of memory"),
        (stream({"error": {"message": "bad value", "code": 400}}), InvalidValue, "bad value"),
        (stream("{"), EngineFault, "not JSON"),
        (stream("[]"), EngineFault, "not an object"),
        (stream(chat_chunk({"content": "a"})), EngineFault, "no end"),
        (broken_stream(chat_chunk({"content": "a"})), EngineFault, "ended before"),
        (lambda exchange: exchange.drop(), EngineFault, "connection broke"),
    ],
)
def test_failures_of_the_server_are_errors_of_the_job(serve: Any, script: Script, error: type[Exception], text: str) -> None:
    rig = serve(script)
    with pytest.raises(error, match=text) as caught:
        rig.run(CHAT)
    assert type(caught.value) is error
    assert getattr(caught.value, "outage", False) is (error is ServerAway)


def test_a_key_that_a_server_repeats_is_hidden(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sesame")
    with pytest.raises(ModelUnavailable, match=r"wrong key \(key\)"):
        serve(refuse(401, {"message": "wrong key sesame"}), api_key_env="MY_KEY").run(CHAT)


def test_a_server_that_refuses_connections_is_an_outage(cleanup: ExitStack) -> None:
    rig = Rig(cleanup.enter_context(ScriptedServer()), cleanup, url=f"http://127.0.0.1:{free_port()}/v1")
    with pytest.raises(ServerAway, match="cannot be reached"):
        rig.run(CHAT)
    assert rig.connection.on_away.is_set()


def test_a_stream_that_hangs_is_given_up(serve: Any) -> None:
    def hang(exchange: Exchange) -> None:
        exchange.begin_stream()
        exchange.send_event(chat_chunk({"content": "a"}))
        exchange.server.is_closing.wait(10)

    with pytest.raises(EngineFault, match="nothing for too long"):
        serve(hang).run(CHAT)


@pytest.mark.parametrize("stage", ["queued", "streaming", "paused"])
def test_a_cancel_closes_the_connection(serve: Any, stage: str) -> None:
    gone = threading.Event()

    def answer(exchange: Exchange) -> None:
        exchange.begin_stream()
        if stage == "streaming":
            exchange.send_event(chat_chunk({"content": "a"}))
        exchange.wait_for_disconnect()
        gone.set()

    rig = serve(refuse(429, retry_after="60") if stage == "paused" else answer)
    attempt = rig.attempt(CHAT)
    raised: list[BaseException] = []

    def run() -> None:
        try:
            rig.handler.run_generation(attempt)
        except AttemptStopped as stop:
            raised.append(stop)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: rig.connection.pause_seconds if stage == "paused" else rig.server.requests, "the request has arrived")
    if stage == "streaming":
        wait_until(lambda: attempt.events.unwritten(), "the answer has begun")
    attempt.request_stop("cancel")
    thread.join(10)
    assert [str(error) for error in raised] == ["cancel"]
    assert stage == "paused" or gone.wait(10)


@pytest.mark.parametrize("echo", [False, True])
def test_the_text_of_a_raw_prompt_is_continued(serve: Any, echo: bool) -> None:
    spec = {"prompt": "Once", "max_tokens": 10, "echo": echo}
    rig = serve(
        broken_stream(text_chunk(" upon"), text_chunk(" a\u2028")), stream(text_chunk("time", reason="stop"), usage_chunk(12, 1))
    )
    first = rig.fail(spec)
    result, deltas = rig.run(spec, first)
    assert result["text"] == ("Once" if echo else "") + " upon a\u2028time"
    assert deltas == {"text": "time"}
    assert result["usage"] == {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
    assert (rig.server.bodies[1]["prompt"], rig.server.bodies[1]["max_tokens"]) == ("Once upon a\u2028", 8)


def test_a_chat_is_continued_where_the_server_can(serve: Any) -> None:
    count = {"tokens": [1, 2, 3], "count": 3}
    rig = serve(
        broken_stream(chat_chunk({"content": "Hello th"})), lambda exchange: exchange.send_json(count), HELLO, server="vllm"
    )
    result, deltas = rig.run(CHAT, rig.fail())
    assert (result["text"], deltas["text"], result["usage"]["completion_tokens"]) == ("Hello thHello", "Hello", 5)
    assert rig.server.requests[1].path == "/tokenize"
    body = rig.server.bodies[2]
    assert body["messages"] == [*CHAT["messages"], {"role": "assistant", "content": "Hello th"}]
    assert (body["continue_final_message"], body["add_generation_prompt"], body["max_tokens"]) == (True, False, 509)


@pytest.mark.parametrize(
    ("fields", "spec", "chunk"),
    [
        ({}, CHAT, chat_chunk({"content": "a"})),
        ({"server": "vllm"}, CHAT, chat_chunk({"reasoning": "a"})),
        ({"server": "vllm"}, {**CHAT, "constraint": {"type": "json_object"}}, chat_chunk({"content": "{"})),
        ({"server": "vllm"}, {"prompt_ids": [1, 2]}, text_chunk("a")),
    ],
)
def test_an_answer_that_cannot_be_continued_starts_again(serve: Any, fields: Any, spec: Any, chunk: Any) -> None:
    rig = serve(broken_stream(chunk), HELLO, **fields)
    second = rig.attempt(spec, rig.fail(spec))
    rig.handler.run_generation(second)
    assert restarts(second)
    assert deltas_of(second)["text"] == "Hello"
    assert rig.server.bodies[0] == rig.server.bodies[1]


def test_an_answer_that_had_all_its_tokens_ends(serve: Any) -> None:
    spec = {"prompt": "x", "max_tokens": 2}
    rig = serve(broken_stream(text_chunk("a"), text_chunk("b")))
    result, _ = rig.run(spec, rig.fail(spec))
    assert (result["text"], result["finish_reason"], len(rig.server.requests)) == ("ab", "length", 1)


def test_tokenizer_calls_of_llama_cpp_and_vllm(serve: Any) -> None:
    pieces = {"tokens": [{"id": 5, "piece": "h"}, {"id": 6, "piece": [195]}]}
    llama = serve(
        lambda exchange: exchange.send_json(pieces),
        lambda exchange: exchange.send_json({"content": "hé"}),
        server="llama.cpp",
    )
    run = lambda rig, spec: dict(rig.handler.run_tokenization(rig.attempt(spec)))  # noqa: E731
    assert run(llama, {"op": "tokenize", "prompt": "hé"}) == {"tokens": [5, 6], "token_strs": ["h", "�"], "max_model_len": None}
    assert run(llama, {"op": "detokenize", "tokens": [5, 6]}) == {"text": "hé"}
    assert [(request.path, request.body.get("content")) for request in llama.server.requests] == [
        ("/tokenize", "hé"),
        ("/detokenize", None),
    ]
    vllm = serve(
        lambda exchange: exchange.send_json({"tokens": [1], "token_strs": ["h"], "max_model_len": 64}),
        lambda exchange: exchange.send_json({"prompt": "h"}),
        server="vllm",
    )
    assert run(vllm, {"op": "tokenize", **CHAT}) == {"tokens": [1], "token_strs": ["h"], "max_model_len": 64}
    assert run(vllm, {"op": "detokenize", "tokens": [1]}) == {"text": "h"}


class RecordingRuntime:
    def __init__(self) -> None:
        self.statuses: list[tuple[str, str]] = []

    def update_status(self, *, phase: str, message: str, fraction: float) -> None:
        self.statuses.append((phase, message))

    @property
    def phase(self) -> str:
        return self.statuses[-1][0] if self.statuses else ""


@pytest.fixture
def watch(cleanup: ExitStack, tmp_path: Path) -> Any:
    def start(url: str, **fields: Any) -> tuple[ServerModelWorker, RecordingRuntime]:
        entry = ModelEntry.model_validate({"name": "m", "url": url, "engine": "openai", **fields})
        worker, runtime = ServerModelWorker(entry, Settings(data_dir=tmp_path)), RecordingRuntime()
        cleanup.callback(worker.unload_model)
        worker.begin_loading(cast(WorkerRuntime, runtime))
        return worker, runtime

    return start


def test_a_worker_is_ready_only_while_its_server_is(watch: Any, cleanup: ExitStack) -> None:
    server = cleanup.enter_context(ScriptedServer(HELLO))
    worker, runtime = watch(server.url)
    wait_until(lambda: runtime.phase == "ready", "the worker is ready")
    server.__exit__()
    attempt = Attempt(generation_job(CHAT), lambda buffer: None)
    with pytest.raises(ServerAway):
        worker.generate(attempt)
    wait_until(lambda: runtime.phase == "loading", "the worker has noticed the loss", seconds=4)
    assert "cannot be reached" in runtime.statuses[-1][1]
    assert worker.engine_details()["restarts"] == 1


def test_a_worker_claims_nothing_during_a_pause(watch: Any, cleanup: ExitStack) -> None:
    server = cleanup.enter_context(ScriptedServer(refuse(429, retry_after="2.5"), HELLO))
    worker, runtime = watch(server.url)
    wait_until(lambda: runtime.phase == "ready", "the worker is ready")
    result = worker.generate(Attempt(generation_job(CHAT), lambda buffer: None))
    assert result.value["text"] == "Hello"
    assert any(phase == "loading" and "rate limit" in message for phase, message in runtime.statuses)
    wait_until(lambda: runtime.phase == "ready", "the worker is ready again")


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"remote_model": "other"}, "no model 'other'"), ({"api_key_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE")],
)
def test_a_worker_of_a_wrong_entry_fails_its_jobs(watch: Any, cleanup: ExitStack, fields: Any, message: str) -> None:
    worker, runtime = watch(cleanup.enter_context(ScriptedServer(HELLO)).url, **fields)
    wait_until(lambda: runtime.phase == "failed", "the worker has failed")
    assert message in runtime.statuses[-1][1]
    with pytest.raises(ModelUnavailable, match=message):
        worker.generate(Attempt(generation_job(CHAT), lambda buffer: None))
