"""Shared fixtures: one Redis server per test process, emptied before each test and checked for leaked keys after it."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from cli.errors import CommandError
from cli.local.redis_server import RedisServer, start_redis
from shared.jobs.maintenance import JobMaintenance
from shared.jobs.queries import JobQueries
from shared.jobs.submission import JobSubmitter
from shared.jobs.transitions import JobTransitions
from shared.jobs.wakeups import Wake
from shared.redis_connection import connect
from shared.settings import Settings
from testing.job_index_check import find_index_errors
from testing.key_leaks import find_leaked_keys
from testing.missing_services import missing_service
from testing.stack import Stack

pytest_plugins: list[str] = []

# In a container, tests often run as root. Commands that they start inherit this.
os.environ.setdefault("ENGINEHOUSE_ALLOW_ROOT", "1")
# Several tests compute at once. With a thread for each core in each process, threads would wait for others that have no core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

Stack.forked = True


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """Switch the garbage collector off during test collection, a quarter of whose time it takes, and exempt what was loaded from it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


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
    leaked = find_leaked_keys(client)
    index_errors = find_index_errors(client)
    client.close()
    assert not leaked, f"keys without a time to live or an owner: {leaked}"
    assert not index_errors, f"the index of jobs and the records differ: {index_errors}"


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, redis_url=redis_url)


class Clock:
    """A clock that moves only when the test advances it."""

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
    """The wake-ups that were sent, as pairs of queue and count."""
    return []


class JobSystem:
    """The services for jobs (submission, transitions, maintenance, queries) on one Redis and with one clock."""

    def __init__(self, client: redis.Redis, settings: Settings, wake: Wake, *, clock: Clock | None = None) -> None:
        self.client, self.settings, self.clock = client, settings, clock
        self.submitter = JobSubmitter(client, settings, wake, clock=clock)
        self.transitions = JobTransitions(client, settings, wake, clock=clock)
        self.maintenance = JobMaintenance(client, settings, wake, clock=clock)
        self.queries = JobQueries(client)


@pytest.fixture
def system(redis_client: redis.Redis, settings: Settings, clock: Clock, wakeups: list[tuple[str, int]]) -> JobSystem:
    return JobSystem(redis_client, settings, lambda queue, count: wakeups.append((queue, count)), clock=clock)
