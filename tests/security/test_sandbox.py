"""What code in a process that reads a file may do, as if the file had taken it over: nothing but read that file."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.admin.machine_checks import check_sandbox
from shared.packaged_files import CODE_ROOT
from workers.cpu.sandbox import landlock, seccomp
from workers.cpu.sandbox.child_process import without_paths
from workers.cpu.sandbox.sandbox import missing_protections

pytestmark = pytest.mark.skipif(bool(missing_protections()), reason="this machine lacks a part of the sandbox")

PROBE = """
import glob, json, os, socket, sys
from workers.cpu.sandbox.sandbox import close_sandbox
request = json.loads(sys.stdin.readline())
close_sandbox(1 << 30, 30, [request["descriptor"]])

def attempt(action):
    try:
        return f"yes: {action()!r}"[:80]
    except OSError as error:
        return f"no: {error.strerror}"

folder, parent = request["folder"], request["parent"]
print(json.dumps({
    "reads its file": attempt(lambda: open(request["path"], "rb").read()),
    "imports a module": attempt(lambda: __import__("wave").__name__),
    "reads another file": attempt(lambda: open(f"{folder}/secret").read()),
    "lists a folder": attempt(lambda: os.listdir(folder)),
    "lists a checkout": attempt(lambda: os.listdir(request["code"])),
    "reads the environment of its parent": attempt(lambda: open(f"/proc/{parent}/environ", "rb").read()),
    "writes a file": attempt(lambda: open(f"{folder}/new", "w")),
    "changes its file": attempt(lambda: open(request["path"], "r+b")),
    "deletes a file": attempt(lambda: os.unlink(f"{folder}/secret")),
    "changes rights": attempt(lambda: os.chmod(f"{folder}/secret", 0o777)),
    "opens a connection": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)),
    "opens a local connection": attempt(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)),
    "signals its parent": attempt(lambda: os.kill(parent, 0)),
    "forks": attempt(os.fork),
    "executes a program": attempt(lambda: os.execv("/bin/true", ["true"])),
}))
"""
ALLOWED = {"reads its file", "imports a module"}


def test_a_reader_can_do_nothing_but_read_its_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    original = tmp_path / "original"
    original.write_bytes(b"text")
    with original.open("rb") as file:
        request: dict[str, Any] = {"descriptor": file.fileno(), "path": f"/dev/fd/{file.fileno()}"}
        request |= {"folder": str(tmp_path), "parent": os.getpid(), "code": str(CODE_ROOT)}
        done = subprocess.run(
            [sys.executable, "-B", "-c", PROBE],
            cwd=CODE_ROOT,
            env={},
            pass_fds=[file.fileno()],
            input=json.dumps(request) + "\n",
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert {action for action, result in results.items() if result.startswith("yes")} == ALLOWED, results
    assert (tmp_path / "secret").read_text() == "secret"


@pytest.mark.parametrize(
    ("message", "public"),
    [
        ("bad entity in /dev/fd/7, line 1", "bad entity in the file, line 1"),
        ("[Errno 13] Permission denied: '/proc/self/fd/12'", "[Errno 13] Permission denied: 'the file'"),
        (f"cannot import name 'x' from 'y' ({sys.prefix}/lib/y/__init__.py)", "cannot import name 'x' from 'y' (__init__.py)"),
        (f"in {CODE_ROOT}/workers/cpu/readers/text.py: no", "in text.py: no"),
        ("There is no item named 'word/document.xml'", "There is no item named 'word/document.xml'"),
    ],
)
def test_reasons_have_no_path_of_the_server(message: str, public: str) -> None:
    assert without_paths(message) == public


def test_the_doctor_says_what_the_sandbox_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(check_sandbox()) == []
    monkeypatch.setattr(landlock, "version", lambda: 0)
    [finding] = check_sandbox()
    assert "Landlock is missing" in finding.problem
    assert "Linux 5.13" in finding.fix


def test_a_file_is_read_where_the_kernel_lacks_both_mechanisms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "_ARCHITECTURES", {})
    monkeypatch.setattr(landlock, "system_call", lambda *arguments: -1)
    assert not landlock.allow_only_reading([], [])
    assert not seccomp.deny_dangerous_calls()
    assert len(missing_protections()) == 2
