"""Processes of the product as forks of one process that has imported their modules: starting Python for each takes a second of CPU.

``start_fork`` has the effect of ``subprocess.Popen([sys.executable, "-m", module, ...])``: a process of its own, with its own command
line, environment, folder and files. What it starts by ``cli.local.process_tree.spawn`` is a fork as well (``testing.forked_process``).
"""

import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Protocol

from testing.repository import REPOSITORY

_COMMAND_SECONDS = 240
_MAX_MESSAGE = 1 << 20
# The loader, the C library and Python read these when a process starts.
_READ_AT_START = ("LD_LIBRARY_PATH", "LD_PRELOAD", "MALLOC_ARENA_MAX", "PYTHONDEVMODE", "PYTHONWARNINGS")


class Process(Protocol):
    """What tests need of ``subprocess.Popen``."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def kill(self) -> None: ...


def start_process(arguments: Sequence[str], *, environment: Mapping[str, str], files: Sequence[IO[bytes]]) -> Process:
    """Start ``enginehouse`` with these arguments in the repository; ``files`` are its standard input, output and error."""
    given, output, errors = files
    return subprocess.Popen(_line(arguments), cwd=REPOSITORY, env=dict(environment), stdin=given, stdout=output, stderr=errors)


def start_fork(arguments: Sequence[str], *, environment: Mapping[str, str], files: Sequence[IO[bytes]]) -> Process:
    """What ``start_process`` does, by a fork where that is possible."""
    command = _line(arguments)
    if can_fork(command, environment) and (server := _server()) is not None:
        return _Fork(server, command, environment, files)
    return start_process(arguments, environment=environment, files=files)


def _line(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "cli.main", *arguments]


def run_command(arguments: Sequence[str], *, environment: Mapping[str, str], given: str = "") -> subprocess.CompletedProcess[str]:
    """Run ``enginehouse`` with these arguments in the repository, and return its outputs and exit status."""
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        source.write(given.encode(errors="surrogateescape"))
        source.seek(0)
        status = start_fork(arguments, environment=environment, files=(source, output, errors)).wait(_COMMAND_SECONDS)
        return subprocess.CompletedProcess(["enginehouse", *arguments], status, _text(output), _text(errors))


def can_fork(command: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether a fork would run what ``command`` runs: Python with the modules of this repository."""
    return (
        list(command[:2]) == [sys.executable, "-m"]
        and _code_folder(environment.get("PYTHONPATH", "")) in (None, REPOSITORY)
        and all(environment.get(name) == os.environ.get(name) for name in _READ_AT_START)
    )


def _code_folder(search_path: str) -> Path | None:
    """The first folder of PYTHONPATH that contains the product."""
    folders = [Path(folder).resolve() for folder in search_path.split(os.pathsep) if folder]
    return next((folder for folder in folders if (folder / "cli" / "main.py").exists()), None)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="strict").replace("\r\n", "\n")


class _Fork:
    """A fork, as its client sees it. The connection gives its process id and, when it has ended, its exit status."""

    def __init__(self, server: str, command: Sequence[str], environment: Mapping[str, str], files: Sequence[IO[bytes]]) -> None:
        self.args = list(command)
        self.returncode: int | None = None
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.connect(server)
        request = {"command": self.args, "environment": dict(environment)}
        socket.send_fds(self._connection, [json.dumps(request).encode()], [file.fileno() for file in files])
        self.pid = int(self._connection.recv(16))

    def poll(self) -> int | None:
        """The exit status if the process has ended, negative after a signal."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self._read_status()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit status. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            if timeout is not None and not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self._read_status()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _read_status(self) -> None:
        answer = self._connection.recv(16)
        assert answer, "the process that forks has ended"
        self.returncode = int(answer)
        self._connection.close()


@cache
def _server() -> str | None:
    """The address of the process that forks, which ends with this one. None if such forks cannot look like processes of their own."""
    address = str(Path(tempfile.mkdtemp(prefix="forks-")) / "socket")
    ready, started = os.pipe()
    subprocess.Popen([sys.executable, "-m", "testing.process_forks", address, str(started)], cwd=REPOSITORY, pass_fds=[started])
    os.close(started)
    with open(ready, "rb") as pipe:
        answer = pipe.read()
    assert answer in (b"ready", b"unable"), "the process that forks has not started"
    return address if answer == b"ready" else None


def _serve(address: str, started: int) -> None:
    from shared.prctl import die_with_parent
    from testing.forked_process import describe_process, prepare_to_fork

    die_with_parent()
    try:
        describe_process([sys.executable, "-m", "testing.process_forks"], os.environ)
    except OSError:
        os.write(started, b"unable")
        return
    prepare_to_fork()
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    clients: dict[int, socket.socket] = {}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, selectors.DefaultSelector() as selector:
        listener.bind(address)
        listener.listen()
        selector.register(listener, selectors.EVENT_READ)
        selector.register(reader, selectors.EVENT_READ)
        os.write(started, b"ready")
        os.close(started)
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    clients[_fork(connection)] = connection
                else:
                    os.read(reader, 4096)
            _reap(clients)


def _fork(connection: socket.socket) -> int:
    """Start the process that a client asks for, send its id, and return it."""
    from testing.forked_process import become

    request, files, _, _ = socket.recv_fds(connection, _MAX_MESSAGE, 3)
    asked = json.loads(request)
    if not (pid := os.fork()):
        become(asked["command"], asked["environment"], files)
    for file in files:
        os.close(file)
    connection.send(str(pid).encode())
    return pid


def _reap(clients: dict[int, socket.socket]) -> None:
    while clients:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with clients.pop(pid) as connection, suppress(BrokenPipeError):  # its client does not wait
            connection.send(str(os.waitstatus_to_exitcode(status)).encode())


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
