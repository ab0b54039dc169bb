"""Finding, stopping and limiting the processes of a stack, from outside."""

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil


def family(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def engine_of(worker: int) -> psutil.Process | None:
    """The engine process of a model worker."""
    for process in family(worker):
        with suppress(psutil.Error):
            if "workers.gpu.engine" in process.cmdline():
                return process
    return None


def descendant(pid: int, word: str) -> psutil.Process | None:
    """A process below ``pid`` that has ``word`` in its command line."""
    for process in family(pid)[1:]:
        with suppress(psutil.Error):
            if any(word in argument for argument in process.cmdline()):
                return process
    return None


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to a process that may be gone already."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@contextmanager
def stopped(pids: Iterable[int]) -> Iterator[None]:
    """The processes stand still meanwhile; those that were killed meanwhile stay dead."""
    pids = list(pids)
    for pid in pids:
        kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            kill(pid, signal.SIGCONT)


@contextmanager
def limited(pid: int, resource: int, soft: int) -> Iterator[None]:
    """The process has a lower limit meanwhile (prlimit(2))."""
    process = psutil.Process(pid)
    before = process.rlimit(resource)
    process.rlimit(resource, (soft, before[1]))
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            process.rlimit(resource, before)


def of_folder(data: Path) -> list[psutil.Process]:
    """Every living process on this machine that works for the stack whose data folder this is."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("ENGINEHOUSE_DATA") == str(data) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
