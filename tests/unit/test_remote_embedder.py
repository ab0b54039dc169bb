"""The remote embedder when its server is away, does not answer, or ends during a call."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Listener
from pathlib import Path

import pytest

from shared.errors import EmbedderUnavailable
from workers.index.embedding_server import listen
from workers.index.remote_embedder import MAX_LOST_CALLS, RETRY_SECONDS, RemoteEmbedder


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class JobCancelled(Exception):
    pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def embedder(tmp_path: Path, clock: Clock) -> RemoteEmbedder:
    return RemoteEmbedder("tiny", tmp_path / "embedder.sock", clock=lambda: clock.now, sleep=clock.sleep)


def cancel() -> None:
    raise JobCancelled


def test_an_absent_server_is_an_outage_which_the_job_survives(embedder: RemoteEmbedder, clock: Clock) -> None:
    with pytest.raises(EmbedderUnavailable, match="cannot be reached") as raised:
        embedder.embed_texts(["tea"])
    assert raised.value.outage
    assert clock.now == pytest.approx(RETRY_SECONDS, abs=1)
    assert not embedder.is_loaded


def test_a_job_that_waits_for_an_absent_or_silent_server_can_be_cancelled(
    embedder: RemoteEmbedder, clock: Clock, tmp_path: Path
) -> None:
    embedder = embedder.stopped_by(cancel)
    with pytest.raises(JobCancelled):
        embedder.describe()
    with listen(tmp_path / "embedder.sock"), pytest.raises(JobCancelled):  # it never accepts the connection
        embedder.describe()
    assert clock.now == 0


def test_texts_that_may_end_the_server_fail_their_attempt(embedder: RemoteEmbedder, tmp_path: Path) -> None:
    with listen(tmp_path / "embedder.sock") as listener, closing_connections(listener) as closed:
        with pytest.raises(EmbedderUnavailable, match="ended 3 times") as raised:
            embedder.describe()
        assert len(closed) == MAX_LOST_CALLS
    assert raised.value.retryable
    assert not raised.value.outage


def test_only_the_user_of_the_server_may_connect(tmp_path: Path) -> None:
    path = tmp_path / "embedder.sock"
    with socket.socket(socket.AF_UNIX) as left_by_a_killed_server:
        left_by_a_killed_server.bind(str(path))
    with listen(path):
        assert path.stat().st_mode & 0o777 == 0o600


@contextmanager
def closing_connections(listener: Listener) -> Iterator[list[int]]:
    """Closes each connection after its request, as the kernel does when the server is killed."""
    closed: list[int] = []

    def close_each() -> None:
        for number in range(MAX_LOST_CALLS):
            with listener.accept() as connection:
                connection.recv_bytes()
                closed.append(number)

    thread = threading.Thread(target=close_each)
    thread.start()
    try:
        yield closed
    finally:
        thread.join()
