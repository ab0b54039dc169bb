"""A worker's engine is a process of its own: it serves many requests, dies alone, and is started again."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.errors import EngineFault, ModelUnavailable
from shared.models.catalogue import ECHO, load_catalogue
from shared.settings import Settings
from tests.flows.engine_outputs import PATIENCE, Answers
from workers.gpu.engine.messages import GenerationRequest
from workers.gpu.engine_client.engine_client import EngineClient, EngineState


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def engine_of(tmp_path: Path, answers: Answers) -> Iterator[Callable[..., EngineClient]]:
    started: list[EngineClient] = []

    def start(
        url: str = "echo:", engine: str = ECHO, hang_seconds: float = 60.0, in_flight: int = 8, **options: Any
    ) -> EngineClient:
        file = tmp_path / "models.json"
        entry = {"name": "m", "url": url, "engine": engine, "max_context": 2000, "max_in_flight": in_flight}
        file.write_text(json.dumps([entry]))
        settings = Settings(models_file=file, data_dir=tmp_path, engine_hang_seconds=hang_seconds)
        process = EngineClient(load_catalogue(file).get("m"), settings, on_step=answers.on_step, **options)
        started.append(process)
        process.start()
        return process

    yield start
    for process in started:
        process.close()


def ask(id: str, text: str = "hello", **options: int) -> GenerationRequest:
    return GenerationRequest(id=id, prompt=[*text.encode()], max_new_tokens=options.get("limit", 1000), stop_token_ids=[])


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2:3]:
        assert time.monotonic() < deadline, f"process {pid} is still there"
        threading.Event().wait(0.02)


def test_many_requests_are_answered_at_once_each_with_its_own_tokens(
    engine_of: Callable[..., EngineClient], answers: Answers
) -> None:
    engine = engine_of()
    for number in range(50):
        engine.submit(ask(f"r{number}", f"text {number}"), timeout=PATIENCE)
    for number in range(50):
        assert answers.end(f"r{number}") == "stop"
        assert bytes(answers.tokens[f"r{number}"]).decode() == f"text {number}"
    assert all(len(ends) == 1 for ends in answers.ends.values())


def test_an_answer_ends_at_its_limit(engine_of: Callable[..., EngineClient], answers: Answers) -> None:
    engine_of().submit(ask("r", "abcdef", limit=3), timeout=PATIENCE)
    assert answers.end("r") == "length"
    assert bytes(answers.tokens["r"]) == b"abc"


def test_a_prompt_longer_than_the_context_fails_and_hangs_nothing(
    engine_of: Callable[..., EngineClient], answers: Answers
) -> None:
    engine = engine_of()
    engine.submit(ask("long", "x" * 3000), timeout=PATIENCE)
    assert answers.end("long") == "failed"
    assert "3000" in answers.ends["long"][0][1]
    engine.submit(ask("next"))
    assert answers.end("next") == "stop"


def test_a_cancelled_request_ends_within_two_tokens(engine_of: Callable[..., EngineClient], answers: Answers) -> None:
    engine = engine_of("echo:0.05")
    engine.submit(ask("r", "x" * 500), timeout=PATIENCE)
    answers.until("first token", lambda: bool(answers.tokens.get("r")))
    before = len(answers.tokens["r"])
    engine.cancel("r")
    assert answers.end("r") == "cancelled"
    assert len(answers.tokens["r"]) <= before + 2


def test_what_a_killed_process_held_is_lost_once_and_the_next_process_serves(
    engine_of: Callable[..., EngineClient], answers: Answers
) -> None:
    engine = engine_of("echo:0.05")
    engine.submit(ask("held", "x" * 500), timeout=PATIENCE)
    answers.until("first token", lambda: bool(answers.tokens.get("held")))
    first = engine.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert answers.end("held") == "lost"
    engine.submit(ask("after"), timeout=PATIENCE)
    assert answers.end("after") == "stop"
    assert engine.pid not in (None, first)
    assert len(answers.ends["held"]) == 1


def test_a_process_that_falls_silent_is_killed_and_replaced(engine_of: Callable[..., EngineClient], answers: Answers) -> None:
    states: list[EngineState] = []
    engine = engine_of("echo:0.05", hang_seconds=4.0, on_state=states.append)
    engine.submit(ask("held", "x" * 500), timeout=PATIENCE)
    answers.until("first token", lambda: bool(answers.tokens.get("held")))
    first = engine.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    assert answers.end("held") == "lost"
    assert "no sign of life" in answers.ends["held"][0][1]
    assert any(state.phase == "stalled" and "with 1 requests in flight" in state.message for state in states)
    wait_gone(first)
    engine.submit(ask("after"), timeout=PATIENCE)
    assert answers.end("after") == "stop"


def test_a_process_that_comes_back_in_time_is_left_alone(engine_of: Callable[..., EngineClient], answers: Answers) -> None:
    changed = threading.Condition()
    phases: list[str] = []

    def on_state(state: EngineState) -> None:
        with changed:
            phases.append(state.phase)
            changed.notify_all()

    engine = engine_of("echo:0.05", hang_seconds=10.0, on_state=on_state)
    engine.submit(ask("held", "x" * 60), timeout=PATIENCE)
    answers.until("first token", lambda: bool(answers.tokens.get("held")))
    pid = engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    with changed:
        assert changed.wait_for(lambda: "stalled" in phases, PATIENCE)
    with pytest.raises(EngineFault, match="no sign of life"):
        engine.submit(ask("meanwhile"))
    os.kill(pid, signal.SIGCONT)
    engine.submit(ask("later"), timeout=PATIENCE)
    assert answers.end("later") == "stop"
    assert answers.end("held") == "stop"
    assert engine.pid == pid
    assert phases[-2:] == ["stalled", "ready"]


def test_a_process_that_lives_and_makes_no_step_is_killed(engine_of: Callable[..., EngineClient], answers: Answers) -> None:
    engine = engine_of("echo:1000", hang_seconds=3.0)
    engine.submit(ask("held"), timeout=PATIENCE)
    assert answers.end("held") == "lost"
    assert "no step" in answers.ends["held"][0][1]


def test_what_waits_for_its_turn_is_cancelled_at_once_and_outlives_a_dead_process(
    engine_of: Callable[..., EngineClient], answers: Answers
) -> None:
    engine = engine_of("echo:0.05", in_flight=1)
    for id in ("held", "waits", "gives up"):
        engine.submit(ask(id, "x" * 500 if id == "held" else "hello"), timeout=PATIENCE)
    answers.until("first token", lambda: bool(answers.tokens.get("held")))
    engine.cancel("gives up")
    assert answers.ends["gives up"] == [("cancelled", "")]
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    assert answers.end("held") == "lost"
    assert answers.end("waits") == "stop"
    assert bytes(answers.tokens["waits"]) == b"hello"


def test_senders_are_not_held_for_ever_by_a_process_that_reads_nothing(
    engine_of: Callable[..., EngineClient], answers: Answers
) -> None:
    engine = engine_of(hang_seconds=3.0, in_flight=1024)
    engine.wait_ready(PATIENCE)
    first = engine.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    taken: list[str] = []
    filler = "x" * 1000

    def submit_until_refused() -> None:
        for number in range(1024):  # far more than the pipe holds, and no more than may be in flight
            engine.submit(ask(f"r{number}", filler))
            taken.append(f"r{number}")

    with pytest.raises(EngineFault):
        submit_until_refused()
    assert taken
    answers.until("end of all", lambda: set(taken) <= set(answers.ends))
    assert {answers.ends[id][0][0] for id in taken} == {"lost"}
    engine.submit(ask("after"), timeout=PATIENCE)
    assert answers.end("after") == "stop"


def test_closing_ends_the_process_and_loses_what_it_held(engine_of: Callable[..., EngineClient], answers: Answers) -> None:
    engine = engine_of("echo:0.05")
    engine.submit(ask("held", "x" * 500), timeout=PATIENCE)
    pid = engine.pid
    assert pid is not None
    engine.close()
    wait_gone(pid)
    assert answers.end("held") == "lost"
    with pytest.raises(EngineFault, match="stopped"):
        engine.submit(ask("late"), timeout=PATIENCE)


def test_the_process_ends_with_a_worker_that_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "models.json"
    file.write_text('[{"name": "m", "url": "echo:", "engine": "echo"}]')
    program = (
        "import sys; from pathlib import Path; from shared.models.catalogue import load_catalogue\n"
        "from shared.settings import Settings; from workers.gpu.engine_client.engine_client import EngineClient\n"
        "settings = Settings(models_file=Path(sys.argv[1]))\n"
        "engine = EngineClient(load_catalogue(settings.models_file).get('m'), settings, on_step=print)\n"
        "engine.start(); engine.wait_ready(60); print(engine.pid, flush=True); sys.stdin.read()"
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


def test_a_model_that_cannot_be_loaded_is_refused_with_its_reason(engine_of: Callable[..., EngineClient]) -> None:
    engine = engine_of("/nowhere/at/all", "transformers")
    with pytest.raises(ModelUnavailable, match="/nowhere/at/all"):
        engine.submit(ask("r"), timeout=PATIENCE)
    assert engine.state.phase == "failed"


def test_a_request_is_refused_when_the_engine_is_not_ready_in_time(engine_of: Callable[..., EngineClient]) -> None:
    with pytest.raises(EngineFault, match="not ready"):
        engine_of().submit(ask("r"), timeout=0.0)


def test_two_requests_of_one_id_are_not_mixed(engine_of: Callable[..., EngineClient], answers: Answers) -> None:
    engine = engine_of("echo:0.05")
    engine.submit(ask("r", "x" * 500), timeout=PATIENCE)
    with pytest.raises(EngineFault, match="running"):
        engine.submit(ask("r"))
