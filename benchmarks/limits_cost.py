"""Cost of limits and of the usage ledger per job: the same job of an owner with five limits, and of an owner without any, in turn.

Jobs are submitted, claimed and ended, so that load on the machine meets all cases alike. Their times are medians; the CPU time of Redis
and of the calling process is the mean, which other load hardly changes. Two cases run in processes of their own, on Redis servers of
their own: this code, and a copy of it from which limits and usage are cut out, which shows what both cost together. With
``--old CHECKOUT``, so do the jobs of another commit (a git worktree); the difference to it includes everything else that was added since.
Two processes that run the same code can differ by a few percent, so each round starts new ones, and the figures are medians over the
rounds. Run: ``.venv/bin/python -m benchmarks.limits_cost``.
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
from benchmarks.cut_code import copy_code
from benchmarks.figures import figure, percentile
from cli.local.redis_server import start_redis
from shared.jobs.submission import JobSubmitter
from shared.jobs.transitions import JobTransitions
from shared.owners.limits import OwnerLimits
from shared.redis_connection import connect
from shared.settings import Settings

LIMITS = ("tokens_per_minute", "tokens_per_day", "tokens_per_month", "running_jobs", "end_user_tokens_per_day")
CHECKOUT = Path(__file__).resolve().parent.parent
LIMITED, UNLIMITED = "limited", "unlimited"
WARM_UP, TURN = 100, 10
OLD, WITH, WITHOUT = "old commit", "five limits, own process", "limits and usage cut out"
# The cases whose difference is what something adds to a job.
ADDED = {
    "five limits": ("five limits", "none"),
    "a concurrency key": ("a concurrency key", "none"),
    "usage": ("none", "no usage"),
    "five limits and usage": (WITH, WITHOUT),
    "five limits, usage and what else is new, over the old commit": (WITH, OLD),
}
# What is cut out of the scripts: the ledger, the reservation of tokens and the limit of queued jobs of end users, and the limits of owners.
CUTS = (
    (
        "shared/jobs/lua/lib/usage.lua",
        "    local day, numbers = utc_date()",
        "    if true then return 0 end\n    local day, numbers = utc_date()",
    ),
    ("shared/jobs/lua/submit.lua", "if job.tokens ~= '' then", "if false then"),
    ("shared/jobs/lua/submit.lua", "for jobs_key, number in pairs(users) do", "for jobs_key, number in pairs({}) do"),
    ("shared/jobs/lua/lib/limits.lua", "as_table(redis.call('HGETALL', PREFIX .. 'owner:' .. owner .. ':limits'))", "{}"),
)

# Runs a number of jobs; returns their times and the CPU time of all of them, in seconds.
Turn = Callable[[int], tuple[list[float], float]]


class Cost(NamedTuple):
    """The median time of a job and its mean CPU time, both in milliseconds."""

    median: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=500, help="jobs of each case and round")
    parser.add_argument("--rounds", type=int, default=7, help="how often all processes are started")
    parser.add_argument("--old", type=Path, metavar="CHECKOUT", help="a checkout of another commit to compare with")
    options = parser.parse_args()
    rounds = [one_round(options.jobs, options.old) for _ in range(options.rounds)]
    labels = {"jobs": options.jobs, "rounds": options.rounds}
    for case in rounds[0]:
        costs = [costs[case] for costs in rounds]
        figure("limits_cost.p50", percentile([cost.median for cost in costs], 50), "ms", case=case, **labels)
        figure("limits_cost.cpu", percentile([cost.cpu for cost in costs], 50), "ms per job", case=case, **labels)
    for what, (case, base) in ADDED.items():
        if {case, base} <= rounds[0].keys():
            pairs = [(costs[case], costs[base]) for costs in rounds]
            added, added_cpu = [more.median - less.median for more, less in pairs], [more.cpu - less.cpu for more, less in pairs]
            figure("limits_cost.added_p50", percentile(added, 50), "ms", of=what, **labels)
            figure("limits_cost.added_cpu", percentile(added_cpu, 50), "ms per job", of=what, **labels)


def one_round(jobs: int, old: Path | None) -> dict[str, Cost]:
    """The cost of a job of each case, with processes and servers that were started for it."""
    with ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))

        def new_redis(name: str) -> str:
            server = start_redis(folder / name)
            cleanup.callback(server.stop)
            return server.url

        url = new_redis("own")
        cases = own_cases(connect(url), Settings(data_dir=folder, redis_url=url))
        cases[WITH] = checkout_case(cleanup, CHECKOUT, new_redis("with"), LIMITS)
        cases[WITHOUT] = checkout_case(cleanup, copy_code(folder / "code", ("shared",), CUTS), new_redis("without"))
        if old is not None:
            cases[OLD] = checkout_case(cleanup, old, new_redis("old"))
        return measure(cases, jobs)


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


def checkout_case(cleanup: ExitStack, checkout: Path, redis_url: str, limits: Sequence[str] = ()) -> Turn:
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
