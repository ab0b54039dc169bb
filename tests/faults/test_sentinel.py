"""Redis with Sentinel behind a proxy that always points at the primary: when the primary dies, its replica takes over."""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from cli.local.process_tree import spawn
from cli.local.redis_server import RedisServer, find_binary, free_port, start_redis
from shared.redis_connection import connect
from testing.fault_rig.proxy import Proxy
from testing.stack import QUICK, Stack
from testing.waiting import wait_until

PRIMARY = "primary"
# A job runs for at least this long: 64 tokens of the echo model.
TOKEN_SECONDS = 0.3
SENTINEL = """\
bind 127.0.0.1
port {port}
dir "{folder}"
sentinel monitor {name} 127.0.0.1 {primary} 1
sentinel auth-pass {name} {password}
sentinel down-after-milliseconds {name} 2000
sentinel failover-timeout {name} 10000
"""


@dataclass
class ReplicatedRedis:
    """A primary, its replica, a Sentinel that watches both, and a proxy in front of the primary."""

    primary: RedisServer
    replica: RedisServer
    sentinel: redis.Redis
    proxy: Proxy

    @property
    def url(self) -> str:
        return re.sub(r":\d+/0$", f":{self.proxy.port}/0", self.primary.url)

    def port_of_primary(self) -> int:
        """The port of the primary, as Sentinel sees it."""
        found: Any = self.sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", PRIMARY)
        return int(found[1])

    def replicas_that_sentinel_knows(self) -> int:
        found: Any = self.sentinel.execute_command("SENTINEL", "REPLICAS", PRIMARY)
        return len(found)


@pytest.fixture
def replicated(tmp_path: Path) -> Iterator[ReplicatedRedis]:
    primary = start_redis(tmp_path / "first")
    password = (tmp_path / "first" / "password").read_text()
    (tmp_path / "second").mkdir()
    shutil.copy(tmp_path / "first" / "password", tmp_path / "second" / "password")
    replica = start_redis(tmp_path / "second")
    # A primary that comes back needs the password of the other one, too.
    for server in (primary, replica):
        connect(server.url).config_set("masterauth", password)
    follower = connect(replica.url)
    follower.replicaof("127.0.0.1", str(primary.port))
    wait_until(lambda: follower.info("replication")["master_link_status"] == "up", "the replica follows its primary")
    port = free_port()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(SENTINEL.format(port=port, folder=tmp_path, name=PRIMARY, primary=primary.port, password=password))
    with (tmp_path / "sentinel.log").open("ab") as log:
        process = spawn([find_binary(), str(configuration), "--sentinel"], environment=os.environ, output=log)
    found = ReplicatedRedis(primary, replica, connect(f"redis://127.0.0.1:{port}/0"), Proxy(primary.port))
    try:
        wait_until(lambda: _answers(found), "Sentinel knows the primary and its replica")
        yield found
    finally:
        found.proxy.close()
        process.kill()
        process.wait()
        for server in (primary, replica):
            if server.process.poll() is None:
                server.kill()


def _answers(found: ReplicatedRedis) -> bool:
    try:
        return found.replicas_that_sentinel_knows() == 1
    except redis.exceptions.ConnectionError:
        return False


@pytest.mark.slow_fault
def test_accepted_jobs_end_after_a_failover(replicated: ReplicatedRedis, tmp_path: Path) -> None:
    environment = {**QUICK, "REDIS_URL": replicated.url}
    folder = tmp_path / "stack"
    folder.mkdir()
    stack = Stack(folder, token_seconds=TOKEN_SECONDS, environment=environment).start()
    try:
        before = stack.ended(stack.generate("before", max_tokens=1)["id"])
        jobs = [stack.generate(f"word {number} " * 40, max_tokens=64)["id"] for number in range(12)]
        wait_until(lambda: stack.job(jobs[0])["status"] == "in_progress", "a job runs")
        # Replication is asynchronous. What is accepted from here on may be lost, and nothing before it.
        assert connect(replicated.primary.url).wait(1, 60_000) == 1
        replicated.primary.kill()
        wait_until(lambda: replicated.port_of_primary() == replicated.replica.port, "Sentinel has made the replica the primary")
        assert connect(replicated.replica.url).info("replication")["role"] == "master"
        replicated.proxy.redirect(replicated.replica.port)
        wait_until(lambda: stack.client.get("/health/ready").status_code == 200, "the server is ready again", every=0.2)
        assert [stack.ended(job)["status"] for job in jobs] == ["completed"] * len(jobs)
        assert stack.job(before["id"])["result"] == before["result"]
        assert stack.ended(stack.generate("after", max_tokens=1)["id"])["status"] == "completed"
    finally:
        stack.stop()
        stack.kill()
