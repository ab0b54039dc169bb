"""The processes that are forked for untrusted files: they have nothing of the worker, and end with it."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from shared.documents.media_types import TEXT
from testing.repository import REPOSITORY
from testing.waiting import wait_until
from workers.cpu.parsing.parser import Limits, read_pages
from workers.cpu.sandbox import fork_server
from workers.cpu.sandbox.fork_server import FILE, MODULES, Fork

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="fork servers need Linux")

LIMITS = Limits(seconds=60, memory_bytes=1 << 30, max_pages=10, max_page_characters=1000)
WORKER = """
import os, sys
from workers.cpu.sandbox.fork_server import MODULES, fork
stdin, requests = os.pipe()
output, stdout = os.pipe()
child = fork(MODULES[0], os.open(sys.argv[1], os.O_RDONLY), stdin, stdout)
print(child.pid, flush=True)
child.wait()
"""

FULL = """
import errno, os
from workers.cpu.sandbox import fork_server
def fork(): raise OSError(errno.EAGAIN, "no process is free")
os.fork = fork
fork_server.main()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "original"
    path.write_bytes(b"text")
    return path


@contextmanager
def waiting_child(file: Path) -> Iterator[Fork]:
    """A child that waits for its request, with the file open."""
    stdin, requests = os.pipe()
    output, stdout = os.pipe()
    with file.open("rb") as opened, open(requests, "wb"), open(output, "rb"):
        child = fork_server.fork(MODULES[0], opened.fileno(), stdin, stdout)
        os.close(stdin)
        os.close(stdout)
        try:
            wait_until(lambda: psutil.Process(child.pid).name() == "parse_child", "the fork has become the child")
            yield child
        finally:
            child.kill()
            child.wait()


def server_of(child: Fork) -> psutil.Process:
    parent = psutil.Process(child.pid).parent()
    assert parent is not None
    return parent


def read(file: Path) -> list[str]:
    texts: list[str] = []
    read_pages(file, TEXT, LIMITS, lambda page, total: texts.append(page.text))
    return texts


def test_a_child_has_its_file_and_nothing_of_the_worker(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:secret@localhost")
    secret = os.open(__file__, os.O_RDONLY)
    os.set_inheritable(secret, True)
    with waiting_child(file) as child:
        process = psutil.Process(child.pid)
        wait_until(lambda: process.num_fds() == FILE + 1, "the fork has closed what it inherited")
        assert {descriptor.name for descriptor in Path(f"/proc/{child.pid}/fd").iterdir()} == {"0", "1", "2", str(FILE)}
        assert Path(f"/proc/{child.pid}/fd/{FILE}").readlink() == file
        for one in (process, server_of(child)):
            assert Path(f"/proc/{one.pid}/environ").read_bytes() == b""
            assert str(file.parent) not in " ".join(one.cmdline())
            assert one.num_threads() == 1
    os.close(secret)


def test_children_end_with_their_worker(file: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(file)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        child = psutil.Process(int(worker.stdout.readline()))
        server = child.parent()
        assert server is not None
        assert server.ppid() == worker.pid
        worker.kill()
    wait_until(lambda: not child.is_running() and not server.is_running(), "the child and the server have ended")


def test_a_killed_server_takes_its_children_with_it_and_is_replaced(file: Path) -> None:
    with waiting_child(file) as child:
        server_of(child).kill()
        assert child.wait() == -signal.SIGKILL
    assert read(file) == ["text"]


def test_a_frozen_server_is_replaced_and_keeps_nobody_waiting(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_server, "REPORT_SECONDS", 0.2)
    with waiting_child(file) as child:
        server_of(child).suspend()
        child.kill()
        assert child.wait() == -signal.SIGKILL
    monkeypatch.setattr(fork_server, "START_SECONDS", 3.0)
    assert read(file) == ["text"]


def test_a_machine_without_room_for_a_process_is_an_error_and_ends_no_other_child(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, servers = subprocess.Popen, []

    def start_full(command: list[str], **options: Any) -> Any:
        servers.append(start([*command[:2], "-c", FULL, command[-1]], **options))
        return servers[-1]

    monkeypatch.setattr(fork_server, "_server", None)
    monkeypatch.setattr(subprocess, "Popen", start_full)
    for _ in range(2):
        with pytest.raises(BlockingIOError, match="temporarily unavailable"):
            read(file)
    [server] = servers
    assert server.poll() is None


def test_a_file_is_read_where_the_kernel_has_no_descriptors_of_processes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(pid: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "pidfd_open", missing)
    assert not fork_server.is_used_for(MODULES[0])
    assert read(file) == ["text"]


def test_a_child_goes_on_when_a_terminal_or_systemd_signals_the_processes_of_its_worker(file: Path) -> None:
    with waiting_child(file) as child:
        for process in (server_of(child), psutil.Process(child.pid)):
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
        assert read(file) == ["text"]
        assert psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE


def test_a_fork_of_the_worker_has_a_server_of_its_own(file: Path) -> None:
    with waiting_child(file) as child:
        server = server_of(child).pid
        reader, writer = os.pipe()
        if not os.fork():
            try:
                with waiting_child(file) as other:
                    os.write(writer, str(server_of(other).pid).encode())
            finally:
                os._exit(0)
        other_server = int(os.read(reader, 20))
        os.wait()
        for end in (reader, writer):
            os.close(end)
    assert other_server != server
    wait_until(lambda: not psutil.pid_exists(other_server), "the server of the fork has ended with it")


def test_the_exit_status_of_a_child_is_known(file: Path) -> None:
    with waiting_child(file) as child:
        os.kill(child.pid, signal.SIGSEGV)
        assert child.wait() == -signal.SIGSEGV
        child.kill()
        assert child.wait() == -signal.SIGSEGV
