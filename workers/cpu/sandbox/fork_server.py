"""Fork server: a process that has imported the readers and forks for each untrusted file, as starting Python and importing them takes
ten times the CPU of reading a small file.

A worker process starts one when it needs the first child. The server is as empty as the children: it has no environment and no secret,
never reads from a file or a request, and only passes their descriptors on. A fork gives up its rights as any other
child does (``sandbox``). What children of one server share is the layout of their memory.

Messages on the socket between worker and server are the name of a module, with four descriptors: a socket for this child, the file, and
the child's standard input and output. The child's socket then has the descriptor of its process and, at its end, its exit status. When
the worker ends, its socket is closed, and the server and its children end too. This needs Linux 5.3; elsewhere, each
child is a new Python process.
"""

import fcntl
import gc
import importlib
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from shared.packaged_files import CODE_ROOT
from shared.prctl import die_with_parent, name_process

MODULES = ("workers.cpu.parsing.parse_child", "workers.cpu.archives.unpack_child", "workers.cpu.pages.draw_child")
"""What forks run. OCR gets a new Python process: it reads many pages in one, with libraries that start threads."""

FILE = 3
"""The descriptor of the file in a fork."""

START_SECONDS = 60.0
"""A server that has not started a child after this time, although its imports take a second, is replaced."""

REPORT_SECONDS = 10.0
"""How long a server may take to report the end of a child."""

_MAX_MESSAGE = 200
_ABOVE_ALL = 1 << 20


def is_used_for(module: str) -> bool:
    """Whether ``fork`` can run this module here."""
    return module in MODULES and _has_process_descriptors()


def _has_process_descriptors() -> bool:
    """Whether the kernel has them, as Linux does since 5.3."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


class Fork:
    """A child of the fork server, as far as it is like a ``subprocess.Popen``. Any thread may kill it."""

    def __init__(self, connection: socket.socket, pid: int, process: int) -> None:
        self.pid = pid
        self._connection = connection
        self._process = process
        self._status: int | None = None
        self._lock = threading.Lock()

    def kill(self) -> None:
        with self._lock:
            if self._status is None:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._process, signal.SIGKILL)

    def wait(self) -> int:
        """Wait for the end and return the exit status; negative is the number of the signal that killed the child."""
        if self._status is None:
            end = select.poll()
            end.register(self._process, select.POLLIN)
            end.poll()
            self._connection.settimeout(REPORT_SECONDS)
            try:
                answer = self._connection.recv(_MAX_MESSAGE)
            except TimeoutError:
                answer = b""
            with self._lock:
                # Children end with their server, and one that is frozen reports nothing.
                self._status = int(answer) if answer else -signal.SIGKILL
                os.close(self._process)
            self._connection.close()
        return self._status


@dataclass(frozen=True)
class _Server:
    owner: int
    process: "subprocess.Popen[bytes]"
    connection: socket.socket


_lock = threading.Lock()
_server: _Server | None = None


def fork(module: str, file: int, stdin: int, stdout: int) -> Fork:
    """Run a module in a fork, with these descriptors. Raises OSError if this machine has no room for another process."""
    for _ in range(2):
        server = _running_server()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(START_SECONDS)
        try:
            with theirs:
                socket.send_fds(server.connection, [module.encode()], [theirs.fileno(), file, stdin, stdout])
            message, files, _, _ = socket.recv_fds(ours, _MAX_MESSAGE, 1)
        except OSError:
            message, files = b"", []
        if files:
            return Fork(ours, int(message), files[0])
        ours.close()
        if message:
            raise OSError(int(message), os.strerror(int(message)))
        # It was killed, perhaps because memory ran out, or is frozen. The next one gets the same request.
        _discard(server)
    raise OSError("the fork server of the parsers failed twice to start a child process")


def _running_server() -> _Server:
    global _server
    with _lock:
        if _server is not None and _server.owner != os.getpid():
            # This process was forked from a worker. It needs a server that ends with it, and must not keep the other one.
            _server.connection.close()
            _server = None
        if _server is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                process = subprocess.Popen(
                    [sys.executable, "-B", "-m", "workers.cpu.sandbox.fork_server", str(theirs.fileno())],
                    cwd=CODE_ROOT,
                    env={},  # a child under the control of its file must not find addresses or secrets
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            _server = _Server(os.getpid(), process, ours)
        return _server


def _discard(server: _Server) -> None:
    global _server
    with _lock:
        if _server is server:
            _server = None
            server.connection.close()
            server.process.kill()
            server.process.wait()


# The server.


def main() -> None:
    from workers.cpu.readers.registry import import_common_readers

    # A terminal and systemd send these to all processes of a worker, which goes on with its files while it drains.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for module in MODULES:
        importlib.import_module(module)
    import_common_readers()
    # A collection in a fork would copy the pages that the forks share.
    gc.freeze()
    woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, socket.socket] = {}
    with socket.socket(fileno=int(sys.argv[1])) as connection, selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not connection:
                    os.read(woken, 4096)
                elif not _start_child(connection, children):
                    return
            _report_ended(children)


def _start_child(connection: socket.socket, children: dict[int, socket.socket]) -> bool:
    """Fork as the worker asks for; False if it has ended."""
    message, files, _, _ = socket.recv_fds(connection, _MAX_MESSAGE, 4)
    if not message:
        return False
    server, child = os.getpid(), socket.socket(fileno=files[0])
    try:
        if not (pid := os.fork()):
            _become(message.decode(), server, files[1:])
    except OSError as error:
        with child, suppress(BrokenPipeError):
            child.send(str(error.errno).encode())
        return True
    finally:
        for file in files[1:]:
            os.close(file)
    children[pid] = child
    # Opened before the process can be reaped, so that it is never another one of the same number.
    process = os.pidfd_open(pid)
    with suppress(BrokenPipeError):
        socket.send_fds(child, [str(pid).encode()], [process])
    os.close(process)
    return True


def _become(module: str, server: int, files: list[int]) -> NoReturn:
    """Run a module as ``python -m`` would, in a fork that has nothing but the file and its input and output."""
    die_with_parent()
    if os.getppid() != server:  # it died before the line above
        os._exit(1)
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        name_process(module.rpartition(".")[2])
        # Moved out of the way first: one of them may have the number that another one gets.
        moved = [fcntl.fcntl(file, fcntl.F_DUPFD, FILE + 1) for file in files]
        for source, target in zip(moved, (FILE, sys.stdin.fileno(), sys.stdout.fileno()), strict=True):
            os.dup2(source, target, inheritable=False)
        os.closerange(FILE + 1, _ABOVE_ALL)
        sys.modules[module].main()
        sys.stdout.flush()
        status = 0
    finally:
        os._exit(status)


def _report_ended(children: dict[int, socket.socket]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with children.pop(pid) as child, suppress(BrokenPipeError):  # nobody waits for it any more
            child.send(str(os.waitstatus_to_exitcode(status)).encode())


if __name__ == "__main__":
    main()
