"""``enginehouse up``: startup checks, restarts of crashed processes, and a shutdown that leaves nothing running."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
import redis

from cli.local.redis_server import start_redis
from testing.stack import QUICK, Stack
from testing.waiting import wait_until


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path, environment=QUICK)
    stack.forked = False
    yield stack
    stack.kill()


def refusal(stack: Stack, *options: str, **environment: str) -> str:
    """The error of `up`: one sentence, with an exit status other than 0."""
    command = [sys.executable, "-m", "cli.main", "up", "--no-flower", *options]
    known = {"--data": stack.data, "--models": stack.models, "--port": stack.port}
    command += [str(word) for name, value in known.items() if name not in options for word in (name, value)]
    done = subprocess.run(command, env=stack.environment | environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode not in (0, None)
    assert done.stdout == ""
    [sentence] = done.stderr.splitlines()
    return sentence


def is_ready(stack: Stack) -> bool:
    try:
        return stack.client.get("/health/ready").status_code == 200
    except httpx2.TransportError:
        return False


def test_an_occupied_port_is_reported(own_stack: Stack) -> None:
    with socket.create_server(("127.0.0.1", own_stack.port)):
        assert f"Port {own_stack.port} " in refusal(own_stack)


def test_a_second_stack_on_the_same_data_folder_is_rejected(stack: Stack, own_stack: Stack) -> None:
    assert stack.process is not None
    sentence = refusal(own_stack, "--data", str(stack.data))
    assert f"(process {stack.process.pid}) is using the data folder {stack.data}" in sentence


def test_an_unreachable_redis_is_rejected(own_stack: Stack) -> None:
    assert "does not answer" in refusal(own_stack, "--redis", "redis://127.0.0.1:1/0")


def test_a_redis_that_evicts_is_rejected(own_stack: Stack, tmp_path: Path) -> None:
    server = start_redis(tmp_path / "redis")
    redis.Redis.from_url(server.url).config_set("maxmemory-policy", "allkeys-lru")
    assert "may evict jobs" in refusal(own_stack, "--redis", server.url)
    server.stop()


@pytest.mark.parametrize(
    ("text", "why"), [("[{", "invalid JSON"), ("[]", "at least one model"), ('[{"name": "a"}]', "url is missing")]
)
def test_an_invalid_models_file_is_rejected(own_stack: Stack, tmp_path: Path, text: str, why: str) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text(text)
    sentence = refusal(own_stack, "--models", str(broken))
    assert str(broken) in sentence
    assert why in sentence


def test_unknown_models_and_settings_are_rejected(own_stack: Stack) -> None:
    assert "no model 'huge'" in refusal(own_stack, "--model", "huge")
    assert "ENGINEHOUSE_PROT" in refusal(own_stack, ENGINEHOUSE_PROT="5001")


def test_readiness_is_logged_once(stack: Stack) -> None:
    line = f"Enginehouse is ready: {stack.url}"
    wait_until(lambda: line in stack.log.read_text().splitlines(), line)
    assert stack.log.read_text().count("is ready: ") == 1


def test_warnings_of_other_programs_do_not_hide_readiness(stack: Stack) -> None:
    assert "SecurityWarning" not in stack.log.read_text()
    assert "# WARNING" not in stack.log.read_text()


def test_the_state_file_lists_processes_and_is_private(stack: Stack) -> None:
    file = stack.data / "state.json"
    state = json.loads(file.read_text())
    assert state["api"] == stack.url
    assert set(state["processes"]) == {"redis", "chroma", "gpu0", "cpu", "io", "api"}
    assert all(psutil.pid_exists(pid) for pid in state["processes"].values())
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["io", "chroma", "redis", "api"])
def test_a_killed_process_is_restarted(stack: Stack, name: str) -> None:
    killed = stack.pid(name)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: stack.pids().get(name, killed) != killed, f"a new {name}")
    wait_until(lambda: is_ready(stack), "the stack is ready again")
    assert stack.ended(stack.generate("still here")["id"])["status"] == "completed"


def test_kill_9_leaves_no_process_and_loses_no_job(own_stack: Stack) -> None:
    own_stack.start()
    assert own_stack.process is not None
    done = own_stack.ended(own_stack.generate("before")["id"])
    family = psutil.Process(own_stack.process.pid).children(recursive=True)
    assert len(family) > 8, "the supervisor, six services, the processes of api and cpu, the engine"
    own_stack.process.kill()
    own_stack.process.wait()
    wait_until(lambda: not any(process.is_running() for process in family), "every descendant has ended")

    own_stack.start()
    assert own_stack.job(done["id"])["result"] == done["result"]
    family = psutil.Process(own_stack.process.pid).children(recursive=True)
    assert own_stack.stop() == 0
    assert not any(process.is_running() for process in family)
    assert not (own_stack.data / "state.json").exists()
