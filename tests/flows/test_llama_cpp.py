"""Jobs on a real llama.cpp server, which is killed in the middle of an answer."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest

from cli.local.redis_server import free_port
from shared.errors import EngineFault, PromptTooLong
from shared.jobs.deltas import Delta, merge_deltas
from shared.models.catalogue import ModelEntry
from shared.sessions.store import Sessions
from testing.repository import REPOSITORY
from testing.waiting import wait_until
from tests.unit.scripted_engine import generation_job
from workers.gpu.model_server.connection import ServerConnection
from workers.gpu.model_server.generation import ServerGenerationHandler
from workers.runtime.attempt import Attempt, AttemptStopped, Result

pytest.importorskip("xllamacpp")

CHAT = {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0.0}


class LlamaServer:
    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "testing.llama_cpp_server", str(self.folder), str(self.port)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)
        wait_until(self._is_ready, f"llama.cpp is ready (its log: {self.folder}/log)")

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
        with suppress(httpx2.HTTPError):
            return httpx2.get(f"{self.url}/models", trust_env=False).status_code == 200
        return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    server = LlamaServer(tmp_path_factory.mktemp("llama"))
    yield server
    server.kill()


@pytest.fixture
def handler(server: LlamaServer) -> Iterator[ServerGenerationHandler]:
    entry = ModelEntry(name="tiny", url=server.url, engine="openai", server="llama.cpp", max_tokens=12)
    connection = ServerConnection(entry, hang_seconds=30)
    yield ServerGenerationHandler(entry, connection, cast(Sessions, None))
    connection.close()


def run(handler: ServerGenerationHandler, spec: Mapping[str, Any], **job: Any) -> tuple[dict[str, Any], Delta]:
    attempt = Attempt(generation_job(spec, **job), lambda buffer: None)
    result = handler.run_generation(attempt)
    assert isinstance(result, Result)
    whole: Delta = {}
    for event in attempt.events.unwritten():
        merge_deltas(whole, event.data)
    return dict(result.value), whole


def test_answers_have_text_usage_and_log_probabilities(handler: ServerGenerationHandler) -> None:
    for spec in (CHAT, {"prompt": "Hi", "temperature": 0.0}):
        plain, deltas = run(handler, spec)
        assert (len(plain["text"]), deltas["text"], plain["finish_reason"]) == (12, plain["text"], "length")
        assert plain["usage"]["completion_tokens"] == 12
        assert plain["usage"]["prompt_tokens"] == (20 if spec is CHAT else 2)
        scored, _ = run(handler, {**spec, "logprobs": 2})
        assert scored["text"] == plain["text"] == "".join(entry["token"] for entry in scored["logprobs"])
        assert [entry["id"] for entry in scored["logprobs"]] == list(plain["text"].encode())
        assert all(len(entry["top"]) == 2 for entry in scored["logprobs"])
        stopped, _ = run(handler, {**spec, "stop": [plain["text"][4:6]]})
        assert (stopped["text"], stopped["finish_reason"]) == (plain["text"][:4], "stop")


def test_sampling_fields_and_schemas_take_effect(handler: ServerGenerationHandler) -> None:
    drawn = {"prompt": "Hi", "temperature": 1.5, "top_k": 50, "min_p": 0.01, "repetition_penalty": 1.2, "seed": 4}
    assert run(handler, drawn)[0]["text"] == run(handler, drawn)[0]["text"]
    assert run(handler, {**drawn, "top_k": 1})[0]["text"] == run(handler, {**drawn, "top_k": 1, "seed": 9})[0]["text"]
    biased, _ = run(handler, {**CHAT, "logit_bias": {str(ord("Z")): 100.0}, "max_tokens": 3})
    assert biased["text"] == "ZZZ"
    schema = {"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"], "additionalProperties": False}
    forced, _ = run(handler, {**CHAT, "constraint": {"type": "json_schema", "schema": schema}, "max_tokens": 60})
    assert forced["text"].replace(" ", "").replace("\n", "").startswith('{"a":1')
    tokens, _ = run(handler, {"prompt_ids": list(b"Hi"), "temperature": 0.0, "echo": True})
    assert tokens["text"] == "Hi" + run(handler, {"prompt": "Hi", "temperature": 0.0})[0]["text"]


def test_tokenizer_calls(handler: ServerGenerationHandler) -> None:
    def tokenize(spec: Mapping[str, Any]) -> dict[str, Any]:
        return dict(handler.run_tokenization(Attempt(generation_job(spec), lambda buffer: None)))

    assert tokenize({"op": "tokenize", "prompt": "hé"})["tokens"] == list("hé".encode())
    assert tokenize({"op": "detokenize", "tokens": list("hé".encode())}) == {"text": "hé"}
    chat = tokenize({"op": "tokenize", "messages": CHAT["messages"]})
    assert chat["tokens"] == list(b"user: Hi\nassistant: ")


def test_a_prompt_that_does_not_fit_has_our_error(handler: ServerGenerationHandler) -> None:
    with pytest.raises(PromptTooLong, match="exceeds the available context"):
        run(handler, {"prompt": "x" * 6000})


def test_a_cancel_frees_the_slot(handler: ServerGenerationHandler, server: LlamaServer) -> None:
    attempt = Attempt(generation_job({**CHAT, "max_tokens": 2000, "ignore_eos": True}), lambda buffer: None)
    attempt.on_stop(lambda: None)

    def stop_when_begun(buffer: Any) -> None:
        attempt.request_stop("cancel")

    attempt._publish = stop_when_begun
    with pytest.raises(AttemptStopped):
        handler.run_generation(attempt)
    assert len(server_slots(server)) == 2
    wait_until(lambda: not any(slot["is_processing"] for slot in server_slots(server)), "llama.cpp has stopped the request")


@pytest.mark.parametrize("spec", [{"prompt": "Hi", "temperature": 0.0}, CHAT])
def test_an_answer_goes_on_after_the_server_was_killed(
    handler: ServerGenerationHandler, server: LlamaServer, spec: dict[str, Any]
) -> None:
    spec = {**spec, "max_tokens": 600, "ignore_eos": True}
    whole = run(handler, spec)[0]["text"]

    def kill_when_begun(buffer: Any) -> None:
        server.kill()

    attempt = Attempt(generation_job(spec), lambda buffer: None)
    attempt._publish = kill_when_begun
    with pytest.raises(EngineFault):
        handler.run_generation(attempt)
    server.start()
    events = attempt.events.unwritten()
    begun = "".join(event.data.get("text", "") for event in events)
    result, deltas = run(handler, spec, output="".join(event.output for event in events), has_deltas=True, attempt=2)
    assert 0 < len(begun) < 600
    assert result["text"] == begun + deltas["text"] == whole
    assert result["usage"]["completion_tokens"] == 600


def server_slots(server: LlamaServer) -> list[dict[str, Any]]:
    return list(httpx2.get(server.url.removesuffix("/v1") + "/slots", trust_env=False).json())
