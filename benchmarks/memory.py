"""Memory of each process of a stack: idle, and while it runs jobs.

The proportional set size (PSS) of each process and of its children is read when the stack is idle, and after each quarter of the
jobs. What grows without bound would grow as much in the last half as in the first. Redis keeps ended jobs, whose number
``ENGINEHOUSE_MAX_KEPT_JOBS`` limits, so that it grows until then. Run: ``.venv/bin/python -m benchmarks.memory``.
"""

import argparse
import http.client
import json
import tempfile
import threading
from pathlib import Path

import psutil

from benchmarks.figures import figure
from testing.stack import Stack

PARTS = 4
MEGABYTE = 1024 * 1024
BODY = json.dumps({"prompt": "x" * 200, "max_tokens": 8})
HEADERS = {"Content-Type": "application/json", "Prefer": "wait=60"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--kept-jobs", type=int, default=2000, help="ended jobs that Redis keeps, so that it stops growing")
    options = parser.parse_args()
    environment = {"ENGINEHOUSE_LOG_LEVEL": "WARNING", "ENGINEHOUSE_MAX_KEPT_JOBS": str(options.kept_jobs)}
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), environment=environment).start()
        try:
            stack.warm_up()
            readings = [memory_of(stack)]
            for _ in range(PARTS):
                run_jobs(stack, options.jobs // PARTS, options.clients)
                readings.append(memory_of(stack))
        finally:
            stack.stop()
            stack.kill()
    report(readings, options.jobs)


def report(readings: list[dict[str, int]], jobs: int) -> None:
    """Print what each process has at first, in the middle and at the end, and how much it grew per job in the last half."""
    middle = len(readings) // 2
    for name in [*readings[0], "all"]:
        sizes = [sum(reading.values()) if name == "all" else reading[name] for reading in readings]
        figure("memory.idle", sizes[0] / MEGABYTE, "MB", process=name)
        figure("memory.half", sizes[middle] / MEGABYTE, "MB", process=name, jobs=jobs // 2)
        figure("memory.end", sizes[-1] / MEGABYTE, "MB", process=name, jobs=jobs)
        figure("memory.growth", 2 * (sizes[-1] - sizes[middle]) / jobs, "bytes per job of the last half", process=name)


def memory_of(stack: Stack) -> dict[str, int]:
    """The PSS of each process of the stack with its children, in bytes."""
    pids: dict[str, int] = json.loads((stack.data / "state.json").read_text())["processes"]
    return {name: _pss(psutil.Process(pid)) for name, pid in pids.items()}


def run_jobs(stack: Stack, jobs: int, clients: int) -> None:
    """Run this many generations, one at a time for each client."""

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=120)
        for _ in range(jobs // clients):
            connection.request("POST", "/generate", BODY, HEADERS)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, text
            ended.append(answer.status)

    ended: list[int] = []
    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ended) == jobs // clients * clients, "a client failed"


def _pss(process: psutil.Process) -> int:
    return sum(int(each.memory_full_info().pss) for each in [process, *process.children(recursive=True)])


if __name__ == "__main__":
    main()
