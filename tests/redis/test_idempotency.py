"""A request sent again makes nothing new; another request under the same key is refused."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from shared.errors import IdempotencyConflict
from shared.jobs.transitions import Lifecycle, Submission, Submitted

DAY_SECONDS = 24 * 3600


def submit(lifecycle: Lifecycle, *, owner: str = "ada", key: str = "order-7", fingerprint: str = "body") -> Submitted:
    return lifecycle.submit_job(
        Submission(kind="generate", queue="gpu.m", spec={}, owner=owner, idempotency_key=key, fingerprint=fingerprint)
    )


def test_the_same_request_gets_the_first_job(lifecycle: Lifecycle) -> None:
    first = submit(lifecycle)
    assert first.replayed is False
    assert submit(lifecycle) == Submitted(first.id, replayed=True)
    assert lifecycle._client.zcard("eh:jobs:due") == 1


def test_another_request_under_the_same_key_is_refused_and_told_which_job_has_it(lifecycle: Lifecycle) -> None:
    first = submit(lifecycle)
    with pytest.raises(IdempotencyConflict, match=first.id) as refusal:
        submit(lifecycle, fingerprint="another body")
    assert refusal.value.status == 409
    assert refusal.value.should_retry is False
    assert lifecycle._client.zcard("eh:jobs:due") == 1


def test_the_same_key_of_another_owner_is_another_key(lifecycle: Lifecycle) -> None:
    assert submit(lifecycle).id != submit(lifecycle, owner="bob", fingerprint="another body").id


def test_requests_without_a_key_are_all_new(lifecycle: Lifecycle) -> None:
    assert submit(lifecycle, key="").id != submit(lifecycle, key="").id


def test_of_many_at_the_same_time_one_makes_the_job(lifecycle: Lifecycle) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: submit(lifecycle), range(32)))
    assert len({answer.id for answer in answers}) == 1
    assert [answer.replayed for answer in answers].count(False) == 1


def test_a_refused_submission_does_not_use_its_key_up(lifecycle: Lifecycle) -> None:
    gone = Submission(
        kind="generate", queue="gpu.m", spec={}, owner="ada", session="gone", idempotency_key="order-7", fingerprint="body"
    )
    with pytest.raises(Exception, match="no session"):
        lifecycle.submit_job(gone)
    assert submit(lifecycle).replayed is False


def test_a_key_is_kept_for_a_day(lifecycle: Lifecycle, redis_client: redis.Redis) -> None:
    submit(lifecycle)
    lifecycle.open_batch("ada", spec={}, idempotency_key="upload-7", fingerprint="body")
    kept = [redis_client.ttl(f"eh:idempotency:ada:{key}") for key in ("order-7", "upload-7")]
    assert all(DAY_SECONDS - 60 <= seconds <= DAY_SECONDS for seconds in kept)


def test_a_batch_is_opened_once(lifecycle: Lifecycle) -> None:
    first = lifecycle.open_batch("ada", spec={}, idempotency_key="upload-7", fingerprint="files")
    assert lifecycle.open_batch("ada", spec={}, idempotency_key="upload-7", fingerprint="files") == Submitted(first.id, True)
    with pytest.raises(IdempotencyConflict):
        lifecycle.open_batch("ada", spec={}, idempotency_key="upload-7", fingerprint="other files")
