"""Backpressure: queues are limited in total and per owner, and a rejected submission writes nothing."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
import redis

from shared.errors import TooMany
from shared.jobs.models import Status
from shared.jobs.submission import Submission
from shared.settings import Settings
from tests.conftest import Clock, JobSystem


@pytest.fixture
def bounded(redis_client: redis.Redis, settings: Settings, clock: Clock) -> JobSystem:
    """A system whose queues hold at most five jobs, and three per owner."""
    return JobSystem(redis_client, replace(settings, max_queued=5, max_queued_per_owner=3), lambda *_: None, clock=clock)


def submit(system: JobSystem, owner: str, queue: str = "gpu.m", **options: str) -> str:
    return system.submitter.submit_job(Submission(kind="generate", queue=queue, spec={}, owner=owner, **options)).id  # type: ignore[arg-type]


def fill(system: JobSystem, owners: Iterable[str]) -> None:
    for owner in owners:
        submit(system, owner)


def everything(client: redis.Redis) -> dict[str, bytes]:
    return {key: client.execute_command("DUMP", key, NEVER_DECODE=True) for key in client.scan_iter()}


@pytest.mark.parametrize(
    ("owners", "next_owner", "code", "limit"),
    [(["ada"] * 3, "ada", "owner_full", 3), (["ada", "bob"] * 2 + ["cat"], "dan", "queue_full", 5)],
)
def test_a_rejection_names_the_limit_and_writes_nothing(
    bounded: JobSystem, redis_client: redis.Redis, owners: list[str], next_owner: str, code: str, limit: int
) -> None:
    fill(bounded, owners)
    before = everything(redis_client)
    with pytest.raises(TooMany, match=str(limit)) as refusal:
        submit(bounded, next_owner, idempotency_key="k", fingerprint="f")
    assert (refusal.value.code, refusal.value.details["limit"], refusal.value.status) == (code, limit, 429)
    assert refusal.value.retry_after
    assert everything(redis_client) == before


def test_limits_do_not_affect_other_owners_or_queues(bounded: JobSystem) -> None:
    fill(bounded, ["ada"] * 3 + ["bob"] * 2)
    with pytest.raises(TooMany):
        submit(bounded, "cat")
    assert submit(bounded, "ada", queue="gpu.other")


def test_claimed_and_ended_jobs_make_room(bounded: JobSystem) -> None:
    fill(bounded, ["ada"] * 3)
    job = bounded.transitions.claim("gpu.m", "w1", "t1")
    assert job is not None
    waiting = submit(bounded, "ada")
    bounded.transitions.finish((job.id, 1), Status.COMPLETED, result={})
    with pytest.raises(TooMany):
        submit(bounded, "ada")
    bounded.transitions.cancel(waiting, "ada")
    assert submit(bounded, "ada")


def test_an_accepted_job_returns_to_a_full_queue(bounded: JobSystem) -> None:
    fill(bounded, ["ada"] * 3)
    job = bounded.transitions.claim("gpu.m", "w1", "t1")
    assert job is not None
    submit(bounded, "ada")
    assert bounded.transitions.release((job.id, 1), "gpu.m") == "ok"
    claimed = {bounded.transitions.claim("gpu.m", "w1", f"again {n}").id for n in range(4)}  # type: ignore[union-attr]
    assert job.id in claimed


def test_a_repeated_request_gets_its_job_although_the_queue_is_full(bounded: JobSystem) -> None:
    first = submit(bounded, "ada", idempotency_key="k", fingerprint="f")
    fill(bounded, ["ada"] * 2)
    assert submit(bounded, "ada", idempotency_key="k", fingerprint="f") == first
