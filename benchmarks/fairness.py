"""Fairness between owners, and the speed of submit and claim on long queues.

One owner queues thousands of jobs while another submits one per second: first with simulated workers and a simulated clock, then on
the whole stack with the echo engine and two API keys. For comparison, the second owner runs alone, and all jobs run under one owner,
which is first in, first out. Then submit and claim are timed on queues of three lengths. Run:
``.venv/bin/python -m benchmarks.fairness``; it draws ``docs/images/fairness.svg``.
"""

import argparse
import heapq
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx2

from benchmarks.charts import Axis, Chart, Point, Series, side_by_side
from benchmarks.figures import figure, percentile
from cli.local.redis_server import start_redis
from shared.jobs.models import Status
from shared.jobs.submission import JobSubmitter, Submission
from shared.jobs.transitions import JobTransitions
from shared.owners.store import ApiKeys
from shared.redis_connection import connect
from shared.settings import Settings
from testing.repository import REPOSITORY
from testing.stack import Stack, models

SLOTS = 8  # of the simulated workers
STACK_SLOTS = 64
QUEUE = "gpu.model"
WAYS = {"idle": "alone", "fair": "fair share", "fifo": "first in, first out"}
COLOURS = {"idle": "#2a78b8", "fair": "#2c9a4b", "fifo": "#d0522b"}
DEPTHS = (1_000, 10_000, 100_000)
OWNERS = 10

# For each job of the second owner: time of submission and time until start, in seconds.
Waits = list[Point]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=3000, help="jobs that the first owner queues")
    parser.add_argument("--job-seconds", type=float, default=0.03, help="duration of a job on the stack")
    parser.add_argument("--image", type=Path, default=REPOSITORY / "docs" / "images" / "fairness.svg")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        simulated = measure_simulation(Path(folder), options.jobs)
        report("simulated workers", simulated, options.jobs)
        waits = measure_stack(Path(folder), options.jobs, options.job_seconds)
        report("whole stack", waits, options.jobs)
        latencies = measure_depths(Path(folder))
    options.image.parent.mkdir(parents=True, exist_ok=True)
    options.image.write_text(side_by_side([chart_of_waits(waits, options.jobs), chart_of_depths(latencies)]))


def report(where: str, waits: dict[str, Waits], jobs: int) -> None:
    for way, points in waits.items():
        milliseconds = [1000 * wait for _, wait in points]
        about = {"where": where, "what": WAYS[way], "other_owners_jobs": 0 if way == "idle" else jobs, "jobs": len(points)}
        figure("fairness.wait_p50", percentile(milliseconds, 50), "ms", **about)
        figure("fairness.wait_p99", percentile(milliseconds, 99), "ms", **about)


def measure_simulation(folder: Path, jobs: int) -> dict[str, Waits]:
    """Waits caused by scheduling only: transitions take no time, and jobs take 50 to 150 ms of simulated time."""
    server = start_redis(subfolder(folder, "simulation"))
    client = connect(server.url)
    waits = {}
    for way in WAYS:
        client.flushall()
        waits[way] = list(simulate(SimulatedJobs(server.url), way, jobs, random.Random(7)))
    client.close()
    server.stop()
    return waits


class SimulatedJobs:
    """Submission and transitions with a clock that the simulation sets."""

    def __init__(self, url: str) -> None:
        self.now_ms = 1_800_000_000_000
        client, settings = connect(url), Settings(redis_url=url)
        self.submitter = JobSubmitter(client, settings, lambda *_: None, clock=lambda: self.now_ms)
        self.transitions = JobTransitions(client, settings, lambda *_: None, clock=lambda: self.now_ms)


def simulate(system: SimulatedJobs, way: str, jobs: int, generator: random.Random) -> Iterator[Point]:
    """Let workers claim jobs until the first owner's jobs are done; yields the waits of the second owner's jobs."""
    begin = system.now_ms
    flood = 0 if way == "idle" else jobs
    for _ in range(flood):
        submit(system.submitter, "many")
    sendings = [begin + 1000 * number for number in range(jobs // (10 * SLOTS))]
    sent: dict[str, int] = {}
    running: list[tuple[int, str]] = []
    number = 0
    while sendings or sent:
        while sendings and sendings[0] <= system.now_ms:
            sent[submit(system.submitter, "many" if way == "fifo" else "one")] = sendings.pop(0)
        while running and running[0][0] <= system.now_ms:
            system.transitions.finish((heapq.heappop(running)[1], 1), Status.COMPLETED, result={}, service=10)
        while len(running) < SLOTS:
            number += 1
            job = system.transitions.claim(QUEUE, "w1", f"token{number}")
            if job is None:
                break
            heapq.heappush(running, (system.now_ms + generator.randrange(50, 150), job.id))
            if job.id in sent:
                at = sent.pop(job.id)
                yield (at - begin) / 1000, (system.now_ms - at) / 1000
        following = [running[0][0]] if running else []
        system.now_ms = min(following + sendings[:1], default=system.now_ms)


def submit(submitter: JobSubmitter, owner: str) -> str:
    return submitter.submit_job(Submission(kind="generate", queue=QUEUE, spec={"prompt": "x"}, owner=owner, cost=10)).id


def measure_stack(folder: Path, jobs: int, job_seconds: float) -> dict[str, Waits]:
    """Waits over HTTP for one API key while jobs of another are queued; with ``fifo`` both owners use one key."""
    # Each job is one token.
    stack = Stack(subfolder(folder, "stack"), environment={"ENGINEHOUSE_LOG_LEVEL": "WARNING"})
    entries = models(job_seconds)
    entries[0]["max_in_flight"] = STACK_SLOTS
    stack.models.write_text(json.dumps(entries))
    stack.start()
    try:
        keys = ApiKeys(connect(stack.redis_url()))
        many, one = (httpx2.Client(base_url=stack.url, timeout=60, headers=bearer(keys, name)) for name in ("many", "one"))
        waits = {"idle": list(send_each_second(one, 20, threading.Event()))}
        for way, second in (("fair", one), ("fifo", many)):
            # The worker is paused until all jobs are queued, or it would run them as fast as they arrive.
            worker = stack.pid("gpu0")
            os.kill(worker, signal.SIGSTOP)
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda _: generate(many), range(jobs)))
            os.kill(worker, signal.SIGCONT)
            done = threading.Event()
            threading.Thread(target=set_when_done, args=(many, done), daemon=True).start()
            waits[way] = list(send_each_second(second, 120, done))
        return waits
    finally:
        stack.stop()
        stack.kill()


