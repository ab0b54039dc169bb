"""The Redis that we start keeps jobs, and one that would lose them is refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from cli.errors import CommandError
from cli.local.redis_server import RedisServer, check_redis, start_redis


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = start_redis(tmp_path / "a folder")
    yield server
    server.stop()


def test_what_was_written_is_there_after_kill_9(server: RedisServer) -> None:
    redis.Redis.from_url(server.url).set("job", "queued")
    server.kill()
    again = start_redis(server.folder, server.port)
    assert redis.Redis.from_url(again.url).get("job") == b"queued"
    again.stop()


def test_it_wants_a_password_that_only_its_owner_can_read(server: RedisServer) -> None:
    with pytest.raises(CommandError, match="refuses the login"):
        check_redis(f"redis://127.0.0.1:{server.port}/0")
    for file in (server.folder / "password", server.folder / "redis.conf"):
        assert file.stat().st_mode & 0o077 == 0


def test_it_passes_its_own_check(server: RedisServer) -> None:
    assert check_redis(server.url) == []


@pytest.mark.parametrize(
    ("setting", "value", "why"), [("maxmemory-policy", "allkeys-lru", "may evict jobs"), ("appendonly", "no", "loses its jobs")]
)
def test_a_redis_that_would_lose_jobs_is_refused_and_tolerated_when_told(
    server: RedisServer, setting: str, value: str, why: str
) -> None:
    redis.Redis.from_url(server.url).config_set(setting, value)
    with pytest.raises(CommandError, match=why) as refusal:
        check_redis(server.url)
    assert "\n" not in str(refusal.value)
    [warning] = check_redis(server.url, allow_unsafe=True)
    assert why in warning


def test_a_redis_that_does_not_answer_is_named_without_its_password(server: RedisServer) -> None:
    server.kill()
    with pytest.raises(CommandError, match="does not answer") as refusal:
        check_redis(server.url)
    assert server.url.split(":")[2].split("@")[0] not in str(refusal.value)
