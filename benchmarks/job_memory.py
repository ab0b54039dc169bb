"""Memory of jobs in Redis: what an ended job of each kind costs, by part. ``python -m benchmarks.job_memory``

It writes jobs through the transitions of the server into a Redis of its own, and divides the growth of its memory by their number.
"""

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import redis

from cli.local.redis_server import start_redis
from shared.ids import CLAIM, new_id
from shared.jobs.models import Status
from shared.jobs.submission import JobSubmitter, Submission
from shared.jobs.transitions import Event, JobTransitions
from shared.redis_connection import PREFIX, connect
from shared.settings import Settings

PARTS = ("", ":input", ":result", ":events")
LABELS = ("record", "input", "result", "events")


@dataclass(frozen=True)
class Kind:
    """Jobs that are measured together: ``deltas`` is how many pieces of the answer are streamed."""

    label: str
    spec: dict[str, Any]
    result: dict[str, Any]
    deltas: int


def generation(label: str, prompt: int, answer: int, deltas: int) -> Kind:
    usage = {"prompt_tokens": prompt // 4, "completion_tokens": answer // 4, "total_tokens": (prompt + answer) // 4}
    spec = {"prompt": "p" * prompt, "max_tokens": 512, "temperature": 0.7, "top_p": 0.9}
    return Kind(label, spec, {"text": "a" * answer, "finish_reason": "stop", "usage": usage}, deltas)


KINDS = (
    generation("tiny generation (16 B prompt, 16 B answer)", 16, 16, 1),
    generation("generation of 200 tokens (1 kB prompt, 1 kB answer)", 1000, 1000, 50),
    generation("generation of 2,000 tokens (8 kB prompt, 8 kB answer)", 8000, 8000, 500),
    Kind(
        "search with 5 hits",
        {"query": "how many days of vacation", "collection_id": "col_01m84svpew31wcd91z2271xy1f", "top_k": 5},
        {"hits": [{"text": "t" * 800, "document_id": "doc_01m84svpew31wcd91z2271xy1f", "page": 1} for _ in range(5)]},
        0,
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000)
    count = parser.parse_args().jobs
    print("| job | just ended | an hour later | " + " | ".join(LABELS) + " |")
    print("|---" * (3 + len(LABELS)) + "|")
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            server = start_redis(Path(folder))
            try:
                print(measure(connect(server.url), Settings(redis_url=server.url), kind, count))
            finally:
                server.stop()


def measure(client: redis.Redis, settings: Settings, kind: Kind, count: int) -> str:
    """One line of the table, in bytes of a job."""
    settings = replace(settings, max_bytes_per_owner=0)
    submitter = JobSubmitter(client, settings, lambda queue, count: None)
    transitions = JobTransitions(client, settings, lambda queue, count: None)
    run_job(submitter, transitions, kind)  # loads the scripts
    empty = used(client)
    jobs = [run_job(submitter, transitions, kind) for _ in range(count)]
    drop_claims(client)
    ended = (used(client) - empty) / count
    parts = [memory_of(client, f"{PREFIX}job:{jobs[-1]}{part}") for part in PARTS]
    for job in jobs:
        client.delete(f"{PREFIX}job:{job}:events")  # as ENGINEHOUSE_EVENT_RETENTION_SECONDS does
    later = (used(client) - empty) / count
    return f"| {kind.label} | {ended:,.0f} | {later:,.0f} | " + " | ".join(f"{part:,}" for part in parts) + " |"


def run_job(submitter: JobSubmitter, transitions: JobTransitions, kind: Kind) -> str:
    job = submitter.submit_job(Submission(kind="generate", queue="gpu.m", model="m", owner="ada", spec=kind.spec)).id
    claimed = transitions.claim("gpu.m", "gpu0@host/4711", new_id(CLAIM))
    assert claimed is not None
    piece = str(kind.result.get("text", ""))[: max(1, len(str(kind.result.get("text", ""))) // max(1, kind.deltas))]
    transitions.append_events(
        [
            Event(job=job, attempt=1, index=number + 1, type="delta", data={"text": piece}, phase="generating")
            for number in range(kind.deltas)
        ]
    )
    assert transitions.finish((job, 1), Status.COMPLETED, result=kind.result) == "ok"
    return job


def used(client: redis.Redis) -> int:
    return int(client.info("memory")["used_memory"])


def memory_of(client: redis.Redis, key: str) -> int:
    return int(client.memory_usage(key, samples=0) or 0)


def drop_claims(client: redis.Redis) -> None:
    """Delete the tokens of claims, which expire after a minute."""
    for key in client.scan_iter(f"{PREFIX}claim:*", count=1000):
        client.delete(key)


if __name__ == "__main__":
    main()
