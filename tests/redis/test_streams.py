"""Event streams as one API process serves them: readers that are many, slow, gone or too many, and a Redis that falls silent."""

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import redis
from flask import Flask
from werkzeug.test import TestResponse

from api import event_stream
from api.app import REDIS_CONNECTIONS, create_app
from shared.jobs import completion_listener, event_streams
from shared.jobs.completion_listener import CompletionListener
from shared.jobs.event_streams import Follower, StreamEvent
from shared.jobs.models import Status
from shared.jobs.submission import Submission
from shared.jobs.transitions import Event
from shared.redis_connection import PREFIX
from shared.settings import Settings
from testing.fault_rig.proxy import Proxy
from testing.waiting import wait_until
from tests.conftest import JobSystem


class Writer:
    """A job that an attempt writes an answer to, piece by piece."""

    def __init__(self, system: JobSystem) -> None:
        self._system = system
        self.job = system.submitter.submit_job(Submission(kind="generate", queue="q", spec={"prompt": "x"}, owner="local")).id
        claimed = system.transitions.claim("q", "w", self.job)
        assert claimed is not None
        self._attempt = claimed.attempt
        self._index = 0

    def write(self, *pieces: str) -> None:
        made = []
        for piece in pieces:
            self._index += 1
            made.append(Event(job=self.job, attempt=self._attempt, index=self._index, type="delta", data={"text": piece}))
        assert set(self._system.transitions.append_events(made)) == {"ok"}

    def end(self) -> None:
        self._system.transitions.finish((self.job, self._attempt), Status.COMPLETED, result={"text": ""})


@pytest.fixture
def writer(system: JobSystem) -> Writer:
    return Writer(system)


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    proxy = Proxy(int(redis_url.rpartition(":")[2].partition("/")[0]))
    yield proxy
    proxy.close()


def app(settings: Settings) -> Flask:
    return create_app(replace(settings, api_threads=5))


def follow(app: Flask, job: str) -> TestResponse:
    return app.test_client().get(f"/jobs/{job}/events", buffered=False)


def ids(content: bytes) -> list[int]:
    return [int(number) for number in re.findall(rb"^id: (\d+)$", content, re.MULTILINE)]


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def test_streams_beyond_the_cap_are_refused_and_one_that_leaves_makes_room(settings: Settings, writer: Writer) -> None:
    served = app(settings)
    max_waiters = 4
    held = [follow(served, writer.job) for _ in range(max_waiters)]
    assert [answer.status_code for answer in held] == [200] * max_waiters
    refused = follow(served, writer.job)
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "1"
    assert "clients are already waiting on this server process" in refused.get_json()["error"]["message"]
    assert served.test_client().get(f"/jobs/{writer.job}").status_code == 200, "calls that do not wait go on"
    held.pop().close()  # before it has read anything
    one = follow(served, writer.job)
    assert one.status_code == 200
    assert follow(served, writer.job).status_code == 503
    for answer in [*held, one]:
        answer.close()


def test_a_reader_that_leaves_frees_everything(settings: Settings, writer: Writer) -> None:
    served = app(settings)
    follower: Follower = served.extensions["enginehouse"].follower
    pool = ThreadPoolExecutor(1)
    for known in range(2, 22):
        answer = follow(served, writer.job)
        pieces = iter(answer.response)
        assert next(pieces).startswith(b"retry: ")
        assert [ids(next(pieces)) for _ in range(known)] == [[number] for number in range(1, known + 1)]
        reading = pool.submit(next, pieces)
        wait_until(lambda: follower._listeners, "it follows")
        writer.write("x")
        assert ids(reading.result(10)) == [known + 1]
        answer.close()
        assert not follower._listeners
        assert not follower._position
    assert threads().count("follower") == 1


def test_many_readers_cost_one_reading_connection(settings: Settings, writer: Writer, redis_client: redis.Redis) -> None:
    before = {one["id"] for one in redis_client.client_list()}
    served = create_app(settings)
    answers = [follow(served, writer.job) for _ in range(200)]
    contents: list[bytes] = [b""] * len(answers)

    def read(number: int) -> None:
        contents[number] = b"".join(answers[number].response)
        answers[number].close()

    readers = [threading.Thread(target=read, args=[number]) for number in range(len(answers))]
    for reader in readers:
        reader.start()
    follower: Follower = served.extensions["enginehouse"].follower
    wait_until(lambda: len(follower._listeners.get(writer.job, ())) == len(answers), "all follow")
    writer.write(*map(str, range(100)))
    made = [one["cmd"] for one in redis_client.client_list() if one["id"] not in before]
    writer.end()
    for reader in readers:
        reader.join(30)
    assert {tuple(ids(content)) for content in contents} == {tuple(range(1, 104))}
    assert made.count("xread") == 1
    assert len(made) <= REDIS_CONNECTIONS + 2, "the pool, the one that reads, and the one that wakes it"


