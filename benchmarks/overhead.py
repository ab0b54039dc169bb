"""Overhead per job: the time from submission to result for a waiting client, with the echo engine.

For comparison, the same load generator runs plain Celery with an empty task and a Redis result backend in the same run. Run:
``.venv/bin/python -m benchmarks.overhead``.
"""

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.figures import figure, percentile
from cli.local.redis_server import start_redis
from testing.stack import Stack, models
from testing.waiting import wait_until

SLOTS = 64
PROMPT = "x" * 200


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--jobs", type=int, default=2000, help="jobs per measurement")
    arguments.add_argument("--clients", type=int, nargs="+", default=[1, 10, 100])
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        own = enginehouse(Path(folder), options.clients, options.jobs)
        baseline = plain_celery(Path(folder), options.clients, options.jobs)
    for clients in options.clients:
        ratio = own[clients] / baseline[clients]
        figure("overhead.jobs_per_second_ratio", ratio, "enginehouse / plain celery", clients=clients)


def enginehouse(folder: Path, clients: list[int], jobs: int) -> dict[int, float]:
    """Jobs per second of Enginehouse for each number of clients."""
    stack = quick_stack(folder)
    try:
        return {count: measure("enginehouse", count, jobs, job_client(stack)) for count in clients}
    finally:
        stack.stop()
        stack.kill()


def quick_stack(folder: Path) -> Stack:
    """A stack whose model answers at once, started and idle."""
    stack = Stack(folder, environment={"ENGINEHOUSE_LOG_LEVEL": "WARNING"})
    entries = models(0.0)
    entries[0]["max_in_flight"] = SLOTS
    stack.models.write_text(json.dumps(entries))
    stack.start()
    # Workers load their models in the background; the machine must be idle before the measurement.
    stack.warm_up()
    return stack


def job_client(stack: Stack, key: str = "") -> Callable[[], Callable[[], None]]:
    """Makes clients with a connection of their own, each a function that submits a job and waits for its result."""
    body = json.dumps({"prompt": PROMPT, "max_tokens": 8})
    headers = {"Content-Type": "application/json", "Prefer": "wait=60"} | ({"Authorization": f"Bearer {key}"} if key else {})

    def client() -> Callable[[], None]:
        connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=120)

        def submit_and_wait() -> None:
            connection.request("POST", "/generate", body, headers)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, text

        return submit_and_wait

    return client


def plain_celery(folder: Path, clients: list[int], jobs: int) -> dict[int, float]:
    """Jobs per second of plain Celery, with the same kind of Redis and as many slots."""
    redis = start_redis(folder / "baseline")
    os.environ["REDIS_URL"] = redis.url
    from benchmarks.plain_celery import app, empty_task

    command = [sys.executable, "-m", "celery", "-A", "benchmarks.plain_celery", "worker", "-P", "threads", "-c", str(SLOTS)]
    worker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: app.control.ping(timeout=0.5), "the plain Celery worker answers", seconds=30)

        def client() -> Callable[[], None]:
            return lambda: empty_task.delay(PROMPT).get(timeout=120)

        return {count: measure("plain celery", count, jobs, client) for count in clients}
    finally:
        worker.terminate()
        worker.wait(30)
        redis.stop()


def measure(what: str, clients: int, jobs: int, client: Callable[[], Callable[[], None]]) -> float:
    """Run jobs from concurrent clients; print latencies and return jobs per second."""
    latencies, seconds = run_jobs(clients, jobs, client)
    about = {"what": what, "clients": clients, "jobs": len(latencies)}
    figure("overhead.p50", 1000 * percentile(latencies, 50), "ms", **about)
    figure("overhead.p99", 1000 * percentile(latencies, 99), "ms", **about)
    figure("overhead.jobs_per_second", len(latencies) / seconds, "1/s", **about)
    return len(latencies) / seconds


def run_jobs(clients: int, jobs: int, client: Callable[[], Callable[[], None]]) -> tuple[list[float], float]:
    """Run jobs from concurrent clients, one at a time per client; returns their latencies and the time of all, in seconds."""
    each = max(1, jobs // clients if clients > 1 else jobs // 4)
    latencies: list[float] = []
    begin = threading.Barrier(clients + 1)

    def work() -> None:
        job = client()
        job()
        begin.wait()
        for _ in range(each):
            start = time.perf_counter()
            job()
            latencies.append(time.perf_counter() - start)

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    begin.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    assert len(latencies) == each * clients, "a client failed"
    return latencies, seconds


if __name__ == "__main__":
    main()
