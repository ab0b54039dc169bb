"""Commands as forks of one process that has imported them: starting Python for each would take a second.

``run_command`` has the effect of ``subprocess.run([sys.executable, "-m", "cli.main", ...])``: a process of its own, with its own arguments,
environment, working folder and files.
"""

import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, NoReturn

from testing.repository import REPOSITORY

_SECONDS = 240
_MAX_REQUEST = 1 << 20


def run_command(arguments: Sequence[str], *, environment: Mapping[str, str], given: str = "") -> subprocess.CompletedProcess[str]:
    """Run ``enginehouse`` with these arguments in the repository, and return its outputs and exit status."""
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        source.write(given.encode(errors="surrogateescape"))
        source.seek(0)
        status = _forks().run(list(arguments), dict(environment), (source, output, errors))
        return subprocess.CompletedProcess(["enginehouse", *arguments], status, _text(output), _text(errors))


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="strict").replace("\r\n", "\n")


@cache
def _forks() -> "_Forks":
    return _Forks()


class _Forks:
    """The client's side. The process ends with this one."""

    def __init__(self) -> None:
        folder = tempfile.mkdtemp(prefix="commands-")
        self._address = str(Path(folder) / "socket")
        ready, started = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "testing.command_forks", self._address, str(started)], cwd=REPOSITORY, pass_fds=[started]
        )
        os.close(started)
        with open(ready, "rb") as pipe:
            assert pipe.read() == b"ready", "the process of commands has not started"

    def run(self, arguments: list[str], environment: dict[str, str], files: tuple[IO[bytes], IO[bytes], IO[bytes]]) -> int:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(_SECONDS)
            connection.connect(self._address)
            request = json.dumps({"arguments": arguments, "environment": environment}).encode()
            socket.send_fds(connection, [request], [file.fileno() for file in files])
            return int(connection.recv(16))


def _serve(address: str, started: int) -> None:
    from shared.prctl import die_with_parent

    die_with_parent()
    _import_commands()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen()
        os.write(started, b"ready")
        os.close(started)
        while True:
            connection, _ = listener.accept()
            if os.fork():
                connection.close()
                _reap()
                continue
            listener.close()
            _handle(connection)


def _reap() -> None:
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return


def _import_commands() -> None:
    """Import what most commands need when they run."""
    for name in ("cli.main", "enginehouse_client", "httpx2", "rich.live", "rich.progress", "rich.table"):
        importlib.import_module(name)


def _handle(connection: socket.socket) -> None:
    """Run one command in a child, and send its exit status."""
    request, files, _, _ = socket.recv_fds(connection, _MAX_REQUEST, 3)
    command = json.loads(request)
    child = os.fork()
    if not child:
        connection.close()
        _become(command["arguments"], command["environment"], files)
    _, status = os.waitpid(child, 0)
    connection.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(arguments: list[str], environment: dict[str, str], files: Sequence[int]) -> NoReturn:
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["enginehouse", *arguments]
    from cli.main import main
    from shared.process_exit import exit_now

    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
        exit_now(end.code if isinstance(end.code, int) else int(end.code is not None))
    except Exception:  # noqa: BLE001 - the top of a process
        sys.excepthook(*sys.exc_info())
        exit_now(1)
    exit_now(0)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
