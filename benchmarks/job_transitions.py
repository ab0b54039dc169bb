"""Cost of a job in Redis: time of its submission, claim and end, CPU time of Redis, and the commands that their scripts call.

The commands are the same on every machine. Run: ``.venv/bin/python -m benchmarks.job_transitions``, with ``--limits`` for an owner with token
limits and a limit of running jobs.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import redis

from benchmarks.figures import figure, percentile
from cli.local.redis_server import start_redis
from shared.jobs.models import Status
from shared.jobs.submission import JobSubmitter, Submission
from shared.jobs.transitions import JobTransitions
from shared.redis_connection import connect
from shared.settings import Settings

WARM_UP = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--limits", action="store_true", help="with limits of tokens and running jobs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = start_redis(Path(folder))
        try:
            measure(
                connect(server.url), Settings(data_dir=Path(folder), redis_url=server.url), options.jobs, limits=options.limits
            )
        finally:
            server.stop()


def measure(client: redis.Redis, settings: Settings, jobs: int, *, limits: bool) -> None:
    submitter = JobSubmitter(client, settings, lambda queue, count: None)
    transitions = JobTransitions(client, settings, lambda queue, count: None)
    fields: dict[str, Any] = {}
    usage: dict[str, Any] = {}
    if hasattr(Submission, "tokens"):  # older versions have neither usage nor limits
        from shared.jobs.usage import Usage

        fields, usage = {"tokens": 300}, {"usage": Usage(prompt_tokens=100, completion_tokens=100, gpu_ms=900)}
    if limits:
        from shared.owners.limits import OwnerLimits

        names = ("tokens_per_minute", "tokens_per_day", "tokens_per_month", "end_user_tokens_per_day", "running_jobs")
        OwnerLimits(client).set_limits("ada", dict.fromkeys(names, 10**12))
    seconds, cpu_before = [], 0.0
    for number in range(jobs + WARM_UP):
        if number == WARM_UP:
            client.config_resetstat()
            cpu_before = _cpu_seconds(client)
        start = time.perf_counter()
        job = submitter.submit_job(
            Submission(kind="generate", queue="q", spec={"prompt": "x" * 200}, owner="ada", model="m", end_user="uma", **fields)
        ).id
        claimed = transitions.claim("q", "w", f"token {number}")
        assert claimed is not None
        transitions.finish((job, claimed.attempt), Status.COMPLETED, result={"text": "y" * 200}, service=200, **usage)
        seconds.append(time.perf_counter() - start)
    cpu = _cpu_seconds(client) - cpu_before
    stats: Any = client.info("commandstats")
    calls = sum(entry["calls"] for name, entry in stats.items() if name not in ("cmdstat_evalsha", "cmdstat_config|resetstat"))
    figure("job_transitions.p50", 1000 * percentile(seconds[WARM_UP:], 50), "ms", limits=limits, jobs=jobs)
    figure("job_transitions.redis_cpu", 1000 * cpu / jobs, "ms per job", limits=limits, jobs=jobs)
    figure("job_transitions.commands", calls / jobs, "per job", limits=limits, jobs=jobs)


def _cpu_seconds(client: redis.Redis) -> float:
    """CPU time of Redis, which other load on the machine hardly changes."""
    used: Any = client.info("cpu")
    return float(used["used_cpu_user_main_thread"] + used["used_cpu_sys_main_thread"])


if __name__ == "__main__":
    main()
