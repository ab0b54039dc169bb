"""Wake-ups: a real Celery worker reads copies of one message template."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu.utils.eventio import poll

from cli.admin.redis_snapshot import BASE, save_snapshot
from cli.local.redis_server import is_answering
from shared.jobs.celery_broker import CeleryBroker, broker_url, celery_app
from shared.redis_connection import connect
from shared.settings import Settings
from testing.redis_sockets import redis_without_plain_tcp
from testing.repository import REPOSITORY
from testing.waiting import wait_until

WORKER = """
import os
from celery.worker import state
from shared.jobs.celery_broker import CANARY, RUN_NEXT_JOB, WakeupChannel, celery_app
from shared.settings import Settings

WakeupChannel.count_free_slots = lambda: 4 - len(state.reserved_requests)

app = celery_app(Settings(redis_url=os.environ["REDIS_URL"]))

@app.task(name=RUN_NEXT_JOB)
def run_next_job(queue):
    app.backend_client.rpush("taken", queue)
    if queue == "slow":
        app.backend_client.blpop("go on", 30)

@app.task(name=CANARY)
def canary():
    app.backend_client.rpush("taken", "canary")

import redis
app.backend_client = redis.Redis.from_url(os.environ["REDIS_URL"])
"""


@contextmanager
def reader(folder: Path, redis_url: str, queues: str) -> Iterator[None]:
    """A Celery worker with four threads that reads these queues."""
    (folder / "reader.py").write_text(WORKER)
    command = [sys.executable, "-m", "celery", "-A", "reader", "worker", "-P", "threads", "-c", "4", "--without-mingle"]
    worker = subprocess.Popen(
        [*command, "-Q", queues],
        env={"REDIS_URL": redis_url, "PYTHONPATH": f"{folder}:{REPOSITORY}", "PATH": ""},
        cwd=folder,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        worker.terminate()
        worker.wait(240)


def test_a_worker_takes_every_wakeup_and_the_canary(redis_client: redis.Redis, redis_url: str, tmp_path: Path) -> None:
    broker = CeleryBroker(redis_client)
    broker.wake("gpu.some-model", 50)
    broker.wake("gpu.some-model")
    broker.send_canary("w@host")
    broker.send_canary("w@host")
    with reader(tmp_path, redis_url, "gpu.some-model,canary.w@host"):
        wait_until(lambda: redis_client.llen("taken") == 52, "51 wake-ups and one canary are taken")
        assert sorted(set(redis_client.lrange("taken", 0, -1))) == ["canary", "gpu.some-model"]
        assert not list(redis_client.scan_iter("unacked*")), "a wake-up is not recorded as unacknowledged"
    redis_client.flushall()


def test_waiting_wakeups_are_read_without_a_blocking_read_for_each(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    redis_client.config_resetstat()
    CeleryBroker(redis_client).wake("gpu.m", 200)
    with reader(tmp_path, redis_url, "gpu.m"):
        wait_until(lambda: redis_client.llen("taken") == 200, "all wake-ups are taken")
    calls: Any = redis_client.info("commandstats")
    assert calls["cmdstat_brpop"]["calls"] < 150
    assert calls["cmdstat_rpop"]["calls"] < 150, "what waits is read in one command"
    redis_client.flushall()


@pytest.mark.parametrize("scheme", ["unix", "rediss"])
def test_wakeups_pass_a_unix_socket_and_tls(scheme: str, tmp_path: Path) -> None:
    with redis_without_plain_tcp(tmp_path) as urls:
        client = connect(urls[scheme])
        wait_until(lambda: is_answering(urls[scheme]), "Redis answers")
        CeleryBroker(client).wake("gpu.m", 3)
        with reader(tmp_path, urls[scheme], "gpu.m"):
            wait_until(lambda: client.llen("taken") == 3, "the wake-ups are taken")


@pytest.mark.parametrize("scheme", ["unix", "rediss"])
def test_a_snapshot_passes_a_unix_socket_and_tls(scheme: str, tmp_path: Path) -> None:
    with redis_without_plain_tcp(tmp_path) as urls:
        wait_until(lambda: is_answering(urls[scheme]), "Redis answers")
        connect(urls[scheme]).set("eh:key", "a value that the snapshot has")
        save_snapshot(urls[scheme], tmp_path / "snapshot")
    assert b"a value that the snapshot has" in (tmp_path / "snapshot" / BASE).read_bytes()


def test_celery_checks_the_certificate_unless_the_url_says_otherwise() -> None:
    assert broker_url("rediss://u:p%40@h:1/2") == "rediss://u:p%40@h:1/2?ssl_cert_reqs=CERT_REQUIRED"
    assert broker_url("rediss://h?ssl_cert_reqs=none&ssl_ca_certs=/ca") == "rediss://h?ssl_cert_reqs=CERT_NONE&ssl_ca_certs=%2Fca"
    assert broker_url("unix:///run/redis.sock") == "redis+socket:///run/redis.sock?virtual_host=0"
    assert broker_url("redis://h/1") == "redis://h/1"


def test_a_busy_worker_leaves_wakeups_in_the_queue(redis_client: redis.Redis, redis_url: str, tmp_path: Path) -> None:
    broker = CeleryBroker(redis_client)
    broker.wake("slow", 10)
    with reader(tmp_path, redis_url, "slow"):
        wait_until(lambda: redis_client.llen("taken") == 4, "each of the four slots has a wake-up")
        assert redis_client.llen("slow") == 6
        redis_client.rpush("go on", 1)
        wait_until(lambda: redis_client.llen("taken") == 5, "a free slot takes the next wake-up")
        assert redis_client.llen("slow") == 5
        redis_client.rpush("go on", *range(9))
        wait_until(lambda: redis_client.llen("taken") == 10, "all are taken")
    redis_client.flushall()


def test_a_worker_that_stops_does_not_wait_for_its_blocking_read(redis_url: str) -> None:
    app = celery_app(Settings(redis_url=redis_url))

    def closes_at_once() -> bool:
        with app.connection_for_read() as connection:
            channel = connection.default_channel
            channel.connection.cycle.on_poll_init(poll())
            app.amqp.TaskConsumer(channel, queues=[app.amqp.queues["enginehouse"]]).consume()
            channel.connection.cycle.on_poll_start()
            assert channel._in_poll, "the read has begun"
            started = time.monotonic()
            channel.close()
            return time.monotonic() - started < 0.5

    wait_until(closes_at_once, "a channel is closed in half of the second that the read takes, unless the machine is busy")


def test_every_wakeup_has_unique_ids(redis_client: redis.Redis) -> None:
    CeleryBroker(redis_client).wake("q", 3)
    messages = [json.loads(text) for text in redis_client.lrange("q", 0, -1)]
    redis_client.delete("q")
    for section, name in (("headers", "id"), ("properties", "correlation_id"), ("properties", "delivery_tag")):
        assert len({message[section][name] for message in messages}) == 3
