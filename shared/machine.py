"""Which machine this is and which of its processes are alive, so that a neighbour's death is noticed at once."""

import os
import socket
from functools import cache
from pathlib import Path

import psutil


@cache
def machine_id() -> str:
    """The same for processes that can see each other's process ids, and for no others (a container is a machine)."""
    parts = [socket.gethostname()]
    boot = Path("/proc/sys/kernel/random/boot_id")
    if boot.exists():
        parts.append(boot.read_text().strip())
    namespace = Path("/proc/self/ns/pid")
    if namespace.exists():
        parts.append(os.readlink(namespace))
    return "/".join(parts)


def started(pid: int) -> float:
    """When a process of this machine was started, in Unix seconds."""
    return float(psutil.Process(pid).create_time())


def is_alive(pid: int, start: float) -> bool:
    """Whether this very process still lives; a later one with the same id is another."""
    try:
        process = psutil.Process(pid)
        return bool(abs(process.create_time() - start) < 1 and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
