"""Engine process of a worker: it serves many requests, dies without its worker, and is restarted."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from shared.errors import EngineFault, ModelUnavailable
from shared.models.catalogue import ECHO, load_catalogue
from shared.settings import Settings
from testing.waiting import wait_until
from tests.flows.engine_outputs import PATIENCE, OutputRecorder
from workers.gpu.engine.messages import GenerationRequest
from workers.gpu.engine_client.engine_client import EngineClient, EngineState

# A process that starts is killed after this long without a heartbeat, and starting takes seconds on a busy machine.
HANG_SECONDS = 8.0


@pytest.fixture
def outputs() -> OutputRecorder:
    return OutputRecorder()


@pytest.fixture
def engine_of(tmp_path: Path, outputs: OutputRecorder) -> Iterator[Callable[..., EngineClient]]:
    started: list[EngineClient] = []

    def start(
        url: str = "echo:", engine: str = ECHO, hang_seconds: float = 60.0, in_flight: int = 8, **options: Any
    ) -> EngineClient:
        file = tmp_path / "models.json"
        entry = {"name": "m", "url": url, "engine": engine, "max_context": 2000, "max_in_flight": in_flight}
        file.write_text(json.dumps([entry]))
        settings = Settings(models_file=file, data_dir=tmp_path, engine_hang_seconds=hang_seconds)
        process = EngineClient(load_catalogue(file).get_model("m"), settings, on_step=outputs.on_step, **options)
        started.append(process)
        process.start_engine()
        return process

    yield start
    for process in started:
        process.stop_engine()


def request(id: str, text: str = "hello", **options: int) -> GenerationRequest:
    return GenerationRequest(id=id, prompt=[*text.encode()], max_new_tokens=options.get("limit", 1000), stop_token_ids=[])


def wait_gone(pid: int) -> None:
    wait_until(lambda: not psutil.pid_exists(pid) or is_zombie(pid), f"process {pid} has ended")


def is_zombie(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_concurrent_requests_each_get_their_own_tokens(engine_of: Callable[..., EngineClient], outputs: OutputRecorder) -> None:
    engine = engine_of()
    for number in range(50):
        engine.submit_request(request(f"r{number}", f"text {number}"), timeout=PATIENCE)
    for number in range(50):
        assert outputs.finish_reason(f"r{number}") == "stop"
        assert bytes(outputs.tokens[f"r{number}"]).decode() == f"text {number}"
    assert all(len(ends) == 1 for ends in outputs.ends.values())


def test_a_request_ends_at_its_token_limit(engine_of: Callable[..., EngineClient], outputs: OutputRecorder) -> None:
    engine_of().submit_request(request("r", "abcdef", limit=3), timeout=PATIENCE)
    assert outputs.finish_reason("r") == "length"
    assert bytes(outputs.tokens["r"]) == b"abc"


def test_a_prompt_longer_than_the_context_fails_alone(engine_of: Callable[..., EngineClient], outputs: OutputRecorder) -> None:
    engine = engine_of()
    engine.submit_request(request("long", "x" * 3000), timeout=PATIENCE)
    assert outputs.finish_reason("long") == "failed"
    assert "3000" in outputs.ends["long"][0][1]
    engine.submit_request(request("next"))
    assert outputs.finish_reason("next") == "stop"


def test_a_cancelled_request_ends_within_two_tokens(engine_of: Callable[..., EngineClient], outputs: OutputRecorder) -> None:
    engine = engine_of("echo:0.05")
    engine.submit_request(request("r", "x" * 500), timeout=PATIENCE)
    outputs.wait_for("first token", lambda: bool(outputs.tokens.get("r")))
    before = len(outputs.tokens["r"])
    engine.cancel_request("r")
    assert outputs.finish_reason("r") == "cancelled"
    assert len(outputs.tokens["r"]) <= before + 2


def test_a_killed_process_loses_its_requests_once_and_is_replaced(
    engine_of: Callable[..., EngineClient], outputs: OutputRecorder
) -> None:
    engine = engine_of("echo:0.05")
    engine.submit_request(request("held", "x" * 500), timeout=PATIENCE)
    outputs.wait_for("first token", lambda: bool(outputs.tokens.get("held")))
    first = engine.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert outputs.finish_reason("held") == "lost"
    engine.submit_request(request("after"), timeout=PATIENCE)
    assert outputs.finish_reason("after") == "stop"
    assert engine.pid not in (None, first)
    assert len(outputs.ends["held"]) == 1


def test_a_silent_process_is_killed_and_replaced(engine_of: Callable[..., EngineClient], outputs: OutputRecorder) -> None:
    states: list[EngineState] = []
    engine = engine_of("echo:0.05", hang_seconds=HANG_SECONDS, on_state=states.append)
    engine.submit_request(request("held", "x" * 500), timeout=PATIENCE)
    outputs.wait_for("first token", lambda: bool(outputs.tokens.get("held")))
    first = engine.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    assert outputs.finish_reason("held") == "lost"
    assert "sent no heartbeat" in outputs.ends["held"][0][1]
    assert any(state.phase == "stalled" and "with 1 requests in flight" in state.message for state in states)
    wait_gone(first)
    engine.submit_request(request("after"), timeout=PATIENCE)
    assert outputs.finish_reason("after") == "stop"


def test_a_process_that_recovers_in_time_is_kept(engine_of: Callable[..., EngineClient], outputs: OutputRecorder) -> None:
    changed = threading.Condition()
    phases: list[str] = []

    def on_state(state: EngineState) -> None:
        with changed:
            phases.append(state.phase)
            changed.notify_all()

    engine = engine_of("echo:0.05", hang_seconds=20.0, on_state=on_state)
    engine.submit_request(request("held", "x" * 60), timeout=PATIENCE)
    outputs.wait_for("first token", lambda: bool(outputs.tokens.get("held")))
    pid = engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    with changed:
        assert changed.wait_for(lambda: "stalled" in phases, PATIENCE)
    with pytest.raises(EngineFault, match="sent no heartbeat"):
        engine.submit_request(request("meanwhile"))
    os.kill(pid, signal.SIGCONT)
    engine.submit_request(request("later"), timeout=PATIENCE)
    assert outputs.finish_reason("later") == "stop"
    assert outputs.finish_reason("held") == "stop"
    assert engine.pid == pid
    assert phases[-2:] == ["stalled", "ready"]


def test_a_process_that_completes_no_step_is_killed(engine_of: Callable[..., EngineClient], outputs: OutputRecorder) -> None:
    engine = engine_of("echo:1000", hang_seconds=HANG_SECONDS)
    engine.submit_request(request("held"), timeout=PATIENCE)
    assert outputs.finish_reason("held") == "lost"
    assert "without completing a step" in outputs.ends["held"][0][1]


def test_waiting_requests_can_be_cancelled_and_survive_a_dead_process(
    engine_of: Callable[..., EngineClient], outputs: OutputRecorder
) -> None:
    engine = engine_of("echo:0.05", in_flight=1)
    for id in ("held", "waits", "abandoned"):
        engine.submit_request(request(id, "x" * 500 if id == "held" else "hello"), timeout=PATIENCE)
    outputs.wait_for("first token", lambda: bool(outputs.tokens.get("held")))
    engine.cancel_request("abandoned")
    assert outputs.ends["abandoned"] == [("cancelled", "")]
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    assert outputs.finish_reason("held") == "lost"
    assert outputs.finish_reason("waits") == "stop"
    assert bytes(outputs.tokens["waits"]) == b"hello"


def test_a_process_that_stops_reading_does_not_block_senders(
    engine_of: Callable[..., EngineClient], outputs: OutputRecorder
) -> None:
    engine = engine_of(hang_seconds=HANG_SECONDS, in_flight=1024)
    engine.wait_ready(PATIENCE)
    first = engine.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    accepted = [f"r{number}" for number in range(1024)]  # far more than the socket buffers, and within the limit in flight
    for id in accepted:
        engine.submit_request(request(id, "x" * 1000))
    assert engine.pid == first
    outputs.wait_for("end of every request", lambda: set(accepted) <= set(outputs.ends))
    assert {outputs.ends[id][0][0] for id in accepted} == {"lost"}
    engine.submit_request(request("after"), timeout=PATIENCE)
    assert outputs.finish_reason("after") == "stop"


def test_stopping_ends_the_process_and_loses_its_requests(
    engine_of: Callable[..., EngineClient], outputs: OutputRecorder
) -> None:
    engine = engine_of("echo:0.05")
    engine.submit_request(request("held", "x" * 500), timeout=PATIENCE)
    pid = engine.pid
    assert pid is not None
    engine.stop_engine()
    wait_gone(pid)
    assert outputs.finish_reason("held") == "lost"
    with pytest.raises(EngineFault, match="stopped"):
        engine.submit_request(request("late"), timeout=PATIENCE)


def test_the_process_ends_with_a_worker_that_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "models.json"
    file.write_text('[{"name": "m", "url": "echo:", "engine": "echo"}]')
    program = (
        "import sys; from pathlib import Path; from shared.models.catalogue import load_catalogue\n"
        "from shared.settings import Settings; from workers.gpu.engine_client.engine_client import EngineClient\n"
        "settings = Settings(models_file=Path(sys.argv[1]))\n"
        "engine = EngineClient(load_catalogue(settings.models_file).get_model('m'), settings, on_step=print)\n"
        "engine.start_engine(); engine.wait_ready(90); print(engine.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        assert "workers.gpu.engine" in Path(f"/proc/{pid}/cmdline").read_text()
        worker.kill()
        wait_gone(pid)


def test_a_model_that_cannot_be_loaded_rejects_requests_with_the_reason(engine_of: Callable[..., EngineClient]) -> None:
    engine = engine_of("/nowhere/at/all", "transformers")
    with pytest.raises(ModelUnavailable, match="/nowhere/at/all"):
        engine.submit_request(request("r"), timeout=PATIENCE)
    assert engine.state.phase == "failed"


def test_a_request_is_rejected_when_the_engine_is_not_ready_in_time(engine_of: Callable[..., EngineClient]) -> None:
    with pytest.raises(EngineFault, match="not ready"):
        engine_of().submit_request(request("r"), timeout=0.0)


def test_a_second_request_with_the_same_id_is_rejected(engine_of: Callable[..., EngineClient], outputs: OutputRecorder) -> None:
    engine = engine_of("echo:0.05")
    engine.submit_request(request("r", "x" * 500), timeout=PATIENCE)
    with pytest.raises(EngineFault, match="already running"):
        engine.submit_request(request("r"))
