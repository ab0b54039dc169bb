"""Server processes do not run as root; `up` and `demo` on loopback only warn, so that the first steps in a container work."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cli.errors import CommandError
from cli.local.root_user import check_user
from shared.settings import Settings
from testing.repository import REPOSITORY
from tests.flows.command import line

SETTINGS = Settings()


@pytest.fixture
def _as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.mark.usefixtures("_as_root")
def test_root_may_not_run_a_process_that_others_can_reach(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError, match=r"`enginehouse worker` does not run as root\. .*ENGINEHOUSE_ALLOW_ROOT=1"):
        check_user(SETTINGS, "worker")
    with pytest.raises(CommandError, match=r"other machines can reach 0\.0\.0\.0\. .*ENGINEHOUSE_ALLOW_ROOT=1"):
        check_user(replace(SETTINGS, host="0.0.0.0"), "up", warn_on_loopback=True)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("_as_root")
def test_root_is_warned_on_loopback(capsys: pytest.CaptureFixture[str]) -> None:
    check_user(SETTINGS, "up", warn_on_loopback=True)
    assert capsys.readouterr().err.startswith("Warning: running as root")


@pytest.mark.usefixtures("_as_root")
def test_a_setting_allows_root(capsys: pytest.CaptureFixture[str]) -> None:
    check_user(replace(SETTINGS, allow_root=True, host="0.0.0.0"), "worker")
    assert capsys.readouterr().err == ""


def test_another_user_is_not_asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    check_user(SETTINGS, "worker")
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("arguments", [("worker", "io"), ("api",), ("up",)], ids=lambda words: str(words[0]))
def test_the_commands_refuse_root(arguments: tuple[str, ...], tmp_path: Path) -> None:
    environment = os.environ | {"ENGINEHOUSE_ALLOW_ROOT": "0", "ENGINEHOUSE_HOST": "0.0.0.0"}
    command = line(*arguments, "--data", tmp_path / "data")
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 2
    assert f"`enginehouse {arguments[0]}` does not run as root" in done.stderr
    assert not (tmp_path / "data").exists()