def bearer(keys: ApiKeys, name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {keys.create(name)[1]}"}


def generate(client: httpx2.Client) -> str:
    answer = client.post("/generate", json={"prompt": "x", "max_tokens": 1})
    answer.raise_for_status()
    return str(answer.json()["id"])


def set_when_done(client: httpx2.Client, done: threading.Event) -> None:
    """Set the event when no job of the first owner is queued any more."""
    while client.get("/jobs", params={"status": "queued", "limit": 1}).json()["data"]:
        time.sleep(1.0)
    done.set()


def send_each_second(client: httpx2.Client, limit: int, done: threading.Event) -> Iterator[Point]:
    """Submit one job per second, at most ``limit`` and until ``done``; yields submission times and waits."""
    begin = time.monotonic()
    sent = []
    for number in range(limit):
        if done.wait(max(0.0, begin + number - time.monotonic())):
            break
        sent.append((time.monotonic() - begin, generate(client)))
    for at, job_id in sent:
        job = {"started_at": None}
        while job["started_at"] is None:
            job = client.get(f"/jobs/{job_id}", params={"wait": 60}).json()
        yield at, job["started_at"] - job["created_at"]


def measure_depths(folder: Path) -> dict[str, list[Point]]:
    """Latency of submit and claim on queues of several lengths: for each line of the chart, depth and milliseconds."""
    server = start_redis(subfolder(folder, "depth"))
    client = connect(server.url)
    settings = replace(Settings(redis_url=server.url), max_queued=10_000_000, max_queued_per_owner=10_000_000)
    submitter = JobSubmitter(client, settings, lambda *_: None)
    transitions = JobTransitions(client, settings, lambda *_: None)
    lines: dict[str, list[Point]] = {f"{move} {percent}": [] for move in ("submit", "claim") for percent in ("p50", "p99")}
    queued = 0
    for depth in DEPTHS:
        for number in range(queued, depth):
            submit(submitter, f"owner{number % OWNERS}")
        queued = depth
        took: dict[str, list[float]] = {"submit": [], "claim": []}
        for number in range(1000):
            start = time.perf_counter()
            submit(submitter, f"owner{number % OWNERS}")
            middle = time.perf_counter()
            job = transitions.claim(QUEUE, "w1", f"token{depth}.{number}")
            took["claim"].append(1000 * (time.perf_counter() - middle))
            took["submit"].append(1000 * (middle - start))
            assert job is not None
            transitions.finish((job.id, 1), Status.COMPLETED, result={}, service=10)
        for move, values in took.items():
            for percent in (50, 99):
                value = percentile(values, percent)
                lines[f"{move} p{percent}"].append((depth, value))
                figure(f"fairness.{move}_p{percent}", value, "ms", queued=depth, owners=OWNERS)
    client.close()
    server.stop()
    return lines


def subfolder(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def chart_of_waits(waits: dict[str, Waits], jobs: int) -> Chart:
    longest = max(at for points in waits.values() for at, _ in points)
    return Chart(
        f"One job a second beside another owner's {jobs:,}",
        Axis("time of submission, s", 0, longest, range(0, int(longest) + 1, 10)),
        Axis("wait until start, ms", 1, 100_000, (1, 10, 100, 1_000, 10_000, 100_000), logarithmic=True),
        [Series(WAYS[way], COLOURS[way], [(at, 1000 * wait) for at, wait in points]) for way, points in waits.items()],
    )


def chart_of_depths(lines: dict[str, list[Point]]) -> Chart:
    highest = 2 ** max(1, int(max(value for points in lines.values() for _, value in points)).bit_length())
    colours = {"submit": "#2a78b8", "claim": "#8a4fb0"}
    return Chart(
        f"Submit and claim on long queues, {OWNERS} owners",
        Axis("jobs queued", DEPTHS[0] / 1.5, DEPTHS[-1] * 1.5, DEPTHS, logarithmic=True),
        Axis("latency, ms", 0, highest, [highest * part / 4 for part in range(5)]),
        [
            Series(name, colours[name.split()[0]], points, "line" if name.endswith("p50") else "dashed")
            for name, points in lines.items()
        ],
    )


if __name__ == "__main__":
    main()
