"""What is started, and with which settings: the one place that says how."""

import json
from pathlib import Path

import pytest

from cli.commands import api_command, environment_of, served_model, worker_command
from cli.redis_server import without_password
from cli.refusal import Refusal
from shared.settings import Settings, from_environment

MODELS = [
    {"name": "small", "url": "echo:0", "engine": "echo", "max_in_flight": 7, "default": True},
    {"name": "large", "url": "echo:0", "engine": "echo", "max_in_flight": 3},
    {"name": "vectors", "url": "package:x", "kind": "embed"},
]


@pytest.fixture
def models_file(tmp_path: Path) -> Path:
    file = tmp_path / "models.json"
    file.write_text(json.dumps(MODELS))
    return file


def after(command: list[str], option: str) -> str:
    return command[command.index(option) + 1]


def test_a_gpu_worker_takes_as_many_jobs_as_its_engine_holds(models_file: Path) -> None:
    command = worker_command("gpu", Settings(models_file=models_file, worker_model="large"), number=2)
    assert after(command, "--queues") == "gpu.large"
    assert after(command, "--concurrency") == "3"
    assert after(command, "--hostname") == "gpu2@%h"
    assert after(command, "--pool") == "threads"


def test_a_gpu_worker_holds_the_default_model_unless_told(models_file: Path) -> None:
    assert after(worker_command("gpu", Settings(models_file=models_file)), "--queues") == "gpu.small"


def test_documents_are_read_in_processes_and_retrieval_in_threads() -> None:
    settings = Settings(cpu_workers=3, io_workers=5)
    cpu, io = worker_command("cpu", settings), worker_command("io", settings)
    assert (after(cpu, "--pool"), after(cpu, "--concurrency")) == ("prefork", "3")
    assert (after(io, "--pool"), after(io, "--concurrency")) == ("threads", "5")


def test_every_worker_tells_flower_of_its_tickets(models_file: Path) -> None:
    for pool in ("gpu", "cpu", "io"):
        assert "--task-events" in worker_command(pool, Settings(models_file=models_file))


def test_the_api_gets_its_threads_and_address() -> None:
    command = api_command(Settings(host="::1", port=8080, api_workers=3, api_threads=40))
    assert (after(command, "--bind"), after(command, "--workers"), after(command, "--threads")) == ("[::1]:8080", "3", "40")


@pytest.mark.parametrize(("name", "why"), [("huge", "no model 'huge'"), ("vectors", "does not generate text")])
def test_a_model_that_cannot_be_served_is_refused_by_name(models_file: Path, name: str, why: str) -> None:
    with pytest.raises(Refusal, match=why):
        served_model(Settings(models_file=models_file, worker_model=name))


def test_another_process_reads_the_very_settings_it_was_given() -> None:
    settings = Settings(port=8081, worker_model="large", drain_seconds=3.5, allow_unsafe_redis=True)
    given = {name: value for name, value in environment_of(settings).items() if name.startswith(("ENGINEHOUSE_", "REDIS_URL"))}
    assert from_environment(given) == settings


@pytest.mark.parametrize("url", ["redis://:secret@host:6379/0", "redis://user:secret@host:6379/0", "redis://host:6379/0"])
def test_a_redis_url_is_shown_without_its_password(url: str) -> None:
    assert without_password(url) == "redis://host:6379/0"
