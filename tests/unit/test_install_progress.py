"""The progress lines of ``deploy/install.py``."""

import runpy
import sys

import pytest

from testing.repository import REPOSITORY

INSTALL = runpy.run_path(str(REPOSITORY / "deploy" / "install.py"), run_name="install")

PIP = """
for line in ["Collecting flask<4,>=3.1 (from enginehouse==0.1.0)", "  Downloading flask-3.1.3-py3-none-any.whl (103 kB)",
             "Installing collected packages: a, b, c"] + ["Installing collected packages: a, b, c"] * 20:
    print(line, flush=True)
"""


@pytest.mark.parametrize(
    ("line", "activity"),
    [
        ("Collecting flask<4,>=3.1 (from enginehouse==0.1.0)", "collecting flask"),
        ("Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl (184.2 MB)", "downloading torch-2.13.0 (184.2 MB)"),
        ("Installing collected packages: a, b, c", "installing 3 packages"),
        ("Building wheel for enginehouse (pyproject.toml): started", "building wheel for enginehouse"),
        ("Compiling '/srv/enginehouse/.venv/lib/python3.11/site-packages/torch/fx/graph.py'...", "compiling torch"),
        ("Requirement already satisfied: flask", ""),
    ],
)
def test_lines_of_pip_are_shortened(line: str, activity: str) -> None:
    assert INSTALL["describe"](line) == activity


def test_a_pipe_gets_each_activity_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(INSTALL["step"].__globals__, "LINE_SECONDS", 0.0)
    INSTALL["step"]("2/3 torch", [sys.executable, "-c", PIP])
    shown = [line.partition(" s: ")[2] for line in capsys.readouterr().out.splitlines()[:-1]]
    assert len(shown) == len(set(shown))
    assert shown[-1] == "installing 3 packages"
