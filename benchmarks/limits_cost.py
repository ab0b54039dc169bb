"""Cost of limits and of the usage ledger per job: the same job of an owner with five limits, and of an owner without any, in turn.

Jobs are submitted, claimed and ended, so that load on the machine meets all cases alike. Their times are medians; the CPU time of Redis
and of the calling process is the mean, which other load hardly changes. With ``--old CHECKOUT``, the jobs of another commit (a git worktree), on a Redis of their own, take turns with
them, and with ``--new CHECKOUT`` those of a later one, which have the limits: the commits before and after limits and usage, for example,
as everything that was built later is in this one. Run: ``.venv/bin/python -m benchmarks.limits_cost``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import redis

from benchmarks import checkout_jobs
from benchmarks.checkout_jobs import VERY_HIGH, cpu_seconds, job_runner, timed
from benchmarks.figures import figure, percentile
from cli.local.redis_server import start_redis
from shared.jobs.submission import JobSubmitter
from shared.jobs.transitions import JobTransitions
from shared.owners.limits import OwnerLimits
from shared.redis_connection import connect
from shared.settings import Settings

LIMITS = ("tokens_per_minute", "tokens_per_day", "tokens_per_month", "running_jobs", "end_user_tokens_per_day")
LIMITED, UNLIMITED = "limited", "unlimited"
WARM_UP, TURN = 100, 10
OLD, NEW = "old commit", "new commit, five limits"
# The cases whose difference is what something adds to a job.
ADDED = {
    "five limits": ("five limits", "none"),
    "a concurrency key": ("a concurrency key", "none"),
    "usage": ("none", "no usage"),
    "five limits and usage": ("five limits", "no usage"),
    "five limits and usage, over the old commit": ("five limits", OLD),
    "the new commit, five limits and usage, over the old commit": (NEW, OLD),
}

# Runs a number of jobs; returns their times and the CPU time of all of them, in seconds.
Turn = Callable[[int], tuple[list[float], float]]


class Cost(NamedTuple):
    """The median time of a job and its mean CPU time, both in milliseconds."""

    median: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=3000, help="jobs of each case")
    parser.add_argument("--old", type=Path, metavar="CHECKOUT", help="a checkout of another commit to compare with")
    parser.add_argument("--new", type=Path, metavar="CHECKOUT", help="a checkout of a commit that has limits and usage")
    options = parser.parse_args()
    with ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        server = start_redis(folder / "new")
        cleanup.callback(server.stop)
        cases = own_cases(connect(server.url), Settings(data_dir=folder, redis_url=server.url))
        for case, checkout, limits in ((OLD, options.old, ()), (NEW, options.new, LIMITS)):
            if checkout is not None:
                its_server = start_redis(folder / case.split(",")[0])
                cleanup.callback(its_server.stop)
                cases[case] = checkout_case(cleanup, checkout, its_server.url, limits)
        costs = measure(cases, options.jobs)
    for case, cost in costs.items():
        figure("limits_cost.p50", cost.median, "ms", case=case, jobs=options.jobs)
        figure("limits_cost.cpu", cost.cpu, "ms per job", case=case, jobs=options.jobs)
    for what, (case, base) in ADDED.items():
        if {case, base} <= costs.keys():
            figure("limits_cost.added_p50", costs[case].median - costs[base].median, "ms", of=what, jobs=options.jobs)
            figure("limits_cost.added_cpu", costs[case].cpu - costs[base].cpu, "ms per job", of=what, jobs=options.jobs)


def own_cases(client: redis.Redis, settings: Settings) -> dict[str, Turn]:
    """The cases that run the code of this checkout, in this process."""
    OwnerLimits(client).set_limits(LIMITED, dict.fromkeys(LIMITS, VERY_HIGH))
    run = job_runner(JobSubmitter(client, settings, _wake), JobTransitions(client, settings, _wake))

    def turn(one_job: Callable[[], None]) -> Turn:
        def run_jobs(jobs: int) -> tuple[list[float], float]:
            before = cpu_seconds(client)
            seconds = [timed(one_job) for _ in range(jobs)]
            return seconds, cpu_seconds(client) - before

        return run_jobs

    return {
        "none": turn(lambda: run(UNLIMITED)),
        "five limits": turn(lambda: run(LIMITED)),
        "no usage": turn(lambda: run(UNLIMITED, has_usage=False)),
        "a concurrency key": turn(lambda: run(UNLIMITED, key="key")),
    }


def checkout_case(cleanup: ExitStack, checkout: Path, redis_url: str, limits: Sequence[str]) -> Turn:
    """A case that runs the code of another checkout, in a process of its own. Its owner has these limits."""
    environment = os.environ | {"PYTHONPATH": str(checkout.resolve())}
    command = [sys.executable, checkout_jobs.__file__, redis_url, UNLIMITED, *limits]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    cleanup.enter_context(process)
    cleanup.callback(process.terminate)

    def run_jobs(jobs: int) -> tuple[list[float], float]:
        assert process.stdin is not None
        assert process.stdout is not None
        print(jobs, file=process.stdin, flush=True)
        seconds, cpu = json.loads(process.stdout.readline())
        return seconds, cpu

    return run_jobs


def measure(cases: dict[str, Turn], jobs: int) -> dict[str, Cost]:
    """The cost of a job of each case; the cases take turns of some jobs."""
    seconds: dict[str, list[float]] = {case: [] for case in cases}
    cpu = dict.fromkeys(cases, 0.0)
    for turn in range(-WARM_UP // TURN, jobs // TURN):
        for case, run_jobs in cases.items():
            times, used = run_jobs(TURN)
            if turn >= 0:
                seconds[case] += times
                cpu[case] += used
    return {case: Cost(1000 * percentile(seconds[case], 50), 1000 * cpu[case] / len(seconds[case])) for case in cases}


def _wake(queue: str, count: int) -> None:
    """Nobody waits for wake-ups."""


if __name__ == "__main__":
    main()
