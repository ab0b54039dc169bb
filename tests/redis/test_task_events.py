"""Batched task events: Flower sees every wake-up received, started and succeeded."""

import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import redis

from shared.jobs.celery_broker import CeleryBroker, celery_app
from shared.settings import Settings
from testing.repository import REPOSITORY
from testing.waiting import wait_until

WAKEUPS = 400

WORKER = """
import os
from shared.jobs.celery_broker import RUN_NEXT_JOB, celery_app
from shared.settings import Settings

app = celery_app(Settings(redis_url=os.environ["REDIS_URL"]), events="workers.runtime.celery_events:BatchedEvents")

@app.task(name=RUN_NEXT_JOB)
def run_next_job(queue):
    return queue
"""


def test_flower_sees_every_wakeup_received_started_and_succeeded(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "quick.py").write_text(WORKER)
    seen: Counter[str] = Counter()
    app = celery_app(Settings(redis_url=redis_url))
    listening = threading.Event()
    connection = app.connection_for_read()
    # One consumer from before the worker starts until it has stopped: events sent between two consumers are lost.
    receiver = app.events.Receiver(connection, handlers={"*": lambda event: seen.update([event["type"]])})
    receiver.on_consume_ready = lambda *_, **__: listening.set()
    watcher = threading.Thread(target=receiver.capture, kwargs={"wakeup": False})
    watcher.start()
    assert listening.wait(240)
    command = [sys.executable, "-m", "celery", "-A", "quick", "worker", "-P", "threads", "-c", "16", "-Q", "quick", "-E"]
    environment = {**os.environ, "REDIS_URL": redis_url, "PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}
    worker = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: seen["worker-online"], "the worker is online")
        CeleryBroker(redis_client).wake("quick", WAKEUPS)
        wait_until(lambda: seen["task-succeeded"] == WAKEUPS, "all wake-ups have succeeded")
        assert (seen["task-received"], seen["task-started"]) == (WAKEUPS, WAKEUPS)
    finally:
        worker.terminate()
        worker.wait(240)
        receiver.should_stop = True
        watcher.join(60)
        connection.release()
        redis_client.flushall()