def test_a_quiet_stream_says_that_it_is_alive_and_ends_with_its_job(
    settings: Settings, writer: Writer, system: JobSystem, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert event_stream.KEEP_ALIVE_SECONDS == 15
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.05)
    answer = follow(app(settings), writer.job)
    pieces = iter(answer.response)
    assert next(pieces) == b"retry: 1000\n\n"
    assert ids(next(pieces) + next(pieces)) == [1, 2]
    assert [next(pieces), next(pieces)] == [b": keep-alive\n\n"] * 2
    redis_client.delete(f"{PREFIX}job:{writer.job}")  # as when its retention is over
    assert list(pieces) == []
    answer.close()


def test_a_slow_reader_gets_everything_and_slows_nobody(
    settings: Settings, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "MAX_BUFFERED", 10)
    served = app(settings)
    slow, brisk = follow(served, writer.job), follow(served, writer.job)
    pieces, brisk_pieces = iter(slow.response), iter(brisk.response)
    for answer in (pieces, brisk_pieces):
        next(answer), next(answer), next(answer)
    writer.write("first")
    assert ids(next(pieces)) == ids(next(brisk_pieces)) == [3]
    seen: list[int] = []
    for number in range(300):
        writer.write(str(number))
        while number + 4 not in seen:
            seen += ids(next(brisk_pieces))
    assert seen == list(range(4, 304)), "the other had each at once"
    writer.end()
    assert ids(b"".join(pieces)) == list(range(4, 305)), "what fell out of its inbox was read again"
    slow.close()
    brisk.close()


def test_a_stream_outlives_a_connection_that_is_half_open(
    settings: Settings, writer: Writer, proxy: Proxy, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert event_streams.BLOCK_SECONDS + event_streams.LATE_SECONDS <= 25, "so long may a stream stand still"
    monkeypatch.setattr(event_streams, "BLOCK_SECONDS", 0.5)
    monkeypatch.setattr(event_streams, "LATE_SECONDS", 0.5)
    follower = Follower(through(redis_url, proxy))
    heard: list[StreamEvent] = []
    follower.follow(writer.job, 0, heard.append)
    writer.write("before")
    wait_until(lambda: len(heard) == 3, "the stream is followed")
    assert proxy.half_open() > 0
    writer.write("after")
    wait_until(lambda: len(heard) == 4, "the stream goes on", seconds=10)
    assert [event.sequence for event in heard] == [1, 2, 3, 4]


def test_a_wait_outlives_a_connection_that_is_half_open(
    writer: Writer, proxy: Proxy, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion_listener, "QUIET_SECONDS", 0.5)
    listening = CompletionListener(through(redis_url, proxy))
    ended = listening.expect(writer.job)
    assert proxy.half_open() > 0
    writer.end()
    assert ended.wait(10), "the end is heard of by another connection"
    listening.forget(writer.job, ended)


def test_a_silent_connection_that_answers_is_kept(
    writer: Writer, redis_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completion_listener, "QUIET_SECONDS", 0.1)
    listening = CompletionListener(redis_url)
    ended = listening.expect(writer.job)

    def subscribers() -> list[str]:
        return [one["id"] for one in redis_client.client_list() if int(one["sub"])]

    [first] = subscribers()
    before = int(redis_client.info("commandstats")["cmdstat_ping"]["calls"])
    wait_until(
        lambda: int(redis_client.info("commandstats")["cmdstat_ping"]["calls"]) > before + 5, "it has been asked several times"
    )
    assert subscribers() == [first]
    writer.end()
    assert ended.wait(5)
    listening.forget(writer.job, ended)


def through(redis_url: str, proxy: Proxy) -> str:
    """The URL of Redis by way of the proxy."""
    return re.sub(r":\d+(/|$)", f":{proxy.port}\\1", redis_url)
