"""Our Redis server persists jobs, and an external server that would lose them is rejected."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from cli.errors import CommandError
from cli.local.redis_server import RedisServer, check_redis, start_redis
from shared.jobs.maintenance import JobMaintenance
from shared.redis_connection import connect
from shared.settings import Settings
from testing.waiting import wait_until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = start_redis(tmp_path / "a folder")
    yield server
    server.stop()


def test_data_survives_kill_9(server: RedisServer) -> None:
    redis.Redis.from_url(server.url).set("job", "queued")
    server.kill()
    again = start_redis(server.folder, server.port)
    assert redis.Redis.from_url(again.url).get("job") == b"queued"
    again.stop()


def test_what_was_deleted_leaves_the_append_only_file(server: RedisServer) -> None:
    client = connect(server.url)
    maintenance = JobMaintenance(client, Settings(log_rewrite_seconds=3600), lambda queue, count: None)

    def is_on_disk() -> bool:
        try:
            return any(b"a secret prompt" in file.read_bytes() for file in (server.folder / "appendonlydir").iterdir())
        except FileNotFoundError:
            return True  # a rewrite is replacing the files

    client.set("job", "a secret prompt")
    wait_until(is_on_disk, "the value is on disk")
    client.delete("job")
    assert maintenance.rewrite_log()
    wait_until(lambda: not is_on_disk(), "the deleted value is not on disk")
    assert not maintenance.rewrite_log(), "the file is rewritten at most once per interval"


def test_the_password_is_required_and_private(server: RedisServer) -> None:
    with pytest.raises(CommandError, match="rejected the login"):
        check_redis(f"redis://127.0.0.1:{server.port}/0")
    for file in (server.folder / "password", server.folder / "redis.conf"):
        assert file.stat().st_mode & 0o077 == 0


def test_our_server_passes_the_check(server: RedisServer) -> None:
    assert check_redis(server.url) == []


@pytest.mark.parametrize(
    ("setting", "value", "why"), [("maxmemory-policy", "allkeys-lru", "may evict jobs"), ("appendonly", "no", "loses its jobs")]
)
def test_a_redis_that_would_lose_jobs_is_rejected_unless_allowed(server: RedisServer, setting: str, value: str, why: str) -> None:
    redis.Redis.from_url(server.url).config_set(setting, value)
    with pytest.raises(CommandError, match=why) as refusal:
        check_redis(server.url)
    assert "\n" not in str(refusal.value)
    [warning] = check_redis(server.url, allow_unsafe=True)
    assert why in warning


def test_an_unreachable_redis_is_reported_without_its_password(server: RedisServer) -> None:
    server.kill()
    with pytest.raises(CommandError, match="does not answer") as refusal:
        check_redis(server.url)
    assert server.url.split(":")[2].split("@")[0] not in str(refusal.value)
