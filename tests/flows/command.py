"""Helpers that run the command against a test stack."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

from testing.process_forks import run_command, start_fork
from testing.repository import REPOSITORY
from testing.stack import Stack


def line(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "cli.main", *map(str, arguments)]


def run(stack: Stack, *arguments: str | Path, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a script does, and return outputs and exit status. The server is that of the data folder."""
    own = stack.environment | {"ENGINEHOUSE_DATA": str(stack.data)} | environment
    return run_command([str(argument) for argument in arguments], environment=own, given=given)


def ends(done: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, bool]]:
    """The status of each file that ``ingest --json`` has reported, and whether the server had it already."""
    outcomes = [json.loads(end) for end in done.stdout.splitlines()]
    assert len({end["file"] for end in outcomes}) == len(outcomes)
    return {end["file"]: (end["status"], end["duplicate"]) for end in outcomes}


def start(*arguments: str | Path, errors: int | None = subprocess.PIPE, state: Path | None = None) -> subprocess.Popen[str]:
    """Start the command in the background; the test can read its output and interrupt it. ``state``: where it keeps its state."""
    return subprocess.Popen(
        line(*arguments),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=os.environ | {"PYTHONFAULTHANDLER": "1"} | ({} if state is None else {"XDG_STATE_HOME": str(state)}),
        # A shell that starts tests in the background has them ignore Ctrl-C, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def exit_status(process: subprocess.Popen[str], seconds: float = 240) -> int:
    """Wait for the end of a command from ``start``. Raises AssertionError, with the stacks of its threads, if it does not end."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        _, errors = process.communicate()
        raise AssertionError(f"not within {seconds:g} s: the command ends\n{errors}") from None


def run_on_terminal(stack: Stack, *arguments: str | Path, columns: int = 200) -> str:
    """Run the command on a terminal with this width and return what it displays."""
    ours, theirs = pty.openpty()
    environment = stack.environment | {"ENGINEHOUSE_DATA": str(stack.data), "COLUMNS": str(columns), "TERM": "xterm-256color"}
    with open(os.devnull, "rb") as nothing, open(theirs, "wb", buffering=0) as terminal:
        process = start_fork(
            [str(argument) for argument in arguments], environment=environment, files=(nothing, terminal, terminal)
        )
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:
        pass  # the terminal's other end is closed: Linux says so with EIO
    finally:
        os.close(ours)
    assert process.wait(240) is not None
    return shown.decode()
