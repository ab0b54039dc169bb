"""Each process has a user of Redis with the keys and commands that it needs, and no others.

That it has all that it needs is tested by every test of a stack: ``tests/flows/conftest.py`` checks that Redis denied nothing.
"""

from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import redis

from cli.local.redis_server import RedisServer, redis_url
from cli.local.redis_users import RULES
from shared.machine import memory_bytes
from testing.stack import Stack

FORBIDDEN = (
    "FLUSHALL",
    "FLUSHDB",
    "SWAPDB 0 1",
    "KEYS *",
    "SORT eh:jobs:due",
    "CONFIG GET *",
    "CONFIG SET dir /tmp",
    "ACL LIST",
    "ACL SETUSER api on",
    "SHUTDOWN",
    "DEBUG SLEEP 0",
    "MODULE LOAD x.so",
    "REPLICAOF localhost 1",
    "CLIENT LIST",
    "CLIENT KILL ID 1",
    "MONITOR",
    "SAVE",
    "SCRIPT FLUSH",
    "FUNCTION FLUSH",
    "SLOWLOG GET",
    "MIGRATE localhost 1 eh:keys 0 1",
    "RESTORE eh:keys 0 x",
    "CLUSTER INFO",
)
WORKERS = ("gpu", "cpu", "io")


@pytest.fixture(scope="module")
def administrator(redis_server: RedisServer) -> redis.Redis:
    return redis.Redis.from_url(redis_server.url, decode_responses=True)


def may(administrator: redis.Redis, user: str, command: str) -> bool:
    return bool(administrator.execute_command("ACL", "DRYRUN", user, *command.split()) == "OK")


def connected(server: RedisServer, user: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url(server.folder, server.port, user))


@pytest.mark.parametrize("user", RULES)
def test_no_process_may_administer_redis(administrator: redis.Redis, redis_server: RedisServer, user: str) -> None:
    assert [command for command in FORBIDDEN if may(administrator, user, command)] == []
    with pytest.raises(redis.exceptions.NoPermissionError):
        connected(redis_server, user).flushall()


def test_a_script_has_no_more_rights_than_its_user(redis_server: RedisServer) -> None:
    for user in ("api", *WORKERS):
        with pytest.raises(redis.ResponseError, match="ACL failure"):
            connected(redis_server, user).eval("return redis.call('FLUSHALL')", 0)
    with pytest.raises(redis.ResponseError, match="ACL failure"):
        connected(redis_server, "cpu").eval("return redis.call('HSET', 'eh:keys', 'digest', '{}')", 0)


@pytest.mark.parametrize("user", WORKERS)
def test_a_worker_cannot_create_keys_or_raise_limits(administrator: redis.Redis, user: str) -> None:
    for command in (
        "HSET eh:keys digest {}",
        "DEL eh:keys",
        "HSET eh:weights ada 9",
        "HSET eh:owner:ada:limits documents 0",
        "HSET eh:key:key_1:limits tokens_per_day 0",
    ):
        assert not may(administrator, user, command)
    assert may(administrator, user, "HLEN eh:keys")


@pytest.mark.parametrize("user", ["gpu", "cpu"])
def test_only_the_io_worker_changes_webhooks_and_reads_the_secrets_of_owners(administrator: redis.Redis, user: str) -> None:
    for command in ("HSET eh:webhook:x url http://evil", "HGET eh:owner:ada:webhook_secret secret"):
        assert not may(administrator, user, command)
        assert may(administrator, "io", command)


@pytest.mark.parametrize("user", ["flower", "keda"])
def test_monitoring_reads_no_jobs_and_takes_no_wakeups(administrator: redis.Redis, user: str) -> None:
    for command in ("HGETALL eh:job:x", "GET eh:job:x:result", "HGETALL eh:keys", "BRPOP cpu 1", "DEL cpu", "LPUSH cpu x"):
        assert not may(administrator, user, command)
    assert may(administrator, user, "LLEN cpu")


def test_every_user_has_a_password_of_its_own(administrator: redis.Redis, redis_server: RedisServer) -> None:
    passwords = {urlsplit(redis_url(redis_server.folder, redis_server.port, user)).password for user in ("", *RULES)}
    assert len(passwords) == len(RULES) + 1
    for user in RULES:
        entry: Any = administrator.acl_getuser(user)
        assert "nopass" not in entry["flags"]
        assert len(entry["passwords"]) == 1
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=redis_server.port).ping()


def test_the_memory_of_redis_is_limited(stack: Stack) -> None:
    limit = redis.Redis.from_url(stack.redis_url()).info("memory")["maxmemory"]
    assert 0 < limit <= memory_bytes() / 4


def test_the_processes_of_a_stack_have_no_login_but_their_own(stack: Stack) -> None:
    everything = urlsplit(stack.redis_url()).password
    assert everything is not None
    processes = stack.pids()
    users = {}
    for name in processes.keys() - {"redis"}:
        environment = psutil.Process(processes[name]).environ()
        assert everything not in "".join(environment.values()), name
        users[name] = urlsplit(environment.get("REDIS_URL", "")).username
    assert users == {"api": "api", "gpu0": "gpu", "cpu": "cpu", "io": "io", "chroma": None}
