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


def claim_of_three(system: JobSystem, number: int) -> str:
    """The kind of claim of a worker with three slots, one of them reserved."""
    found = system.transitions.claim_for_slot("gpu.m", "w1", f"t{number}", slots=3, reserved=1)
    return found.metadata["name"] if isinstance(found, Job) else str(found)


def submit_named(system: JobSystem, name: str, priority: int, owner: str = "ada") -> None:
    submission = Submission(kind="generate", queue="gpu.m", spec={}, owner=owner, priority=priority, metadata={"name": name})
    system.submitter.submit_job(submission)


def test_jobs_of_batches_leave_the_reserved_slots_to_jobs_that_somebody_waits_for(system: JobSystem) -> None:
    for name in ("one", "two", "three"):
        submit_named(system, name, 8)
    assert [claim_of_three(system, number) for number in range(3)] == ["one", "two", "held_back"]
    submit_named(system, "urgent", 5)
    assert claim_of_three(system, 4) == "urgent", "of the same owner, who is alone"


def test_a_slot_that_is_held_back_hears_of_a_more_urgent_job_at_once(system: JobSystem, redis_client: redis.Redis) -> None:
    for name in ("one", "two", "three"):
        submit_named(system, name, 9)
    assert [claim_of_three(system, number) for number in range(3)][-1] == "held_back"
    with redis_client.pubsub() as channel:  # type: ignore[no-untyped-call]
        channel.subscribe("eh:worker:w1")
        assert channel.get_message(timeout=2)["type"] == "subscribe"
        submit_named(system, "four", 8)
        submit_named(system, "urgent", 7)
        submit_named(system, "second", 7)
        assert channel.get_message(timeout=2)["data"] == '{"job_waits":"gpu.m"}'
        assert channel.get_message(timeout=0.05) is None, "once, until it asks again"
