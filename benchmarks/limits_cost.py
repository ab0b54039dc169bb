"""Cost of limits and of the usage ledger per job: the same job of an owner with five limits, and of an owner without any, in turn.

Jobs are submitted, claimed and ended on one Redis, so that load on the machine meets all cases alike. Their times are medians; the CPU
time of Redis and of this process is the mean, which other load hardly changes. Run: ``.venv/bin/python -m benchmarks.limits_cost``.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import redis

from benchmarks.figures import figure, percentile
from cli.local.redis_server import start_redis
from shared.jobs.models import Status
from shared.jobs.submission import JobSubmitter, Submission
from shared.jobs.transitions import JobTransitions
from shared.jobs.usage import Usage
from shared.owners.limits import OwnerLimits
from shared.redis_connection import connect
from shared.settings import Settings

LIMITS = ("tokens_per_minute", "tokens_per_day", "tokens_per_month", "running_jobs", "end_user_tokens_per_day")
LIMITED, UNLIMITED = "limited", "unlimited"
WARM_UP, TURN = 100, 10
USAGE = Usage(prompt_tokens=100, completion_tokens=100, gpu_ms=900)


class Cost(NamedTuple):
    """The median time of a job and its mean CPU time, both in milliseconds."""

    median: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=3000, help="jobs of each owner")
    jobs = parser.parse_args().jobs
    with tempfile.TemporaryDirectory() as folder:
        server = start_redis(Path(folder))
        try:
            client = connect(server.url)
            OwnerLimits(client).set_limits(LIMITED, dict.fromkeys(LIMITS, 10**12))
            settings = Settings(data_dir=Path(folder), redis_url=server.url)
            run = job_runner(JobSubmitter(client, settings, _wake), JobTransitions(client, settings, _wake))
            cases: dict[str, Callable[[], None]] = {
                "none": lambda: run(UNLIMITED, USAGE, ""),
                "five limits": lambda: run(LIMITED, USAGE, ""),
                "no usage": lambda: run(UNLIMITED, Usage(), ""),
                "a concurrency key": lambda: run(UNLIMITED, USAGE, "key"),
            }
            costs = measure(client, cases, jobs)
        finally:
            server.stop()
    for case, cost in costs.items():
        figure("limits_cost.p50", cost.median, "ms", case=case, jobs=jobs)
        figure("limits_cost.cpu", cost.cpu, "ms per job", case=case, jobs=jobs)
    for case, base in (("five limits", "none"), ("a concurrency key", "none"), ("none", "no usage")):
        what = "usage" if base == "no usage" else case
        figure("limits_cost.added_p50", costs[case].median - costs[base].median, "ms", of=what, jobs=jobs)
        figure("limits_cost.added_cpu", costs[case].cpu - costs[base].cpu, "ms per job", of=what, jobs=jobs)


def job_runner(submitter: JobSubmitter, transitions: JobTransitions) -> Callable[[str, Usage, str], None]:
    """A function that runs one job of an owner, which uses something and may have a concurrency key."""
    number = 0

    def run(owner: str, usage: Usage, key: str) -> None:
        nonlocal number
        number += 1
        submission = Submission(
            kind="generate",
            queue="q",
            spec={"prompt": "x" * 200},
            owner=owner,
            model="m",
            end_user="uma",
            tokens=300,
            concurrency_key=key,
        )
        job = submitter.submit_job(submission).id
        claimed = transitions.claim("q", "w", f"token {number}")
        assert claimed is not None
        transitions.finish((job, claimed.attempt), Status.COMPLETED, result={"text": "y" * 200}, service=200, usage=usage)

    return run


def measure(client: redis.Redis, cases: dict[str, Callable[[], None]], jobs: int) -> dict[str, Cost]:
    """The cost of a job of each case; the cases take turns of some jobs."""
    seconds: dict[str, list[float]] = {case: [] for case in cases}
    cpu = dict.fromkeys(cases, 0.0)
    for turn in range(-WARM_UP // TURN, jobs // TURN):
        for case, run in cases.items():
            cpu_before = _cpu_seconds(client)
            times = [_time(run) for _ in range(TURN)]
            if turn >= 0:
                seconds[case] += times
                cpu[case] += _cpu_seconds(client) - cpu_before
    return {case: Cost(1000 * percentile(seconds[case], 50), 1000 * cpu[case] / len(seconds[case])) for case in cases}


def _time(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _cpu_seconds(client: redis.Redis) -> float:
    """CPU time of Redis and of this process."""
    used: Any = client.info("cpu")
    return float(used["used_cpu_user_main_thread"] + used["used_cpu_sys_main_thread"]) + time.process_time()


def _wake(queue: str, count: int) -> None:
    """Nobody waits for wake-ups."""


if __name__ == "__main__":
    main()
