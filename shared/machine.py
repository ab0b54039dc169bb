"""Machine identity, loopback addresses, and process liveness, so that workers on the same machine notice a dead process at once."""

import ctypes
import gc
import ipaddress
import os
import socket
from functools import cache, lru_cache
from pathlib import Path

import psutil

# In a container, its own group.
CONTROL_GROUP = Path("/sys/fs/cgroup")

PROC = Path("/proc")
HAS_PROC = (PROC / "self" / "stat").exists()
# Zombies, and processes that are just ending.
ENDED_STATES = "ZX"


@cache
def machine_id() -> str:
    """An id that is equal for processes that see each other's process ids. Each container is a separate machine."""
    parts = [socket.gethostname()]
    boot = Path("/proc/sys/kernel/random/boot_id")
    if boot.exists():
        parts.append(boot.read_text().strip())
    namespace = Path("/proc/self/ns/pid")
    if namespace.exists():
        parts.append(os.readlink(namespace))
    return "/".join(parts)


@lru_cache(maxsize=1000)
def is_loopback(host: str) -> bool:
    """Whether a host name or address is reachable from this machine only."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    # On a socket that accepts both versions, an IPv4 caller has an IPv6 address.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def memory_bytes() -> int:
    """Memory that this process may use: the machine's, or the limit of its container."""
    total = int(psutil.virtual_memory().total)
    limit = _memory_limit(CONTROL_GROUP)
    return total if limit is None else min(total, limit)


def free_memory_bytes(control_group: Path = CONTROL_GROUP) -> int:
    """Memory that this process can still take: what the machine has available, or what is left of the limit of its container.

    Cached pages of files count as left, since the kernel drops them when memory is short.
    """
    available = int(psutil.virtual_memory().available)
    limit = _memory_limit(control_group)
    if limit is None:
        return available
    used = int((control_group / "memory.current").read_text())
    lines = (line.split() for line in (control_group / "memory.stat").read_text().splitlines())
    cached = next((int(value) for name, value in lines if name == "inactive_file"), 0)
    return max(0, min(available, limit - used + cached))


def _memory_limit(control_group: Path) -> int | None:
    file = control_group / "memory.max"
    text = file.read_text().strip() if file.exists() else ""
    return int(text) if text.isdigit() else None


def started(pid: int) -> float:
    """Start time of a process on this machine, in Unix seconds. It changes when the clock of the machine is set."""
    return float(psutil.Process(pid).create_time())


def start_ticks(pid: int, proc: Path = PROC) -> int:
    """Start time of a process in clock ticks since the machine started, which stays the same when the clock is set. 0 where it cannot be
    read."""
    found = _state_and_start(pid, proc)
    return found[1] if found is not None else 0


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped, as by SIGSTOP."""
    if HAS_PROC:
        found = _state_and_start(pid, PROC)
        return found is not None and found[0] == "T"
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.Error:  # it has ended, or belongs to a user whose processes are hidden
        return False


def is_alive(pid: int, start: float, ticks: int = 0, proc: Path = PROC) -> bool:
    """Whether the process is running. A later process with the same id has other ``ticks``, which older workers do not report, and
    another start time."""
    if ticks:
        found = _state_and_start(pid, proc)
        return found is not None and found[0] not in ENDED_STATES and found[1] == ticks
    try:
        process = psutil.Process(pid)
        return bool(abs(process.create_time() - start) < 1 and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _state_and_start(pid: int, proc: Path) -> tuple[str, int] | None:
    """From Linux' description of a process; None if there is none. psutil takes five times as long, and workers look at each other once
    a second."""
    try:
        text = (proc / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The name of the program, which comes before, may contain spaces and brackets.
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])


def freeze_objects() -> None:
    """Keep the objects of this process out of further garbage collections.

    One looks at every object, which stops all threads for a tenth of a second where libraries and a model's tokenizer are loaded, and in a
    child it copies every page that it looks at.
    """
    gc.collect()
    gc.freeze()


def release_heap() -> None:
    """Return free heap memory to the system. It costs about a millisecond per 100 MB, and exists only in glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
