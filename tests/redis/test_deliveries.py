"""Webhook deliveries on a real Redis with a simulated clock, from the end of a job to the last attempt."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from shared.errors import Conflict, InvalidValue, NotFound
from shared.ids import is_id
from shared.jobs.models import Status, from_record
from shared.jobs.submission import JobSubmitter, Submission
from shared.settings import Settings
from shared.webhooks.deliveries import DELIVERY, Deliveries, Delivery
from shared.webhooks.endpoints import FINAL_EVENTS, KINDS, MAX_ENDPOINTS, Endpoint, Endpoints, check_secret, new_secret
from tests.conftest import Clock, JobSystem
from workers.io.webhooks.dispatcher import JITTER, RETRY_SECONDS, retry_decision
from workers.io.webhooks.http_sender import Reply

LEASE = 20.0


@pytest.fixture
def deliveries(redis_client: redis.Redis, clock: Clock) -> Deliveries:
    return Deliveries(redis_client, clock=clock)


@pytest.fixture
def endpoints(redis_client: redis.Redis, clock: Clock) -> Endpoints:
    return Endpoints(redis_client, clock=clock)


def webhook(authority: str = "hook.example:443", events: tuple[str, ...] = FINAL_EVENTS, endpoint: str = "") -> dict[str, Any]:
    return {"url": f"https://{authority}/a", "authority": authority, "events": events, "endpoint": endpoint, "secret": ""}


def submit(system: JobSystem, target: dict[str, Any] | None = None, owner: str = "ada", **options: Any) -> str:
    spec = {"prompt": "a secret of the owner"}
    return system.submitter.submit_job(
        Submission(kind="generate", queue="q", spec=spec, owner=owner, webhook=target, **options)
    ).id


def run(system: JobSystem, job: str) -> None:
    """Claim and complete the job, which must be the next in its queue."""
    claimed = system.transitions.claim("q", "w", f"claim {job}")
    assert claimed is not None
    assert claimed.id == job
    system.transitions.finish((job, claimed.attempt), Status.COMPLETED, result={"text": "done"})


def finished(system: JobSystem, target: dict[str, Any] | None = None, owner: str = "ada") -> str:
    job = submit(system, target, owner)
    run(system, job)
    return job


def register(endpoints: Endpoints, owner: str = "ada", **changes: Any) -> Endpoint:
    fields = {"url": "https://kept.example/", "authority": "kept.example:443", "events": FINAL_EVENTS, "job_kinds": KINDS}
    return endpoints.create(owner, **{**fields, "description": "", "secret": ""} | changes)


def claim(deliveries: Deliveries, token: str, worker: str = "io1") -> Delivery:
    found = deliveries.claim(worker, token, LEASE)
    assert found is not None
    return found


def fail(deliveries: Deliveries, delivery: Delivery, delay: float) -> None:
    assert (
        deliveries.record_attempt(delivery.id, delivery.number, "retry", delay_seconds=delay, status=500, error="answered 500")
        == "ok"
    )


def test_the_transition_that_ends_a_job_writes_its_delivery(system: JobSystem, deliveries: Deliveries) -> None:
    job = submit(system, webhook())
    assert deliveries.list_for_job(job) == []
    run(system, job)
    [delivery] = deliveries.list_for_job(job)
    assert is_id(DELIVERY, delivery.id)
    assert (delivery.event, delivery.status, delivery.url) == ("job.completed", "pending", "https://hook.example:443/a")
    snapshot = from_record(deliveries.job_record(delivery))
    assert (snapshot.id, snapshot.status, snapshot.result) == (job, Status.COMPLETED, {"text": "done"})
    assert (snapshot.spec, snapshot.summary) == ({}, ""), "the receiver must not see the prompt"


@pytest.mark.parametrize("how", ["cancelled", "expired", "failed"])
def test_every_final_status_is_delivered(system: JobSystem, deliveries: Deliveries, clock: Clock, how: str) -> None:
    job = submit(system, webhook(), expires_ms=5000 if how == "expired" else None)
    if how == "cancelled":
        system.transitions.cancel(job, "ada")
    elif how == "expired":
        clock.advance(6)
        system.maintenance.reap()
    else:
        for number in range(3):
            assert system.transitions.claim("q", "w", f"t{number}") is not None
            system.maintenance.mark_worker_dead("w")
            clock.advance(61)
            system.maintenance.reap()
    assert [delivery.event for delivery in deliveries.list_for_job(job)] == [f"job.{how}"]


def test_the_start_of_a_job_is_delivered_once_and_only_to_subscribers(system: JobSystem, deliveries: Deliveries) -> None:
    job = submit(system, webhook(events=("job.started",)))
    assert system.transitions.claim("q", "w", "t1") is not None
    system.maintenance.mark_worker_dead("w")
    run(system, job)
    assert [delivery.event for delivery in deliveries.list_for_job(job)] == ["job.started"]


def test_the_end_of_a_batch_is_delivered_once(system: JobSystem, deliveries: Deliveries) -> None:
    batch = system.submitter.open_batch("ada", spec={}, webhook=webhook()).id
    job = submit(system, parent=batch)
    system.submitter.seal_batch(batch)
    run(system, job)
    assert [delivery.event for delivery in deliveries.list_for_job(batch)] == ["job.completed"]
    assert deliveries.list_for_job(job) == []


def test_endpoints_receive_the_events_that_they_subscribe_to(
    system: JobSystem, deliveries: Deliveries, endpoints: Endpoints
) -> None:
    all_ends = register(endpoints)
    register(endpoints, url="https://other.example/", events=("job.failed",))
    register(endpoints, url="https://third.example/", job_kinds=("ingest",))
    register(endpoints, owner="bob", url="https://bob.example/")
    endpoints.change(register(endpoints, url="https://off.example/").id, "ada", {"disabled": "by its owner"})
    [delivery] = deliveries.list_for_job(finished(system))
    assert (delivery.endpoint, delivery.url) == (all_ends.id, all_ends.url)


def test_a_job_whose_webhook_is_an_endpoint_is_delivered_once(
    system: JobSystem, deliveries: Deliveries, endpoints: Endpoints
) -> None:
    endpoint = register(endpoints)
    target = {**webhook(endpoint=endpoint.id), "url": endpoint.url, "authority": "kept.example:443"}
    assert len(deliveries.list_for_job(finished(system, target))) == 1
    started_only = {**target, "events": ("job.started",)}
    events = [delivery.event for delivery in deliveries.list_for_job(finished(system, started_only))]
    assert set(events) == {"job.started", "job.completed"}


def test_deleting_a_job_deletes_its_deliveries(system: JobSystem, deliveries: Deliveries) -> None:
    waiting, running = finished(system, webhook()), finished(system, webhook())
    delivery = claim(deliveries, "t1")
    for job in (waiting, running):
        assert system.transitions.delete(job, "ada") == "deleted"
    assert deliveries.job_record(delivery) == {}
    assert deliveries.record_attempt(delivery.id, 1, "delivered", status=204) == "lost"
    assert deliveries.claim("io1", "t2", LEASE) is None
    assert system.client.keys("eh:deliveries:*") == [], "no place at the receiver stays taken"


def test_a_job_is_kept_while_its_result_may_have_to_be_delivered(system: JobSystem, deliveries: Deliveries, clock: Clock) -> None:
    brief = JobSubmitter(system.client, Settings(job_retention_seconds=60), lambda *_: None, clock=clock)
    job = brief.submit_job(Submission(kind="generate", queue="q", spec={}, owner="ada", webhook=webhook())).id
    run(system, job)
    clock.advance(3 * 24 * 3600)
    assert system.maintenance.purge() == 0
    assert json.loads(deliveries.job_record(claim(deliveries, "t1"))["result"]) == {"text": "done"}


def test_a_retry_keeps_the_webhook(system: JobSystem, deliveries: Deliveries) -> None:
    found = system.queries.get_job(finished(system, webhook()))
    assert found is not None
    again = system.submitter.replay(found).id
    run(system, again)
    assert len(deliveries.list_for_job(again)) == 1


def test_a_receiver_that_never_answers_gets_ten_attempts_with_one_id(
    system: JobSystem, deliveries: Deliveries, clock: Clock
) -> None:
    job = finished(system, webhook())
    ids, waited = set(), []
    for number in range(1, 11):
        delivery = claim(deliveries, f"t{number}")
        assert delivery.number == number
        ids.add(delivery.id)
        outcome, delay = retry_decision(Reply(error="connection refused"), delivery.failures)
        deliveries.record_attempt(delivery.id, number, outcome, delay_seconds=delay, error="connection refused")
        if outcome == "retry":
            waited.append(delay)
            clock.advance(delay - 0.1)
            assert deliveries.claim("io1", f"early {number}", LEASE) is None
            clock.advance(0.1)
    [delivery] = deliveries.list_for_job(job)
    assert (delivery.status, delivery.reason, len(delivery.attempts)) == ("failed", "connection refused", 10)
    assert ids == {delivery.id}
    for delay, planned in zip(waited, RETRY_SECONDS, strict=True):
        assert abs(delay - planned) <= JITTER * planned
    clock.advance(10 * 86400)
    assert deliveries.claim("io1", "after the last", LEASE) is None


def test_a_receiver_that_is_down_for_an_hour_gets_all_deliveries(system: JobSystem, deliveries: Deliveries, clock: Clock) -> None:
    jobs = {finished(system, webhook()) for _ in range(20)}
    begun, delivered, tokens = clock(), {}, 0
    while len(delivered) < 20:
        tokens += 1
        delivery = deliveries.claim("io1", f"t{tokens}", LEASE)
        if delivery is None:
            clock.advance(60)
            assert clock() - begun < 4 * 3600 * 1000
        elif clock() - begun < 3600 * 1000:
            outcome, delay = retry_decision(Reply(error="connection refused"), delivery.failures)
            deliveries.record_attempt(delivery.id, delivery.number, outcome, delay_seconds=delay, error="connection refused")
        else:
            delivered[delivery.job] = delivery.id
            deliveries.record_attempt(delivery.id, delivery.number, "delivered", status=204)
    assert set(delivered) == jobs
    assert {delivery.status for job in jobs for delivery in deliveries.list_for_job(job)} == {"delivered"}


def test_the_reply_decides_about_the_retry() -> None:
    assert retry_decision(Reply(status=204), 3) == ("delivered", 0)
    assert retry_decision(Reply(status=410), 0) == ("gone", 0)
    assert retry_decision(Reply(status=302), 0)[0] == "retry"
    assert retry_decision(Reply(status=429, retry_after=900), 0) == ("retry", 900)
    assert retry_decision(Reply(status=503, retry_after=1), 2)[1] > 1000, "an early Retry-After does not use up the attempts"
    assert retry_decision(Reply(status=500), 9) == ("exhausted", 0)


def test_an_authority_has_four_concurrent_attempts_and_delays_no_other(system: JobSystem, deliveries: Deliveries) -> None:
    for _ in range(10):
        finished(system, webhook("dead.example:443"))
    alive = finished(system, webhook("alive.example:443"))
    held = [claim(deliveries, f"t{number}") for number in range(5)]
    assert [delivery.job == alive for delivery in held].count(True) == 1
    assert deliveries.claim("io2", "one too many", LEASE) is None
    dead = next(delivery for delivery in held if delivery.job != alive)
    deliveries.record_attempt(dead.id, 1, "delivered", status=200)
    assert claim(deliveries, "t6").job != alive


def test_an_authority_without_an_answer_has_one_attempt_at_a_time(system: JobSystem, deliveries: Deliveries) -> None:
    for _ in range(8):
        finished(system, webhook())
    for number, delivery in enumerate([claim(deliveries, f"t{number}") for number in range(4)]):
        deliveries.record_attempt(delivery.id, 1, "retry", delay_seconds=300, error="timed out")
        assert number < 3 or claim(deliveries, "alone")
    assert deliveries.claim("io1", "second", LEASE) is None
    [alone] = [
        delivery
        for delivery in deliveries.list_deliveries("ada", limit=20)[0]
        if delivery.attempts and delivery.attempts[-1].ended_at is None
    ]
    deliveries.record_attempt(alone.id, 1, "retry", delay_seconds=300, status=500)
    assert len([claim(deliveries, f"again {number}") for number in range(3)]) == 3, "any answer, even an error, lifts the limit"


def test_an_attempt_whose_worker_died_is_repeated(system: JobSystem, deliveries: Deliveries, clock: Clock) -> None:
    job = finished(system, webhook())
    first = claim(deliveries, "t1", "io1")
    clock.advance(LEASE - 1)
    assert deliveries.claim("io2", "t2", LEASE) is None
    clock.advance(2)
    second = claim(deliveries, "t3", "io2")
    assert (second.id, second.number, second.failures) == (first.id, 2, 0)
    assert deliveries.record_attempt(first.id, 1, "delivered", status=200) == "lost"
    assert deliveries.record_attempt(second.id, 2, "delivered", status=200) == "ok"
    [delivery] = deliveries.list_for_job(job)
    assert [attempt.outcome for attempt in delivery.attempts] == ["lost", "delivered"]
    assert delivery.status == "delivered"


def test_a_delivery_that_kills_its_workers_fails(system: JobSystem, deliveries: Deliveries, clock: Clock) -> None:
    job = finished(system, webhook())
    for number in range(4):
        claim(deliveries, f"t{number}")
        clock.advance(LEASE + 1)
    assert deliveries.claim("io1", "t5", LEASE) is None
    [delivery] = deliveries.list_for_job(job)
    assert (delivery.status, len(delivery.attempts)) == ("failed", 4)


def test_transitions_sent_twice_give_the_same_result(system: JobSystem, deliveries: Deliveries) -> None:
    finished(system, webhook())
    finished(system, webhook())
    delivery = claim(deliveries, "t1")
    assert claim(deliveries, "t1").id == delivery.id
    for _ in range(2):
        fail(deliveries, delivery, 5)
    delivery = deliveries.get(delivery.id, "ada")
    assert (delivery.failures, len(delivery.attempts)) == (1, 1)


def test_410_fails_the_delivery_and_disables_the_endpoint(
    system: JobSystem, deliveries: Deliveries, endpoints: Endpoints
) -> None:
    endpoint = register(endpoints)
    first, second = finished(system), finished(system)
    delivery = claim(deliveries, "t1")
    deliveries.record_attempt(delivery.id, 1, "gone", status=410)
    assert "410" in endpoints.get(endpoint.id, "ada").disabled
    assert deliveries.claim("io1", "t2", LEASE) is None, "its pending deliveries fail"
    assert [delivery.status for job in (first, second) for delivery in deliveries.list_for_job(job)] == ["failed"] * 2
    assert deliveries.list_for_job(finished(system)) == []
    with pytest.raises(Conflict):
        deliveries.redeliver(delivery.id, "ada")
    endpoints.change(endpoint.id, "ada", {"disabled": ""})
    assert deliveries.redeliver(delivery.id, "ada").status == "pending"


def test_a_deleted_endpoint_is_not_called(system: JobSystem, deliveries: Deliveries, endpoints: Endpoints) -> None:
    endpoint = register(endpoints)
    job = finished(system)
    endpoints.delete(endpoint.id, "ada")
    assert deliveries.claim("io1", "t1", LEASE) is None
    [delivery] = deliveries.list_for_job(job)
    assert (delivery.status, delivery.reason) == ("failed", "Its webhook was deleted.")


def test_a_redelivery_keeps_its_id_and_restarts_the_schedule(
    system: JobSystem, deliveries: Deliveries, endpoints: Endpoints
) -> None:
    endpoint = register(endpoints)
    finished(system)
    delivery = claim(deliveries, "t1")
    assert deliveries.redeliver(delivery.id, "ada").attempts[-1].ended_at is None, "an attempt is in progress"
    fail(deliveries, delivery, 300)
    endpoints.change(endpoint.id, "ada", {"url": "https://moved.example/", "authority": "moved.example:443"})
    again = deliveries.redeliver(delivery.id, "ada")
    assert (again.id, again.failures, again.url) == (delivery.id, 0, "https://moved.example/")
    second = claim(deliveries, "t2")
    deliveries.record_attempt(second.id, 2, "delivered", status=200)
    assert deliveries.redeliver(delivery.id, "ada").status == "pending"
    assert claim(deliveries, "t3").number == 3


def test_deliveries_and_endpoints_of_another_owner_are_not_found(
    system: JobSystem, deliveries: Deliveries, endpoints: Endpoints
) -> None:
    endpoint = register(endpoints)
    [delivery] = deliveries.list_for_job(finished(system))
    for forbidden in (
        lambda: deliveries.get(delivery.id, "bob"),
        lambda: deliveries.redeliver(delivery.id, "bob"),
        lambda: endpoints.get(endpoint.id, "bob"),
        lambda: endpoints.change(endpoint.id, "bob", {"url": "https://evil.example/"}),
        lambda: endpoints.rotate(endpoint.id, "bob"),
        lambda: endpoints.delete(endpoint.id, "bob"),
    ):
        with pytest.raises(NotFound):
            forbidden()
    assert deliveries.list_deliveries("bob", limit=10) == ([], None)
    assert endpoints.list_for_owner("bob") == []


def test_a_rotation_signs_with_both_secrets_for_a_day(endpoints: Endpoints, clock: Clock) -> None:
    endpoint = register(endpoints)
    rotated = endpoints.rotate(endpoint.id, "ada")
    assert endpoints.signing_secrets(endpoint=endpoint.id, owner="ada") == [rotated.secret, endpoint.secret]
    own = endpoints.owner_secret("ada")
    assert own == endpoints.owner_secret("ada") != endpoints.owner_secret("bob")
    new = endpoints.rotate_owner_secret("ada")
    assert endpoints.signing_secrets(endpoint="", owner="ada") == [new, own]
    clock.advance(24 * 3600 + 1)
    assert endpoints.signing_secrets(endpoint=endpoint.id, owner="ada") == [rotated.secret]
    assert endpoints.signing_secrets(endpoint="", owner="ada") == [new]


def test_the_number_of_endpoints_per_owner_is_limited(endpoints: Endpoints) -> None:
    def try_to_register(_: int) -> bool:
        try:
            return bool(register(endpoints))
        except Conflict:
            return False

    with ThreadPoolExecutor(8) as threads:
        registered = list(threads.map(try_to_register, range(2 * MAX_ENDPOINTS)))
    assert registered.count(True) == len(endpoints.list_for_owner("ada")) == MAX_ENDPOINTS


@pytest.mark.parametrize("secret", ["", "whsec_", "hunter2", "whsec_short", "whsec_" + "A" * 31, "whsec_" + "!" * 40, "A" * 44])
def test_a_secret_must_have_the_format_of_standard_webhooks(secret: str) -> None:
    assert check_secret(new_secret(), "secret").startswith("whsec_")
    with pytest.raises(InvalidValue) as refusal:
        check_secret(secret, "webhook.secret")
    assert secret in ("", "whsec_") or secret not in refusal.value.message


def test_lists_page_and_filter(system: JobSystem, deliveries: Deliveries, clock: Clock) -> None:
    ids = []
    for number in range(5):
        clock.advance(1)
        ids.append(deliveries.list_for_job(finished(system, webhook(f"h{number}.example:443")))[0].id)
    deliveries.record_attempt(claim(deliveries, "t1").id, 1, "delivered", status=200)
    first, following = deliveries.list_deliveries("ada", limit=3)
    assert [delivery.id for delivery in first] == ids[:1:-1]
    rest, end = deliveries.list_deliveries("ada", limit=3, after=following)
    assert ([delivery.id for delivery in rest], end) == (ids[1::-1], None)
    assert [delivery.id for delivery in deliveries.list_deliveries("ada", limit=9, status="delivered")[0]] == ids[:1]


def test_records_expire_after_their_retention(system: JobSystem, deliveries: Deliveries, redis_client: redis.Redis) -> None:
    job = finished(system, webhook())
    delivery = claim(deliveries, "t1")
    retention_ms = system.settings.job_retention_seconds * 1000
    assert 0 < redis_client.pttl(f"eh:delivery:{delivery.id}") >= 4 * 86400 * 1000 - 1000
    deliveries.record_attempt(delivery.id, 1, "delivered", status=200)
    for key in (f"eh:delivery:{delivery.id}", f"eh:delivery:{delivery.id}:job", f"eh:job:{job}:deliveries"):
        assert 0 < redis_client.pttl(key) <= max(retention_ms, 4 * 86400 * 1000)
    redis_client.delete(f"eh:delivery:{delivery.id}")
    system.maintenance.purge()
    assert deliveries.list_deliveries("ada", limit=5) == ([], None)
    assert not redis_client.exists("eh:owner:ada:deliveries")
    assert not list(redis_client.scan_iter("eh:deliveries:*"))
