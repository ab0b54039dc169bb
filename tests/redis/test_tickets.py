"""Tickets that are copies of one message are read by a real Celery worker."""

import json
import subprocess
import sys
from pathlib import Path

import redis

from shared.jobs.tickets import Tickets
from shared.settings import REPOSITORY
from tests.waiting import wait_until

WORKER = """
import os
from shared.jobs.tickets import CANARY, TICKET, celery_app
from shared.settings import Settings

app = celery_app(Settings(redis_url=os.environ["REDIS_URL"]))

@app.task(name=TICKET)
def ticket(queue):
    app.backend_client.rpush("taken", queue)

@app.task(name=CANARY)
def canary():
    app.backend_client.rpush("taken", "canary")

import redis
app.backend_client = redis.Redis.from_url(os.environ["REDIS_URL"])
"""


def test_a_worker_takes_every_ticket_and_the_canary(redis_client: redis.Redis, redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "reader.py").write_text(WORKER)
    tickets = Tickets(redis_client)
    tickets.issue("gpu.some-model", 50)
    tickets.issue("gpu.some-model")
    tickets.issue_canary("w@host")
    tickets.issue_canary("w@host")
    command = [sys.executable, "-m", "celery", "-A", "reader", "worker", "-P", "threads", "-c", "4", "--without-mingle"]
    worker = subprocess.Popen(
        [*command, "-Q", "gpu.some-model,canary.w@host"],
        env={"REDIS_URL": redis_url, "PYTHONPATH": f"{tmp_path}:{REPOSITORY}", "PATH": ""},
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: redis_client.llen("taken") == 52, "51 tickets and one canary are taken", seconds=30)
        assert sorted(set(redis_client.lrange("taken", 0, -1))) == ["canary", "gpu.some-model"]
    finally:
        worker.terminate()
        worker.wait(20)
        redis_client.flushall()


def test_every_ticket_has_ids_of_its_own(redis_client: redis.Redis) -> None:
    Tickets(redis_client).issue("q", 3)
    messages = [json.loads(text) for text in redis_client.lrange("q", 0, -1)]
    redis_client.delete("q")
    for place, name in (("headers", "id"), ("properties", "correlation_id"), ("properties", "delivery_tag")):
        assert len({message[place][name] for message in messages}) == 3
