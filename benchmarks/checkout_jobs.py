"""Run jobs with the code of a checkout, some at a time, for a benchmark that compares it with another commit.

Run by ``benchmarks.limits_cost`` as a file, so that everything else is imported from the checkout, which may be older than this file.
Arguments: the URL of a Redis, an owner, and the limits to set for it, if the checkout has them. For each line of standard input, a number
of jobs, it prints their times in seconds and the CPU time of Redis and this process, in JSON.
"""

import dataclasses
import inspect
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.jobs.models import Status
from shared.jobs.submission import JobSubmitter, Submission
from shared.jobs.transitions import JobTransitions
from shared.owners.limits import OwnerLimits
from shared.redis_connection import connect
from shared.settings import Settings

# A limit that no benchmark reaches.
VERY_HIGH = 10**12


def main() -> None:
    url, owner, *limits = sys.argv[1:]
    client = connect(url)
    if limits:
        OwnerLimits(client).set_limits(owner, dict.fromkeys(limits, VERY_HIGH))
    settings = Settings(data_dir=Path(), redis_url=url)
    run = job_runner(JobSubmitter(client, settings, _wake), JobTransitions(client, settings, _wake))
    for line in sys.stdin:
        before = cpu_seconds(client)
        seconds = [timed(lambda: run(owner)) for _ in range(int(line))]
        print(json.dumps([seconds, cpu_seconds(client) - before]), flush=True)


def job_runner(submitter: JobSubmitter, transitions: JobTransitions) -> Callable[..., None]:
    """A function that submits, claims and ends one job of an owner. What the checkout does not know of, it does not get."""
    number = 0
    known = {field.name for field in dataclasses.fields(Submission)}
    counts_usage = "usage" in inspect.signature(transitions.finish).parameters

    def run(owner: str, *, has_usage: bool = True, key: str = "") -> None:
        nonlocal number
        number += 1
        wanted = {"end_user": "uma", "tokens": 300, "concurrency_key": key}
        fields: dict[str, Any] = {name: value for name, value in wanted.items() if name in known}
        submission = Submission(kind="generate", queue="q", spec={"prompt": "x" * 200}, owner=owner, model="m", **fields)
        job = submitter.submit_job(submission).id
        claimed = transitions.claim("q", "w", f"token {number}")
        assert claimed is not None
        used: dict[str, Any] = {"usage": _usage(has_usage)} if counts_usage else {}
        transitions.finish((job, claimed.attempt), Status.COMPLETED, result={"text": "y" * 200}, service=200, **used)

    return run


def timed(run: Callable[[], None]) -> float:
    """The time of a call, in seconds."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def cpu_seconds(client: Any) -> float:
    """CPU time of Redis and of this process."""
    used: Any = client.info("cpu")
    return float(used["used_cpu_user_main_thread"] + used["used_cpu_sys_main_thread"]) + time.process_time()


def _usage(has_usage: bool) -> Any:
    from shared.jobs.usage import Usage  # not in every checkout

    return Usage(prompt_tokens=100, completion_tokens=100, gpu_ms=900) if has_usage else Usage()


def _wake(queue: str, count: int) -> None:
    """Nobody waits for wake-ups."""


if __name__ == "__main__":
    main()
