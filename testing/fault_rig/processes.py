"""Find, suspend, limit and kill the processes of a stack from outside."""

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil


def process_tree(pid: int) -> list[psutil.Process]:
    """A process and all its descendants."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def is_alive(process: psutil.Process) -> bool:
    """Whether the process runs. One that ends while it is asked, or that only waits to be reaped, does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def has_word(process: psutil.Process, word: str) -> bool:
    """Whether ``word`` is in an argument or in the name of the process. False if the process has ended."""
    with suppress(psutil.NoSuchProcess):
        return any(word in text for text in (process.name(), *process.cmdline()))
    return False


def find_engine(worker: int) -> psutil.Process | None:
    """The engine process of a model worker."""
    return next((process for process in process_tree(worker) if has_word(process, "workers.gpu.engine")), None)


def find_descendant(pid: int, word: str) -> psutil.Process | None:
    """A descendant of ``pid`` that has ``word`` in its command line or its name."""
    return next((process for process in process_tree(pid)[1:] if has_word(process, word)), None)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process that may have ended already."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@contextmanager
def suspended(pids: Iterable[int]) -> Iterator[None]:
    """Suspend the processes for the duration of the block. Those that are killed meanwhile stay dead."""
    pids = list(pids)
    for pid in pids:
        kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            kill(pid, signal.SIGCONT)


@contextmanager
def with_limit(pid: int, resource: int, soft: int) -> Iterator[None]:
    """Lower a limit of the process for the duration of the block (prlimit(2))."""
    process = psutil.Process(pid)
    before = process.rlimit(resource)
    process.rlimit(resource, (soft, before[1]))
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            process.rlimit(resource, before)


def processes_of_folder(data: Path) -> list[psutil.Process]:
    """Every living process on this machine that belongs to the stack with this data folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("ENGINEHOUSE_DATA") == str(data) and is_alive(process):
                found.append(process)
    return found
