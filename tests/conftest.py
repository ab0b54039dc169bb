"""Fixtures of every test: a Redis of its own for each test process, emptied before and looked over after each test."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from cli.errors import CommandError
from cli.local.redis_server import RedisServer, start_redis
from shared.jobs.transitions import Lifecycle
from shared.redis_connection import connect
from shared.settings import Settings
from tests.key_leaks import keys_that_nobody_ends

pytest_plugins: list[str] = []


def missing_service(reason: str) -> None:
    """Skip on a laptop, fail in CI: a service that CI lacks would otherwise switch its tests off unseen."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    try:
        server = start_redis(tmp_path_factory.mktemp("redis"))
    except CommandError as error:
        missing_service(str(error))
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    return redis_server.url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    client = connect(redis_url)
    client.flushall()
    yield client
    leaked = keys_that_nobody_ends(client)
    client.close()
    assert not leaked, f"keys without a time to live that nobody owns: {leaked}"


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, redis_url=redis_url)


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now_ms = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def wakeups() -> list[tuple[str, int]]:
    """What was rung for: queue and number of tickets."""
    return []


@pytest.fixture
def lifecycle(redis_client: redis.Redis, settings: Settings, clock: Clock, wakeups: list[tuple[str, int]]) -> Lifecycle:
    ring: Callable[[str, int], None] = lambda queue, count: wakeups.append((queue, count))  # noqa: E731
    return Lifecycle(redis_client, settings, ring, clock=clock)
