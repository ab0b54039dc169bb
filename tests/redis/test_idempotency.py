"""Idempotency keys: a repeated request creates nothing, and a different request with the same key is rejected."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from shared.errors import IdempotencyConflict
from shared.jobs.submission import Submission, SubmissionResult
from tests.conftest import JobSystem

DAY_SECONDS = 24 * 3600


def submit(system: JobSystem, *, owner: str = "ada", key: str = "order-7", fingerprint: str = "body") -> SubmissionResult:
    return system.submitter.submit_job(
        Submission(kind="generate", queue="gpu.m", spec={}, owner=owner, idempotency_key=key, fingerprint=fingerprint)
    )


def test_the_same_request_gets_the_first_job(system: JobSystem) -> None:
    first = submit(system)
    assert first.replayed is False
    assert submit(system) == SubmissionResult(first.id, replayed=True)
    assert system.client.zcard("eh:jobs:due") == 1


def test_another_request_with_the_same_key_is_rejected_with_the_existing_job(system: JobSystem) -> None:
    first = submit(system)
    with pytest.raises(IdempotencyConflict, match=first.id) as refusal:
        submit(system, fingerprint="another body")
    assert refusal.value.status == 409
    assert refusal.value.should_retry is False
    assert system.client.zcard("eh:jobs:due") == 1


def test_keys_of_different_owners_are_independent(system: JobSystem) -> None:
    assert submit(system).id != submit(system, owner="bob", fingerprint="another body").id


def test_requests_without_a_key_create_new_jobs(system: JobSystem) -> None:
    assert submit(system, key="").id != submit(system, key="").id


def test_concurrent_requests_create_one_job(system: JobSystem) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: submit(system), range(32)))
    assert len({answer.id for answer in answers}) == 1
    assert [answer.replayed for answer in answers].count(False) == 1


def test_a_rejected_submission_does_not_use_up_its_key(system: JobSystem) -> None:
    gone = Submission(
        kind="generate", queue="gpu.m", spec={}, owner="ada", session="gone", idempotency_key="order-7", fingerprint="body"
    )
    with pytest.raises(Exception, match="does not exist"):
        system.submitter.submit_job(gone)
    assert submit(system).replayed is False


def test_a_key_is_kept_for_a_day(system: JobSystem, redis_client: redis.Redis) -> None:
    submit(system)
    system.submitter.open_batch("ada", spec={}, idempotency_key="upload-7", fingerprint="body")
    kept = [redis_client.ttl(f"eh:idempotency:ada:{key}") for key in ("order-7", "upload-7")]
    assert all(DAY_SECONDS - 60 <= seconds <= DAY_SECONDS for seconds in kept)


def test_a_batch_is_opened_once(system: JobSystem) -> None:
    first = system.submitter.open_batch("ada", spec={}, idempotency_key="upload-7", fingerprint="files")
    assert system.submitter.open_batch("ada", spec={}, idempotency_key="upload-7", fingerprint="files") == SubmissionResult(
        first.id, True
    )
    with pytest.raises(IdempotencyConflict):
        system.submitter.open_batch("ada", spec={}, idempotency_key="upload-7", fingerprint="other files")
