"""Event streams of one API process: many, slow, disconnected and too many readers, and half-open Redis connections."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import redis
from flask import Flask
from werkzeug.test import TestResponse

from api import event_stream
from api.app import REDIS_CONNECTIONS, create_app
from shared.jobs import event_streams
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
    """A running job whose attempt writes its answer in pieces."""

    def __init__(self, system: JobSystem) -> None:
        self._system = system
        self.job = system.submitter.submit_job(Submission(kind="generate", queue="q", spec={"prompt": "x"}, owner="local")).id
        claimed = system.transitions.claim("q", "w", self.job)
        assert claimed is not None
        self._attempt = claimed.attempt
        self._index = 0

    def write(self, *pieces: str) -> None:
        events = []
        for piece in pieces:
            self._index += 1
            events.append(Event(job=self.job, attempt=self._attempt, index=self._index, type="delta", data={"text": piece}))
        assert set(self._system.transitions.append_events(events)) <= {"ok", "followed"}

    def end(self) -> None:
        self._system.transitions.finish((self.job, self._attempt), Status.COMPLETED, result={"text": ""})


@pytest.fixture
def writer(system: JobSystem) -> Writer:
    return Writer(system)


def app(settings: Settings) -> Flask:
    return create_app(replace(settings, api_threads=5))


def follow(app: Flask, job: str) -> TestResponse:
    return app.test_client().get(f"/jobs/{job}/events", buffered=False)


def ids(content: bytes) -> list[int]:
    return [int(number) for number in re.findall(rb"^id: (\d+)$", content, re.MULTILINE)]


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def test_streams_above_the_limit_are_rejected_until_one_closes(settings: Settings, writer: Writer) -> None:
    served = app(settings)
    max_waiters = 4
    held = [follow(served, writer.job) for _ in range(max_waiters)]
    assert [answer.status_code for answer in held] == [200] * max_waiters
    refused = follow(served, writer.job)
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "1"
    assert "clients are already waiting on this server process" in refused.get_json()["error"]["message"]
    assert served.test_client().get(f"/jobs/{writer.job}").status_code == 200, "calls that do not wait still work"
    held.pop().close()  # before it has read anything
    accepted = follow(served, writer.job)
    assert accepted.status_code == 200
    assert follow(served, writer.job).status_code == 503
    for answer in [*held, accepted]:
        answer.close()


def test_a_stream_from_beyond_the_last_event_ends_with_its_job(settings: Settings, writer: Writer) -> None:
    answer = app(settings).test_client().get(f"/jobs/{writer.job}/events?after=3", buffered=False)
    pieces = iter(answer.response)
    assert next(pieces).startswith(b"retry: ")
    reading = ThreadPoolExecutor(1).submit(lambda: b"".join(pieces))
    writer.write("two", "three", "four")
    writer.end()
    content = reading.result(30)
    assert ids(content)[0] == 4, "events that the client has already are not repeated"
    assert content.rstrip().endswith(b'"status": "completed"}')
    answer.close()
    far = app(settings).test_client().get(f"/jobs/{writer.job}/events?after=999")
    assert far.status_code == 204


def test_a_closed_stream_releases_all_resources(settings: Settings, writer: Writer) -> None:
    served = app(settings)
    follower: Follower = served.extensions["enginehouse"].follower
    pool = ThreadPoolExecutor(1)
    others = threads().count("follower")  # of applications of other tests
    for count in range(2, 22):
        answer = follow(served, writer.job)
        pieces = iter(answer.response)
        assert next(pieces).startswith(b"retry: ")
        assert ids(next(pieces)) == list(range(1, count + 1))
        reading = pool.submit(next, pieces)
        wait_until(lambda: follower._listeners, "the stream is followed")
        writer.write("x")
        assert ids(reading.result(60)) == [count + 1]
        answer.close()
        assert not follower._listeners
        assert not follower._position
    assert threads().count("follower") == others + 1


def test_many_readers_share_one_blocking_connection(settings: Settings, writer: Writer, redis_client: redis.Redis) -> None:
    before = {connection["id"] for connection in redis_client.client_list()}
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
    wait_until(lambda: len(follower._listeners.get(writer.job, ())) == len(answers), "all streams are followed")
    writer.write(*map(str, range(100)))
    commands = [connection["cmd"] for connection in redis_client.client_list() if connection["id"] not in before]
    writer.end()
    for reader in readers:
        reader.join(60)
    assert {tuple(ids(content)) for content in contents} == {tuple(range(1, 104))}
    assert commands.count("xread") == 1
    assert len(commands) <= REDIS_CONNECTIONS + 2, "the pool, the blocking connection, and the one that interrupts it"


def test_a_quiet_stream_sends_keep_alives_and_ends_with_its_job(
    settings: Settings, writer: Writer, system: JobSystem, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert event_stream.KEEP_ALIVE_SECONDS == 15
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.05)
    answer = follow(app(settings), writer.job)
    pieces = iter(answer.response)
    assert next(pieces) == b"retry: 1000\n\n"
    assert ids(next(pieces) + next(pieces)) == [1, 2]
    assert [next(pieces), next(pieces)] == [b": keep-alive\n\n"] * 2
    redis_client.rename(f"{PREFIX}job:{writer.job}", f"{PREFIX}hidden")  # it is gone, as when its retention ends
    assert list(pieces) == []
    answer.close()
    redis_client.rename(f"{PREFIX}hidden", f"{PREFIX}job:{writer.job}")  # records and index are compared after the test


def test_a_quiet_stream_survives_an_outage(
    settings: Settings, writer: Writer, proxy: Proxy, proxied_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.05)
    answer = follow(app(replace(settings, redis_url=proxied_url)), writer.job)
    pieces = iter(answer.response)
    assert ids(next(pieces) + next(pieces) + next(pieces) + next(pieces)) == [1, 2]
    proxy.refuse()
    assert [next(pieces) for _ in range(3)] == [b": keep-alive\n\n"] * 3
    proxy.heal()
    writer.end()
    assert ids(b"".join(pieces)) == [3]
    answer.close()


def test_a_listener_that_cannot_be_added_leaves_nothing(writer: Writer, proxy: Proxy, proxied_url: str) -> None:
    follower = Follower(proxied_url)
    proxy.refuse()
    with pytest.raises(redis.ConnectionError):
        follower.follow(writer.job, 0, lambda event: None)
    assert not follower._listeners
    assert not follower._position


@pytest.mark.slow_fault
def test_a_slow_reader_gets_all_events_and_delays_no_other(
    settings: Settings, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "MAX_BUFFERED", 10)
    served = app(settings)
    slow, fast = follow(served, writer.job), follow(served, writer.job)
    pieces, fast_pieces = iter(slow.response), iter(fast.response)
    for answer in (pieces, fast_pieces):
        next(answer), next(answer), next(answer)
    writer.write("first")
    assert ids(next(pieces)) == ids(next(fast_pieces)) == [3]
    seen: list[int] = []
    for number in range(300):
        writer.write(str(number))
        while number + 4 not in seen:
            seen += ids(next(fast_pieces))
    assert seen == list(range(4, 304)), "the fast reader got each event at once"
    writer.end()
    assert ids(b"".join(pieces)) == list(range(4, 305)), "events that were dropped from the buffer are read from Redis"
    slow.close()
    fast.close()


def test_a_stream_survives_a_half_open_connection(
    settings: Settings, writer: Writer, proxy: Proxy, proxied_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert event_streams.BLOCK_SECONDS + event_streams.LATE_SECONDS <= 25, "a stream may stall for at most 25 seconds"
    monkeypatch.setattr(event_streams, "BLOCK_SECONDS", 0.5)
    monkeypatch.setattr(event_streams, "LATE_SECONDS", 0.5)
    follower = Follower(proxied_url)
    received: list[StreamEvent] = []
    follower.follow(writer.job, 0, received.append)
    writer.write("before")
    wait_until(lambda: len(received) == 3, "the stream is followed")
    assert proxy.half_open() > 0
    writer.write("after")
    wait_until(lambda: len(received) == 4, "the stream continues")
    assert [event.sequence for event in received] == [1, 2, 3, 4]
