"""Event streams whose clients disconnect and return, whose servers die, and whose readers are slow."""

import json
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx2
import pytest

from enginehouse_client import Client, RetryPolicy
from testing.fault_rig.duration import hold_fault
from testing.fault_rig.fault_stack import TEXT, TOKEN_SECONDS, FaultStack
from testing.fault_rig.processes import kill, process_tree
from testing.waiting import wait_until


class Reader:
    """A client that reads a job's stream in pieces and remembers the last id, as a browser does."""

    def __init__(self, stack: FaultStack, job: str) -> None:
        self._stack = stack
        self._job = job
        self.ids: list[int] = []
        self.text = ""
        self.ended = False

    def read(self, limit: int = 10_000) -> None:
        """Connect, read up to ``limit`` events, and disconnect. A broken connection is not an error."""
        headers = {"Last-Event-ID": str(self.ids[-1])} if self.ids else {}
        url = f"{self._stack.server.url}/jobs/{self._job}/events"
        with suppress(httpx2.HTTPError), httpx2.stream("GET", url, headers=headers, timeout=30) as answer:
            event: dict[str, Any] = {}
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name in ("id", "event", "data"):
                    event[name] = value
                elif not line and "id" in event:
                    self._take(event)
                    event, limit = {}, limit - 1
                if self.ended or not limit:
                    return

    def _take(self, event: dict[str, Any]) -> None:
        self.ids.append(int(event["id"]))
        assert event["event"] != "restart"
        if event["event"] == "delta":
            self.text += json.loads(event["data"])["text"]
        self.ended = event["event"] == "ended"

    def check(self, text: str) -> None:
        assert self.ended
        assert self.ids == list(range(1, len(self.ids) + 1)), "no event is missing or repeated"
        assert self.text == text


@pytest.mark.parametrize("events", [1, 7])
def test_a_reconnecting_client_misses_and_repeats_nothing(stack: FaultStack, events: int) -> None:
    job = stack.submit_job(TEXT * 2)
    reader = Reader(stack, job)
    while not reader.ended:
        reader.read(events)
    reader.check(TEXT * 2)


@pytest.mark.slow_fault
def test_a_client_follows_its_job_through_a_restart(stack: FaultStack) -> None:
    [job] = stack.start_jobs(1, TEXT * 2)
    reader = Reader(stack, job)
    reader.read(5)
    kill(stack.pid_of("gpu0"))
    reader.read()
    reader.check(TEXT * 2)


@pytest.mark.slow_fault
@pytest.mark.parametrize("what", ["servers", "connections", "half-open connections", "redis"])
def test_a_stream_continues_after_its_carrier_died(stack: FaultStack, what: str) -> None:
    job = stack.submit_job(TEXT * 3)
    reader = Reader(stack, job)
    reader.read(8)
    if what == "servers":
        for process in process_tree(stack.pid_of("api"))[1:]:
            kill(process.pid)
    elif what == "connections":
        stack.proxy.reset()
    elif what == "half-open connections":
        stack.proxy.half_open()
    else:
        stack.kill_redis()
        stack.start_redis()

    def read_to_the_end() -> bool:
        reader.read()
        return reader.ended

    wait_until(read_to_the_end, "the stream has ended", every=0.2)
    reader.check(TEXT * 3)


@pytest.mark.slow_fault
def test_the_python_client_reads_on_whatever_dies(stack: FaultStack) -> None:
    """Read one stream with the Python client while each process is killed in turn, and finally all at once."""

    def restart_redis() -> None:
        stack.kill_redis()
        stack.start_redis()

    def all_at_once() -> None:
        stack.kill_redis()
        stack.kill_stack()
        stack.start_redis()
        stack.start()

    # Each with the number of attempts that the job has had once the death was survived.
    deaths: list[tuple[Callable[[], None], int]] = [
        (lambda: kill(stack.pid_of("api")), 1),
        (lambda: kill(stack.engine_process().pid), 2),
        (restart_redis, 2),
        (lambda: kill(stack.pid_of("gpu0")), 3),
        (all_at_once, 4),
    ]
    # Long enough that the job still runs when the server is back, also on a busy machine.
    whole = TEXT * 10
    job = stack.submit_job(whole)
    ids, text, attempt, survived, pieces, died_at = [], "", 0, 1, 0, 0.0
    with Client(stack.server.url, retry_policy=RetryPolicy(retries=40, max_delay=2.0)) as client:
        for event in client.stream(job):
            ids.append(event.id)
            assert event.type != "restart"
            attempt = max(attempt, event.attempt)
            text += event.text
            # An event that was written before the last death does not show that the death was survived.
            pieces += event.type == "delta" and attempt == survived and event.at > died_at
            if deaths and pieces >= 5:
                die, survived = deaths.pop(0)
                die()
                pieces, died_at = 0, time.time()
        assert not deaths, "the stream was long enough"
        assert ids == list(range(1, len(ids) + 1)), "no event is missing or repeated"
        assert text == whole == client.get(job).text
    assert attempt == survived == 4, "the deaths of the engine, the worker and everything each cost an attempt"


@pytest.mark.slow_fault
def test_readers_that_read_nothing_slow_nobody_down(stack: FaultStack) -> None:
    jobs = stack.start_jobs(7, TEXT * 4)
    sockets = []
    for job in jobs * 4:
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        reader.connect(("127.0.0.1", stack.server.port))
        reader.sendall(f"GET /jobs/{job}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        sockets.append(reader)
    hold_fault(1)
    brisk = stack.wait_for_end(stack.submit_job())
    assert brisk.ended_at is not None
    assert brisk.ended_at - brisk.created_at < 1000 * len(TEXT) * TOKEN_SECONDS + 20_000, "the readers would block it for ever"
    for job in jobs:
        stack.wait_for_end(job)
    for reader in sockets:
        reader.close()
