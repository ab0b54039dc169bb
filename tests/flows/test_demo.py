"""Parts of ``enginehouse demo`` against a running stack; ``test_install.py`` runs the whole demonstration."""

import json
import os
import sys
from pathlib import Path

import pytest
from rich.console import Console

from cli.local import demo
from cli.local.redis_server import free_port
from shared.data_folder import open_data_folder
from shared.settings_sources import from_environment
from testing.process_forks import run_command
from testing.stack import Stack, models


def test_unfinished_questions_of_an_earlier_demonstration_are_cancelled(slow_stack: Stack) -> None:
    left = [slow_stack.submit_long(metadata=demo.METADATA) for _ in range(10)]
    other = slow_stack.generate("a short answer", metadata={"source": "elsewhere"})["id"]
    demo._cancel_unfinished(slow_stack.client)
    assert {slow_stack.ended(job)["status"] for job in left} == {"cancelled"}
    assert slow_stack.ended(other)["status"] == "completed"


@pytest.mark.slow_fault
def test_the_doctor_finds_nothing_while_the_demonstration_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEHOUSE_ALLOW_ROOT", "1")
    file = tmp_path / "models.json"
    file.write_text(json.dumps(models(0.0)))
    settings = from_environment(os.environ, data_dir=tmp_path / "data", models_file=file, port=free_port(), engine="echo")
    open_data_folder(settings.data_dir)
    documents = demo._write_documents(settings.data_dir / "demo")
    with demo._running_stack(settings, Console()) as client:
        demo._ingest(client, documents, Console())
        doctor = run_command(["doctor", "--data", str(settings.data_dir)], environment=os.environ)
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert doctor.stdout.startswith("No problems found")


def test_the_last_line_shows_a_command_that_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("enginehouse")
    settings = from_environment({}, data_dir=Path(".enginehouse").resolve())
    monkeypatch.setattr(os, "environ", {"PATH": str(program.parent)})
    assert demo._up_command(settings) == "enginehouse up"
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(program.parents[2])
    settings = from_environment({}, data_dir=Path(".enginehouse").resolve(), port=8080)
    assert demo._up_command(settings) == f"{program.relative_to(program.parents[2])} up --port 8080"
    monkeypatch.chdir(tmp_path)
    settings = from_environment({}, data_dir=Path("state").resolve())
    assert demo._up_command(settings) == f"{program} up --data {tmp_path / 'state'}"
