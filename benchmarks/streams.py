"""Event streams with 1,000 readers: latency of a token from the engine to each reader, memory, CPU and connections.

Runs 64 jobs on the echo engine, whose tokens are timestamps (``benchmarks/clocked``), and measures the API as it is shipped.
The baseline in the same run has the same Redis, jobs and gunicorn, but one Redis connection per reader
(``benchmarks/own_connections.py``). Run: ``.venv/bin/python -m benchmarks.streams``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import redis

from benchmarks.figures import figure, percentile
from cli.local.process_commands import api_command, environment_of
from cli.local.redis_server import free_port
from shared.settings_sources import from_environment
from testing.repository import REPOSITORY
from testing.stack import Stack, models
from testing.waiting import wait_until


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readers", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=100, help="tokens per job")
    parser.add_argument(
        "--token-seconds", type=float, default=0.25, help="seconds that the engine takes for one token of all jobs"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = {"ENGINEHOUSE_LOG_LEVEL": "WARNING", "PYTHONPATH": str(REPOSITORY / "benchmarks" / "clocked")}
        stack = Stack(Path(folder), environment=environment)
        entries = models(options.token_seconds)
        entries[0] |= {"max_in_flight": options.jobs, "max_tokens": options.tokens + 1}
        stack.models.write_text(json.dumps(entries))
        stack.start()
        try:
            stack.warm_up()
            measure("enginehouse", stack, stack.port, stack.pid("api"), options)
            with own_connections(stack) as (port, pid):
                measure("connection per reader", stack, port, pid, options)
        finally:
            stack.stop()
            stack.kill()


def measure(variant: str, stack: Stack, port: int, server: int, options: argparse.Namespace) -> None:
    """Let the readers follow new jobs to their ends, and print the figures."""
    processes = [psutil.Process(server), *psutil.Process(server).children(recursive=True)]
    store = redis.Redis.from_url(stack.redis_url())
    memory, redis_port = used_memory(processes), store.get_connection_kwargs()["port"]
    seconds, store_seconds = used_seconds(processes), used_seconds([psutil.Process(stack.pid("redis"))])
    jobs = [stack.generate("x" * options.tokens, max_tokens=options.tokens)["id"] for _ in range(options.jobs)]
    plan = {"host": "127.0.0.1", "port": port, "jobs": [jobs[number % len(jobs)] for number in range(options.readers)]}
    readers = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.stream_readers"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert readers.stdin is not None
    assert readers.stdout is not None
    readers.stdin.write(json.dumps(plan))
    readers.stdin.close()
    assert readers.stdout.readline() == "connected\n"
    peak_memory = used_memory(processes)
    connections = sum(
        1
        for process in processes
        for connection in process.net_connections("tcp")
        if connection.raddr and connection.raddr.port == redis_port
    )
    threads = sum(process.num_threads() for process in processes)
    report: dict[str, Any] = json.loads(readers.stdout.readline())
    readers.wait(30)
    spent = used_seconds(processes) - seconds
    store_spent = used_seconds([psutil.Process(stack.pid("redis"))]) - store_seconds
    texts = {job: stack.ended(job, 60)["result"]["text"] for job in jobs}
    complete = [reader for reader in report["readers"] if reader["complete"] and reader["text"] == texts[reader["job"]]]
    delays, events = report["delays"], sum(reader["events"] for reader in report["readers"])
    about = {"what": variant, "readers": options.readers, "jobs": options.jobs, "token_seconds": options.token_seconds}
    figure("streams.lost", options.readers - len(complete), "readers that missed events", **about, statuses=report["statuses"])
    figure("streams.from_engine_p50", 1000 * percentile(delays, 50), "ms", **about)
    figure("streams.from_engine_p99", 1000 * percentile(delays, 99), "ms", **about)
    figure("streams.redis_connections", connections, "of all API processes", **about)
    figure("streams.memory", (peak_memory - memory) / options.readers / 1024, "kB per reader", **about, threads=threads)
    figure("streams.cpu", 1e6 * spent / events, "µs of the API per event and reader", **about)
    figure("streams.redis_cpu", 1e6 * store_spent / events, "µs of Redis per event and reader", **about)


@contextmanager
def own_connections(stack: Stack) -> Iterator[tuple[int, int]]:
    """Start the baseline server in the same way as the API, and yield its port and process id."""
    settings = replace(from_environment(os.environ), port=free_port(), redis_url=stack.redis_url())
    command = ["benchmarks.own_connections:app" if word == "api.wsgi:app" else word for word in api_command(settings)]
    server = subprocess.Popen(command, env=environment_of(settings), cwd=REPOSITORY)
    try:
        wait_until(lambda: len(psutil.Process(server.pid).children()) == settings.api_workers, "its workers run")
        wait_until(lambda: listens(settings.port), "it listens")
        yield settings.port, server.pid
    finally:
        server.terminate()
        server.wait(30)


def listens(port: int) -> bool:
    connections = psutil.net_connections("tcp")
    return any(socket.laddr and socket.laddr.port == port and socket.status == psutil.CONN_LISTEN for socket in connections)


def used_memory(processes: list[psutil.Process]) -> int:
    """Bytes that only these processes use (unique set size)."""
    return sum(process.memory_full_info().uss for process in processes)


def used_seconds(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


if __name__ == "__main__":
    main()
