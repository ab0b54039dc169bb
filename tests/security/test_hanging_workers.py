"""No file can hold a process for good: a real prefork child that hangs is killed, and the next job runs."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from shared.jobs.celery_broker import CeleryBroker
from shared.jobs.queries import JobQueries
from shared.jobs.submission import JobSubmitter, Submission
from shared.jobs.transitions import JobTransitions
from shared.redis_connection import connect
from shared.settings import Settings
from shared.settings_sources import to_environment
from testing.repository import REPOSITORY
from testing.waiting import wait_until
from tests.security.hanging_worker import QUEUE


@pytest.fixture
def worker_settings(redis_url: str, tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path, redis_url=redis_url, lease_seconds=1, renew_seconds=0.2, maintenance_seconds=0.1, max_attempts=1
    )


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A client without the check for leaked keys: a Celery worker leaves keys of its own."""
    client = connect(redis_url)
    client.flushall()
    yield client
    client.flushall()
    client.close()


@pytest.fixture
def worker(redis_client: redis.Redis, worker_settings: Settings, tmp_path: Path) -> Iterator[Path]:
    """A worker with one child; yields its log."""
    log = tmp_path / "worker.log"
    command = [sys.executable, "-m", "celery", "--quiet", "--app", "tests.security.hanging_worker", "worker"]
    command += ["--pool", "prefork", "--concurrency", "1", "--queues", QUEUE, "--without-mingle", "--without-gossip"]
    environment = {**os.environ, **to_environment(worker_settings), "PYTHONPATH": str(REPOSITORY)}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=output, stderr=output)
        yield log
        process.kill()
        process.wait()


@pytest.mark.parametrize(("hang", "status"), [("lock", "failed"), ("loop", "cancelled")])
def test_a_child_that_hangs_is_replaced(
    worker: Path, redis_client: redis.Redis, worker_settings: Settings, hang: str, status: str
) -> None:
    wake = CeleryBroker(redis_client).wake
    submitter, queries = JobSubmitter(redis_client, worker_settings, wake), JobQueries(redis_client)

    def submit(hang: str) -> str:
        return submitter.submit_job(Submission(kind="ingest", queue=QUEUE, spec={"hang": hang}, owner="")).id

    def status_of(job_id: str) -> str:
        job = queries.get_job(job_id)
        assert job is not None
        return job.status

    hanging, honest = submit(hang), submit("")
    wait_until(lambda: status_of(hanging) == "in_progress", "the job hangs")
    if hang == "loop":
        JobTransitions(redis_client, worker_settings, wake).cancel(hanging, "")
    wait_until(lambda: status_of(honest) == "completed", f"the next job runs; see {worker}")
    wait_until(lambda: status_of(hanging) == status, "the hanging job ends")
