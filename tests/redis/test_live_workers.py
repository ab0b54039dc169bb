"""Live workers: those whose processes on this machine run and are not stopped."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import redis

from shared.jobs.worker_registry import Worker, WorkerRegistry
from shared.machine import machine_id, start_ticks, started
from testing.waiting import wait_until


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


def test_a_process_that_stops_goes_on_and_ends_is_noticed(redis_client: redis.Redis, process: subprocess.Popen[bytes]) -> None:
    registry = WorkerRegistry(redis_client)
    here = Worker(
        id="here",
        name="io@here",
        pool="io",
        machine=machine_id(),
        pid=process.pid,
        started=started(process.pid),
        start_ticks=start_ticks(process.pid),
        queues=("io",),
        slots=1,
    )
    elsewhere = Worker(id="away", name="io@away", pool="io", machine="another", pid=1, started=0.0, queues=("io",), slots=1)
    registry.heartbeat(here)
    registry.heartbeat(elsewhere)

    def alive() -> set[str]:
        return {worker.id for worker in registry.alive(60)}

    assert alive() == {"here", "away"}
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: alive() == {"away"}, "the stopped process is noticed")
    process.send_signal(signal.SIGCONT)
    wait_until(lambda: alive() == {"here", "away"}, "the process goes on")
    process.kill()
    process.wait()
    wait_until(lambda: alive() == {"away"}, "the end of the process is noticed")
