"""Turns: a long job returns its slot when an owner waits who has none."""

import redis

from shared.jobs.models import Job
from shared.jobs.queries import JobQueries
from shared.jobs.submission import Submission
from shared.jobs.worker_registry import WorkerRegistry
from tests.conftest import JobSystem
from workers.runtime.worker_runtime import describe_process

QUEUE = "cpu"


def submit(system: JobSystem, owner: str) -> None:
    system.submitter.submit_job(Submission(kind="ingest", queue=QUEUE, spec={}, owner=owner))


def test_a_running_job_gives_way_to_an_owner_who_has_none(system: JobSystem, redis_client: redis.Redis) -> None:
    queries = JobQueries(redis_client)
    workers = [describe_process(f"cpu{number}", pool="cpu", queues=(QUEUE,), slots=1) for number in range(3)]

    def claim(number: int) -> Job:
        WorkerRegistry(redis_client, clock=system.clock).heartbeat(workers[number])
        job = system.transitions.claim(QUEUE, workers[number].id, f"token {number}")
        assert job is not None
        return job

    submit(system, "ada")
    submit(system, "ada")
    first, _ = claim(0), claim(1)
    assert not queries.must_give_way(first), "nobody waits"
    submit(system, "ada")
    assert not queries.must_give_way(first), "only jobs of the same owner wait"
    submit(system, "bob")
    assert queries.must_give_way(first)
    while claim(2).owner != "bob":
        submit(system, "ada")
        redis_client.delete("eh:claim:token 2")
    submit(system, "bob")
    assert not queries.must_give_way(first), "the other owner has a running job"
