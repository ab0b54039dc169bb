"""Memory of each process of a stack: idle, and after some and after many jobs.

The proportional set size (PSS) of each process with its children, one line for each. What leaks grows with each job. What a process
loads with its first jobs, and what it needs for its clients, does not, so growth counts from the first jobs on. It is that of anonymous
memory, because the PSS of libraries also grows when other processes on the machine that use them end. Redis keeps ended jobs; once a
minute, those beyond ``--kept-jobs`` are deleted. Run: ``.venv/bin/python -m benchmarks.memory``.
"""

import argparse
import http.client
import json
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import psutil

from benchmarks.figures import figure
from testing.stack import Stack, models

MEGABYTE = 1024 * 1024
IN_FLIGHT = 64
HEADERS = {"Content-Type": "application/json"}
# Bytes, by the names in smaps_rollup: "Pss" for all memory, "Pss_Anon" for memory that no file backs.
Memory = Counter[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readings", type=int, nargs="+", default=[1000, 10_000, 20_000], help="jobs after which memory is read")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--prompts", type=int, default=8, help="prompts of a call, each of which is a job")
    parser.add_argument("--kept-jobs", type=int, default=1000, help="ended jobs that Redis keeps, so that it stops growing")
    options = parser.parse_args()
    environment = {"ENGINEHOUSE_LOG_LEVEL": "WARNING", "ENGINEHOUSE_MAX_KEPT_JOBS": str(options.kept_jobs)}
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), environment=environment)
        entries = models(0.0)
        entries[0]["max_in_flight"] = IN_FLIGHT
        stack.models.write_text(json.dumps(entries))
        try:
            stack.start()
            stack.warm_up()
            readings = {0: memory_of(stack)}
            started = time.monotonic()
            for jobs in options.readings:
                run_jobs(stack, jobs - max(readings), options.clients, options.prompts)
                readings[jobs] = memory_of(stack)
                rate = jobs / (time.monotonic() - started)
                figure("memory.jobs_per_second", rate, "jobs/s", jobs=jobs, clients=options.clients, prompts=options.prompts)
                if jobs > options.readings[0]:
                    report(readings, first=options.readings[0], kept_jobs=options.kept_jobs)
        finally:
            stack.stop()
            stack.kill()


def report(readings: dict[int, dict[str, Memory]], *, first: int, **about: object) -> None:
    """Print what each process had at each reading, and how much it has grown per job since the reading after ``first`` jobs."""
    last = max(readings)
    for name in [*readings[0], "all"]:
        sizes = {jobs: sum(reading.values(), Memory()) if name == "all" else reading[name] for jobs, reading in readings.items()}
        shown = {f"after_{jobs}" if jobs else "idle": round(size["Pss"] / MEGABYTE, 1) for jobs, size in sizes.items()}
        growth = (sizes[last]["Pss_Anon"] - sizes[first]["Pss_Anon"]) / (last - first)
        figure("memory.growth", growth, "bytes per job", process=name, megabytes=shown, **about)


def memory_of(stack: Stack) -> dict[str, Memory]:
    """The memory of the supervisor, and of each other process of the stack with its children."""
    assert stack.process is not None
    trees = {
        name: [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))] for name, pid in stack.pids().items()
    }
    return {name: sum(map(_memory, tree), Memory()) for name, tree in {"supervisor": [stack.process.pid], **trees}.items()}


def run_jobs(stack: Stack, jobs: int, clients: int, prompts: int) -> None:
    """Run this many generations, a few in each call, and the calls of each client one after another."""
    remaining = iter(range(-(-jobs // prompts)))
    body = json.dumps({"model": "echo", "prompt": ["x" * 200] * prompts, "max_tokens": 8})

    def work() -> None:
        for _ in remaining:
            # New for each call, so that each API process gets some before the first reading.
            connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=120)
            connection.request("POST", "/v1/completions", body, HEADERS)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200, text
            ended.append(len(json.loads(text)["choices"]))
            connection.close()

    ended: list[int] = []
    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(ended) >= jobs, "a client failed"


def _memory(pid: int) -> Memory:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    fields = dict(line.split(":", 1) for line in lines)
    return Memory({name: 1024 * int(fields[name].removesuffix("kB")) for name in ("Pss", "Pss_Anon")})


if __name__ == "__main__":
    main()
