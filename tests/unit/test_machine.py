"""Processes of this machine: which run, which are stopped, and which have only the id of an earlier one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.machine import HAS_PROC, is_alive, start_ticks, started

pytestmark = pytest.mark.skipif(not HAS_PROC, reason="needs the /proc of Linux")


@pytest.fixture
def zombie() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    yield process.pid
    process.wait()


def test_a_process_is_recognised_after_the_clock_was_set() -> None:
    pid = os.getpid()
    hour = 3600.0
    assert is_alive(pid, started(pid) - hour, start_ticks(pid))
    assert not is_alive(pid, started(pid), start_ticks(pid) + 1), "another process with the same id"


def test_a_worker_of_an_earlier_version_is_recognised_by_its_start_time() -> None:
    pid = os.getpid()
    assert is_alive(pid, started(pid))
    assert not is_alive(pid, started(pid) - 3600.0)


def test_a_process_that_has_ended_is_not_alive(zombie: int) -> None:
    assert start_ticks(zombie) > 0
    assert not is_alive(zombie, started(zombie), start_ticks(zombie))


def test_a_process_that_does_not_exist_is_not_alive() -> None:
    assert not is_alive(2**22 + 1, 0.0, 1)


def test_the_name_of_a_program_may_contain_brackets(tmp_path: Path) -> None:
    stat = tmp_path / "7" / "stat"
    stat.parent.mkdir()
    rest = " ".join(str(number) for number in range(4, 22))
    stat.write_text(f"7 (a) b (c)) S {rest} 4711 0 0\n")
    assert start_ticks(7, tmp_path) == 4711
    assert is_alive(7, 0.0, 4711, tmp_path)
