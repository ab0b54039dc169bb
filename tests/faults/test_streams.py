"""Fault 34: clients of an event stream that go away and come back, servers that die under them, readers that are slow."""

import json
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx2
import pytest

from enginehouse_client import Client, RetryPolicy
from testing.fault_rig.fault_stack import TEXT, FaultStack
from testing.fault_rig.pausing import pause
from testing.fault_rig.processes import family, kill
from testing.waiting import wait_until


class Reader:
    """A client that reads a job's stream piece by piece and remembers the last id, as a browser does."""

    def __init__(self, house: FaultStack, job: str) -> None:
        self._house = house
        self._job = job
        self.ids: list[int] = []
        self.text = ""
        self.ended = False

    def read(self, most: int = 10_000) -> None:
        """Connect, take up to ``most`` events, and hang up. A connection that breaks is no fault of the reader's."""
        headers = {"Last-Event-ID": str(self.ids[-1])} if self.ids else {}
        url = f"{self._house.stack.url}/jobs/{self._job}/events"
        with suppress(httpx2.HTTPError), httpx2.stream("GET", url, headers=headers, timeout=30) as answer:
            event: dict[str, Any] = {}
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name in ("id", "event", "data"):
                    event[name] = value
                elif not line and "id" in event:
                    self._take(event)
                    event, most = {}, most - 1
                if self.ended or not most:
                    return

    def _take(self, event: dict[str, Any]) -> None:
        self.ids.append(int(event["id"]))
        if event["event"] == "restart":
            self.text = ""
        elif event["event"] == "delta":
            self.text += json.loads(event["data"])["text"]
        self.ended = event["event"] == "ended"

    def check(self, text: str) -> None:
        assert self.ended
        assert self.ids == list(range(1, len(self.ids) + 1)), "no event is missing, none doubled"
        assert self.text == text


@pytest.mark.parametrize("events", [1, 7])
def test_34_a_client_that_comes_back_misses_and_repeats_nothing(house: FaultStack, events: int) -> None:
    job = house.submit(TEXT * 2)
    reader = Reader(house, job)
    while not reader.ended:
        reader.read(events)
    reader.check(TEXT * 2)


@pytest.mark.slow_fault
def test_34_a_client_sees_through_a_restart_of_its_job(house: FaultStack) -> None:
    [job] = house.running(1, TEXT * 2)
    reader = Reader(house, job)
    reader.read(5)
    kill(house.pid("gpu0"))
    reader.read()
    reader.check(TEXT * 2)


@pytest.mark.slow_fault
@pytest.mark.parametrize("what", ["servers", "connections", "half-open connections", "redis"])
def test_34_a_stream_goes_on_after_what_carried_it_has_died(house: FaultStack, what: str) -> None:
    job = house.submit(TEXT * 3)
    reader = Reader(house, job)
    reader.read(8)
    if what == "servers":
        for process in family(house.pid("api"))[1:]:
            kill(process.pid)
    elif what == "connections":
        house.proxy.reset()
    elif what == "half-open connections":
        house.proxy.half_open()
    else:
        house.kill_redis()
        house.start_redis()

    def read_to_the_end() -> bool:
        reader.read()
        return reader.ended

    wait_until(read_to_the_end, "the stream has ended", seconds=60, every=0.2)
    reader.check(TEXT * 3)


@pytest.mark.slow_fault
def test_34_the_client_reads_on_whatever_dies(house: FaultStack) -> None:
    """One stream of the Python client, and each process killed under it in turn, at last all of them at once."""

    def redis_again() -> None:
        house.kill_redis()
        house.start_redis()

    def all_at_once() -> None:
        house.kill_redis()
        house.kill_stack()
        house.start_redis()
        house.start()

    # Each with how many restarts of the answer there are once it has been survived.
    deaths: list[tuple[Callable[[], None], int]] = [
        (lambda: kill(house.pid("api")), 0),
        (lambda: kill(house.engine().pid), 1),
        (redis_again, 1),
        (lambda: kill(house.pid("gpu0")), 2),
        (all_at_once, 3),
    ]
    job = house.submit(TEXT * 3)
    ids, text, restarts, survived, pieces = [], "", 0, 0, 0
    with Client(house.stack.url, retry_policy=RetryPolicy(retries=40, max_delay=2.0)) as client:
        for event in client.stream(job):
            ids.append(event.id)
            if event.type == "restart":
                text, restarts = "", restarts + 1
            text += event.text
            # What comes late was written before the last death, and says nothing of how it was survived.
            pieces += event.type == "delta" and restarts == survived and time.time() - event.at < 1
            if deaths and pieces >= 5:
                die, survived = deaths.pop(0)
                die()
                pieces = 0
        assert not deaths, "the stream was long enough"
        assert ids == list(range(1, len(ids) + 1)), "no event is missing, none doubled"
        assert text == TEXT * 3 == client.get(job).text
    assert restarts == survived == 3, "the engine's death, the worker's, and that of all began the answer anew"


@pytest.mark.slow_fault
def test_34_readers_that_read_nothing_slow_nobody(house: FaultStack) -> None:
    jobs = house.running(7, TEXT * 4)
    sockets = []
    for job in jobs * 4:
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        reader.connect(("127.0.0.1", house.stack.port))
        reader.sendall(f"GET /jobs/{job}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        sockets.append(reader)
    pause(1)
    brisk = house.ended(house.submit())
    assert brisk.ended_at is not None
    assert brisk.ended_at - brisk.created_at < 1000 * len(TEXT) * 0.05 + 2000
    for job in jobs:
        house.ended(job)
    for reader in sockets:
        reader.close()
