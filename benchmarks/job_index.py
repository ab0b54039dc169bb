"""Lists and counts of jobs with many jobs, and what the transitions of a job cost Redis. ``python -m benchmarks.job_index``

It writes jobs through the transitions of the server into a Redis of its own. Run it with --jobs 0 for the transitions only.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from benchmarks.figures import figure, percentile
from cli.local.redis_server import start_redis
from shared.ids import CLAIM, new_id
from shared.jobs.models import Status
from shared.jobs.submission import JobSubmitter, Submission
from shared.jobs.transitions import JobTransitions
from shared.redis_connection import connect
from shared.settings import Settings

MODELS = ("gemma", "llama", "qwen")
COLLECTIONS = tuple(f"col_{number:026d}" for number in range(50))
CYCLES = 2000
REPEATS = 30
ENDED = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    count = parser.parse_args().jobs
    with tempfile.TemporaryDirectory() as folder:
        server = start_redis(Path(folder))
        try:
            client = connect(server.url)
            settings = Settings(redis_url=server.url, data_dir=Path(folder), max_queued=10**7, max_queued_per_owner=10**7)
            submitter = JobSubmitter(client, settings, lambda queue, number: None)
            transitions = JobTransitions(client, settings, lambda queue, number: None)
            measure_transitions(client, submitter, transitions)
            if count:
                write_jobs(submitter, transitions, count)
                measure_reads(client, count)
        finally:
            server.stop()


def measure_transitions(client: redis.Redis, submitter: JobSubmitter, transitions: JobTransitions) -> None:
    """Processor time of Redis for submission, claim and end together."""
    for collection in ("", COLLECTIONS[0]):
        client.flushall()
        before = cpu_seconds(client)
        spec: dict[str, Any] = {"prompt": "x" * 200, **({"collection": collection} if collection else {})}
        for _ in range(CYCLES):
            submitter.submit_job(Submission(kind="generate", queue="q", spec=spec, owner="ada", model="gemma"))
            job = transitions.claim("q", "w", new_id(CLAIM))
            assert job is not None
            transitions.finish((job.id, 1), Status.COMPLETED, result={"text": "x" * 200}, service=10)
        used = cpu_seconds(client) - before
        figure("job_index.transitions", 1e6 * used / CYCLES, "us of Redis' CPU per job", collection=bool(collection))


def cpu_seconds(client: redis.Redis) -> float:
    """What Redis has used of a processor, which does not depend on what else runs."""
    used: Any = client.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def write_jobs(submitter: JobSubmitter, transitions: JobTransitions, count: int) -> None:
    """Queued jobs of several kinds, models and collections, of which the oldest have ended, one in twenty with a failure."""
    for start in range(0, count, 500):
        rows = [
            Submission(
                kind=("generate", "ingest")[number % 2],
                queue="q",
                spec={"prompt": f"question {number}", "collection": COLLECTIONS[number % len(COLLECTIONS)]},
                owner="ada",
                model=MODELS[number % 3] if number % 2 == 0 else "",
            )
            for number in range(start, start + 500)
        ]
        submitter.submit_jobs(rows)
    for number in range(ENDED):
        job = transitions.claim("q", "w", new_id(CLAIM))
        assert job is not None
        error = {"code": "engine_fault", "message": "The engine stopped."} if number % 20 == 0 else None
        transitions.finish((job.id, 1), Status.FAILED if error else Status.COMPLETED, error=error, result=None)


def measure_reads(client: redis.Redis, count: int) -> None:
    from shared.jobs.job_filter import JobFilter
    from shared.jobs.queries import JobQueries

    queries = JobQueries(client)
    filters = {
        "all": JobFilter(owner="ada"),
        "failed": JobFilter(owner="ada", statuses=("failed",)),
        "failed or expired ingests": JobFilter(owner="ada", statuses=("failed", "expired"), kind="ingest"),
        "failed in a collection": JobFilter(owner="ada", statuses=("failed",), collection=COLLECTIONS[7]),
        "cancelled": JobFilter(owner="ada", statuses=("cancelled",)),
        "text that one job has": JobFilter(owner="ada", text="question 17"),
        "failed of all owners": JobFilter(statuses=("failed",)),
    }
    for name, wanted in filters.items():
        # Bound as defaults, as each function is called in its own round.
        figure("job_index.page", median(lambda w=wanted: queries.find_jobs(w, limit=100)), "ms", filter=name, jobs=count)
        figure("job_index.counts", median(lambda w=wanted: queries.count_jobs(w)), "ms", filter=name, jobs=count)
    since = JobFilter(owner="ada", since_ms=int(1000 * time.time()) - 60_000)
    figure("job_index.counts", median(lambda: queries.count_jobs(since)), "ms", filter="last minute", jobs=count)


def median(call: Callable[[], object]) -> float:
    """Milliseconds of a call."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - started))
    return percentile(times, 50)


if __name__ == "__main__":
    main()
