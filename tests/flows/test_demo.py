"""Parts of ``enginehouse demo`` against a running stack; ``test_install.py`` runs the whole demonstration."""

import os
import sys
from pathlib import Path

import pytest

from cli.local import demo
from shared.settings import from_environment
from testing.stack import Stack


def test_unfinished_questions_of_an_earlier_demonstration_are_cancelled(slow_stack: Stack) -> None:
    left = [slow_stack.submit_long(metadata=demo.METADATA) for _ in range(10)]
    other = slow_stack.generate("a short answer", metadata={"source": "elsewhere"})["id"]
    demo._cancel_unfinished(slow_stack.client)
    assert {slow_stack.ended(job)["status"] for job in left} == {"cancelled"}
    assert slow_stack.ended(other)["status"] == "completed"


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
