"""API keys, and fair sharing among their api_keys."""

import hashlib
from collections import Counter

import pytest
import redis

from shared.errors import InvalidValue, NotFound
from shared.jobs.models import Job, Status
from shared.jobs.submission import Submission
from shared.owners.limits import OwnerLimits
from shared.owners.store import ApiKeys
from tests.conftest import JobSystem


@pytest.fixture
def api_keys(redis_client: redis.Redis) -> ApiKeys:
    return ApiKeys(redis_client)


def submit(system: JobSystem, owner: str, cost: int = 10) -> str:
    return system.submitter.submit_job(Submission(kind="generate", queue="gpu.m", spec={}, owner=owner, cost=cost)).id


def serve(system: JobSystem, token: str, service: int | None = None) -> Job:
    """Run the next job, which uses this much service."""
    job = system.transitions.claim("gpu.m", "w1", token)
    assert job is not None
    system.transitions.finish((job.id, job.attempt), Status.COMPLETED, result={}, service=service)
    return job


def test_only_the_digest_of_a_secret_is_stored(api_keys: ApiKeys, redis_client: redis.Redis) -> None:
    key, secret = api_keys.create("laptop", owner="ada")
    kept = redis_client.hgetall("eh:keys")
    assert list(kept) == [hashlib.sha256(secret.encode()).hexdigest()]
    assert secret not in str(kept)
    assert secret.startswith(key.prefix)
    assert len(secret) > 40
    assert api_keys.list_keys() == [key]


def test_a_key_is_found_by_its_secret_until_it_is_revoked(api_keys: ApiKeys) -> None:
    key, secret = api_keys.create("laptop", owner="ada")
    other, other_secret = api_keys.create("server", owner="ada")
    assert api_keys.find(secret) == key
    assert api_keys.find(secret + "x") is None
    revoked = api_keys.revoke(key.id)
    assert revoked.revoked_at is not None
    assert api_keys.revoke(key.id) == revoked, "the time of the first revocation is kept"
    assert api_keys.find(secret) is None
    assert api_keys.find(other_secret) == other
    assert api_keys.any_exist()
    with pytest.raises(NotFound, match="keys list"):
        api_keys.revoke("key_unknown")


def test_a_revoked_key_does_not_open_the_server_again(api_keys: ApiKeys) -> None:
    assert not api_keys.any_exist()
    api_keys.revoke(api_keys.create("only")[0].id)
    assert api_keys.any_exist()


@pytest.mark.parametrize("name", ["", "-a", "a b", "a" * 64, "ada:jobs", "é", "a\n"])
def test_a_name_that_is_invalid_in_a_redis_key_is_rejected(api_keys: ApiKeys, name: str) -> None:
    with pytest.raises(InvalidValue, match="name"):
        api_keys.create(name)
    with pytest.raises(InvalidValue):
        api_keys.create("fine", owner=name or " ")
    assert not api_keys.any_exist()


@pytest.mark.parametrize("weight", [0, -1, 1000, float("nan"), float("inf")])
def test_a_weight_out_of_range_is_rejected(redis_client: redis.Redis, weight: float) -> None:
    with pytest.raises(InvalidValue, match="weight"):
        OwnerLimits(redis_client).set_weight("ada", weight)


def test_an_owner_of_weight_two_gets_twice_the_service(redis_client: redis.Redis, system: JobSystem) -> None:
    OwnerLimits(redis_client).set_weight("bob", 2)
    for _ in range(200):
        submit(system, "ada")
        submit(system, "bob")
    used: Counter[str] = Counter()
    for number in range(150):
        # The service of a job is known when it ends, and differs from its expected cost.
        service = (5, 17, 40)[number % 3]
        used[serve(system, f"t{number}", service).owner] += service
    assert used["bob"] / used["ada"] == pytest.approx(2, rel=0.05)


def test_a_further_key_keeps_the_weight_of_its_owner(api_keys: ApiKeys, redis_client: redis.Redis) -> None:
    OwnerLimits(redis_client).set_weight("ada", 4)
    api_keys.create("second", owner="ada")
    assert OwnerLimits(redis_client).weight("ada") == 4


def test_owners_share_service_and_not_the_number_of_jobs(system: JobSystem) -> None:
    for _ in range(60):
        submit(system, "long")
        submit(system, "short")
    turns: Counter[str] = Counter()
    for number in range(60):
        job = system.transitions.claim("gpu.m", "w1", f"t{number}")
        assert job is not None
        turns[job.owner] += 1
        system.transitions.finish((job.id, 1), Status.COMPLETED, result={}, service=90 if job.owner == "long" else 10)
    assert turns["short"] / turns["long"] == pytest.approx(9, rel=0.2)


def test_one_owner_cannot_have_all_slots_while_there_are_others(system: JobSystem) -> None:
    def claim(number: int, slots: int = 4) -> str:
        job = system.transitions.claim_for_slot("gpu.m", "w1", f"t{number}", slots=slots, reserved=1)
        return job.owner if isinstance(job, Job) else str(job)

    greedy = [submit(system, "greedy") for _ in range(8)]
    assert [claim(number) for number in range(4)] == ["greedy"] * 4, "alone, it has all of them"
    submit(system, "modest")
    for job in greedy[:2]:
        system.transitions.finish((job, 1), Status.COMPLETED, result={})
    assert [claim(number) for number in range(4, 6)] == ["greedy", "modest"]
    for job in greedy[2:4]:
        system.transitions.finish((job, 1), Status.COMPLETED, result={})
    assert [claim(number) for number in range(6, 8)] == ["greedy", "held_back"]
    assert claim(8, slots=6) == "greedy", "it is not the last slot of this worker"
    for job in greedy[5:]:
        system.transitions.cancel(job, "greedy")
    assert claim(9) == "None"


def test_a_new_owner_starts_at_the_least_service_of_waiting_owners(system: JobSystem) -> None:
    for _ in range(20):
        submit(system, "old")
    for number in range(10):
        serve(system, f"t{number}", service=100)
    for _ in range(20):
        submit(system, "new")
    served = [serve(system, f"n{number}", service=100).owner for number in range(10)]
    assert served.count("new") == 5


def test_a_new_owner_starts_level_even_if_no_owner_is_waiting(system: JobSystem) -> None:
    for number in range(50):
        submit(system, "regular")
        serve(system, f"t{number}", service=100)
    for _ in range(20):
        submit(system, "new")
        submit(system, "regular")
    served = [serve(system, f"n{number}", service=100).owner for number in range(10)]
    assert 4 <= served.count("regular") <= 6


def test_fair_shares_survive_an_hour_without_workers(system: JobSystem, redis_client: redis.Redis) -> None:
    for _ in range(30):
        submit(system, "ada")
        submit(system, "bob")
    for number in range(20):
        serve(system, f"t{number}", service=100)
    redis_client.delete("eh:queue:gpu.m:service")  # as its expiry does after an hour without a claim
    served = [serve(system, f"n{number}", service=100).owner for number in range(10)]
    assert served.count("ada") == 5
