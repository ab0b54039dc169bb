"""Locks between hosts, with another host in its own process, and with the files that hosts without working locks leave."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from testing.repository import REPOSITORY
from testing.waiting import wait_until
from workers.runtime.host_locks import LOCKS_MISSING, START_SECONDS, TOUCH_SECONDS, HostLocks

HOLDER = """
import sys, time
from pathlib import Path
from workers.runtime.host_locks import HostLocks
locks = HostLocks(Path(sys.argv[1]), machine="there", host="there")
for now in range(0, 100_000, 10):
    locks.run_once(float(now))
    time.sleep(0.02)
"""


@pytest.fixture
def rounds() -> Callable[[HostLocks, int], None]:
    now = [0.0]

    def run(locks: HostLocks, count: int) -> None:
        for _ in range(count):
            now[0] += TOUCH_SECONDS
            locks.run_once(now[0])

    return run


def here(folder: Path, reasons: list[str]) -> HostLocks:
    return HostLocks(folder, reasons.append, machine="here", host="here")


def touch_without_a_lock(folder: Path, since: int, host: str = "there") -> Path:
    """Acts as a host whose lock no other host sees."""
    file = folder / "host-locks" / "0123456789abcdef"
    file.parent.mkdir(exist_ok=True)
    if not file.exists() or file.read_text() != f"{since} {host}\n":
        file.write_text(f"{since} {host}\n")
    later = file.stat().st_mtime_ns + 1_000_000
    os.utime(file, ns=(later, later))
    return file


def test_hosts_whose_locks_hold_go_on(tmp_path: Path, rounds: Callable[[HostLocks, int], None]) -> None:
    reasons: list[str] = []
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], cwd=REPOSITORY) as other:
        try:
            wait_until(lambda: list((tmp_path / "host-locks").glob("*")), "the other host holds its lock")
            [file] = (tmp_path / "host-locks").glob("*")
            locks = here(tmp_path, reasons)
            for _ in range(5):
                touched = file.stat().st_mtime_ns
                wait_until(lambda seen=touched: file.stat().st_mtime_ns > seen, "the other host goes on")  # type: ignore[misc]
                rounds(locks, 1)
        finally:
            other.kill()
    assert reasons == []
    # It has ended, and what is left of it stops no other host; a day later, it is removed.
    rounds(locks, 5)
    os.utime(file, (1, 1))
    rounds(locks, 1)
    assert (reasons, file.exists()) == ([], False)


def test_the_later_host_stops_where_locks_do_not_hold(tmp_path: Path, rounds: Callable[[HostLocks, int], None]) -> None:
    reasons: list[str] = []
    locks = here(tmp_path, reasons)
    for _ in range(2):
        touch_without_a_lock(tmp_path, since=1)
        rounds(locks, 1)
    assert reasons == [], "a lock that can be taken may belong to a host that has just ended"
    touch_without_a_lock(tmp_path, since=1)
    rounds(locks, 1)
    [reason] = reasons
    for part in (str(tmp_path), "host there", "no locks between hosts", "one host", "NFS 4.1"):
        assert part in reason


def test_the_first_host_goes_on_where_locks_do_not_hold(tmp_path: Path, rounds: Callable[[HostLocks, int], None]) -> None:
    reasons: list[str] = []
    locks = here(tmp_path, reasons)
    rounds(locks, 1)
    for _ in range(4):
        touch_without_a_lock(tmp_path, since=2**62)
        rounds(locks, 1)
    assert reasons == []


def test_a_host_that_restarted_meanwhile_is_not_accused(tmp_path: Path, rounds: Callable[[HostLocks, int], None]) -> None:
    reasons: list[str] = []
    locks = here(tmp_path, reasons)
    for since in range(1, 6):
        touch_without_a_lock(tmp_path, since=since)
        rounds(locks, 1)
    assert reasons == []


def test_a_worker_does_not_start_beside_a_host_without_locks(tmp_path: Path) -> None:
    stop = threading.Event()
    touch_without_a_lock(tmp_path, since=1)

    def go_on() -> None:
        while not stop.wait(0.05):
            touch_without_a_lock(tmp_path, since=1)

    thread = threading.Thread(target=go_on)
    thread.start()
    program = f"from pathlib import Path; from workers.runtime.host_locks import HostLocks; HostLocks(Path({str(tmp_path)!r})).check_at_start()"
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
        )
    finally:
        stop.set()
        thread.join()
    assert done.returncode == LOCKS_MISSING
    assert "no locks between hosts" in done.stderr


def test_a_start_alone_does_not_wait(tmp_path: Path) -> None:
    started = time.monotonic()
    here(tmp_path, []).check_at_start()
    assert time.monotonic() - started < START_SECONDS / 6
