"""The moves of a job, one after the other, on a real Redis with a clock that the test turns."""

from typing import Any

import pytest

from shared.errors import NotFound
from shared.jobs.models import Job, Outcome, Status
from shared.jobs.transitions import Event, Lifecycle, Submission
from tests.conftest import Clock


def submit(lifecycle: Lifecycle, queue: str = "gpu.m", **options: Any) -> str:
    options = {"kind": "generate", "spec": {"prompt": "hello"}, "owner": "ada"} | options
    return lifecycle.submit_job(Submission(queue=queue, **options)).id


def claim(lifecycle: Lifecycle, token: str, queue: str = "gpu.m", worker: str = "w1") -> Job:
    job = lifecycle.claim(queue, worker, token)
    assert job is not None
    return job


def get(lifecycle: Lifecycle, job: str) -> Job:
    found = lifecycle.get_job(job)
    assert found is not None
    return found


def events(lifecycle: Lifecycle, job: str) -> list[str]:
    return [fields["type"] for _, fields in lifecycle._client.xrange(f"eh:job:{job}:events")]


def delta(job: Job, index: int, text: str = "x") -> Event:
    return Event(job=job.id, attempt=job.attempt, index=index, type="delta", data={"text": text})


def test_a_job_goes_from_queued_to_completed(lifecycle: Lifecycle, wakeups: list[Any]) -> None:
    job_id = submit(lifecycle)
    assert wakeups == [("gpu.m", 1)]
    assert get(lifecycle, job_id).status is Status.QUEUED
    job = claim(lifecycle, "t1")
    assert (job.id, job.attempt, job.status, job.spec) == (job_id, 1, Status.IN_PROGRESS, {"prompt": "hello"})
    assert lifecycle.append_events([delta(job, 1)]) == ["ok"]
    assert lifecycle.finish((job.id, 1), Status.COMPLETED, result={"text": "x"}, last=delta(job, 2)) == "ok"
    ended = get(lifecycle, job_id)
    assert (ended.status, ended.result) == (Status.COMPLETED, {"text": "x"})
    assert ended.attempts[0].outcome is Outcome.COMPLETED
    assert events(lifecycle, job_id) == ["queued", "started", "delta", "delta", "ended"]
    assert lifecycle._client.zcard("eh:jobs:due") == 0
    assert lifecycle._client.exists("eh:worker:w1:jobs") == 0


def test_submitting_the_same_id_twice_makes_one_job(lifecycle: Lifecycle, wakeups: list[Any]) -> None:
    submission = Submission(kind="generate", queue="gpu.m", spec={}, owner="ada")
    lifecycle.submit_job(submission)
    lifecycle.submit_job(submission)
    claim(lifecycle, "t1")
    assert lifecycle.claim("gpu.m", "w1", "t2") is None
    assert wakeups == [("gpu.m", 1)]


def test_a_claim_sent_twice_gets_the_same_job(lifecycle: Lifecycle) -> None:
    submit(lifecycle)
    submit(lifecycle)
    assert claim(lifecycle, "t1").id == claim(lifecycle, "t1").id
    assert claim(lifecycle, "t2").id != claim(lifecycle, "t1").id


def test_urgent_jobs_come_first_then_the_oldest(lifecycle: Lifecycle, clock: Clock) -> None:
    jobs = []
    for priority in (5, 5, 0, 9):
        clock.advance(1)
        jobs.append(submit(lifecycle, priority=priority))
    assert [claim(lifecycle, f"t{n}").id for n in range(4)] == [jobs[2], jobs[0], jobs[1], jobs[3]]


def test_the_owner_with_the_least_service_comes_first(lifecycle: Lifecycle) -> None:
    for _ in range(4):
        submit(lifecycle, owner="greedy", cost=100)
    assert claim(lifecycle, "t1").owner == "greedy"
    submit(lifecycle, owner="modest", cost=10)
    submit(lifecycle, owner="modest", cost=10)
    owners = [claim(lifecycle, f"c{n}").owner for n in range(5)]
    assert owners[:3].count("modest") == 2, "a newcomer starts level with the others and costs less"


def test_a_stale_attempt_changes_nothing(lifecycle: Lifecycle, clock: Clock) -> None:
    job_id = submit(lifecycle)
    first = claim(lifecycle, "t1")
    lifecycle.append_events([delta(first, 1)])
    clock.advance(31)
    assert lifecycle.reap()[1] == [job_id]
    second = claim(lifecycle, "t2", worker="w2")
    assert second.attempt == 2
    assert lifecycle.renew("w1", [(job_id, 1)]) == ["lost"]
    assert lifecycle.append_events([delta(first, 2)]) == ["lost"]
    assert lifecycle.finish((job_id, 1), Status.COMPLETED, result={"text": "stale"}) == "lost"
    assert lifecycle.hand_over((job_id, 1), "io", {}) == "lost"
    assert lifecycle.retry((job_id, 1), 0, {"code": "engine_fault"}) == "lost"
    assert lifecycle.finish((job_id, 2), Status.COMPLETED, result={"text": "right"}) == "ok"
    assert get(lifecycle, job_id).result == {"text": "right"}
    assert events(lifecycle, job_id) == [
        "queued", "started", "delta", "attempt_lost", "requeued", "started", "restart", "ended",
    ]  # fmt: skip


def test_every_ending_move_answers_the_same_when_sent_twice(lifecycle: Lifecycle, clock: Clock) -> None:
    for name in ("end", "hand_over", "retry", "release"):
        job_id = submit(lifecycle)
        lease = (claim(lifecycle, f"first {name}").id, 1)
        moves: dict[str, Any] = {
            "end": lambda lease=lease: lifecycle.finish(lease, Status.COMPLETED, result={}),
            "hand_over": lambda lease=lease: lifecycle.hand_over(lease, "gpu.m", {}),
            "release": lambda lease=lease: lifecycle.release(lease, "gpu.m"),
            "retry": lambda lease=lease: lifecycle.retry(lease, 0, {"code": "engine_fault"}),
        }
        assert moves[name]() == moves[name]() == "ok"
        job = get(lifecycle, job_id)
        assert (job.lost, job.retries) == (0, 1 if name == "retry" else 0)
        if name != "end":
            clock.advance(10)
            lifecycle.reap()
            again = claim(lifecycle, f"second {name}")
            lifecycle.finish((again.id, again.attempt), Status.COMPLETED, result={})


def test_an_event_sent_twice_is_written_once(lifecycle: Lifecycle) -> None:
    submit(lifecycle)
    job = claim(lifecycle, "t1")
    assert lifecycle.append_events([delta(job, 1), delta(job, 1), delta(job, 2)]) == ["ok"] * 3
    assert events(lifecycle, job.id).count("delta") == 2


def test_a_renewed_lease_holds(lifecycle: Lifecycle, clock: Clock) -> None:
    submit(lifecycle)
    job = claim(lifecycle, "t1")
    for _ in range(10):
        clock.advance(20)
        assert lifecycle.renew("w1", [(job.id, 1)]) == ["ok"]
        assert lifecycle.reap() == (0, [])


def test_a_job_that_kills_its_workers_ends_failed_and_dead(lifecycle: Lifecycle, clock: Clock) -> None:
    job_id = submit(lifecycle)
    for attempt in range(3):
        clock.advance(100)
        lifecycle.reap()
        claim(lifecycle, f"t{attempt}")
        clock.advance(31)
        assert lifecycle.reap()[1] == [job_id]
    job = get(lifecycle, job_id)
    assert job.status is Status.FAILED
    assert job.error is not None
    assert job.error["code"] == "worker_lost"
    assert lifecycle._client.zscore("eh:jobs:dead_letters", job_id) is not None


def test_a_dead_workers_jobs_go_back_at_once_and_nobody_elses(lifecycle: Lifecycle) -> None:
    submit(lifecycle)
    submit(lifecycle)
    dead, alive = claim(lifecycle, "t1", worker="dead"), claim(lifecycle, "t2", worker="alive")
    assert lifecycle.mark_worker_dead("dead") == [dead.id]
    assert lifecycle.mark_worker_dead("dead") == []
    assert get(lifecycle, dead.id).status is Status.QUEUED
    assert get(lifecycle, alive.id).status is Status.IN_PROGRESS


def test_leases_are_not_judged_just_after_an_outage(lifecycle: Lifecycle, clock: Clock) -> None:
    submit(lifecycle)
    job = claim(lifecycle, "t1")
    clock.advance(100)
    assert lifecycle.reap(leases=False) == (0, [])
    assert lifecycle.renew("w1", [(job.id, 1)]) == ["ok"]


def test_cancel_of_a_queued_job_means_it_never_runs(lifecycle: Lifecycle) -> None:
    job_id = submit(lifecycle)
    assert lifecycle.cancel(job_id, "eve") == ("missing", "")
    assert lifecycle.cancel(job_id, "ada") == ("cancelled", "cancelled")
    assert lifecycle.claim("gpu.m", "w1", "t1") is None
    assert lifecycle.cancel(job_id, "ada") == ("ended", "cancelled")


def test_cancel_of_a_running_job_reaches_its_worker(lifecycle: Lifecycle) -> None:
    submit(lifecycle)
    job = claim(lifecycle, "t1")
    with lifecycle._client.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe("eh:worker:w1")
        pubsub.get_message(timeout=5)
        assert lifecycle.cancel(job.id, "ada")[0] == "requested"
        message = pubsub.get_message(timeout=5)
    assert message is not None
    assert message["data"] == f'{{"cancel":"{job.id}","attempt":1}}' or job.id in message["data"]
    assert lifecycle.renew("w1", [(job.id, 1)]) == ["cancel"]
    assert lifecycle.finish((job.id, 1), Status.CANCELLED) == "ok"
    assert get(lifecycle, job.id).status is Status.CANCELLED


def test_a_cancelled_job_whose_worker_dies_is_not_run_again(lifecycle: Lifecycle) -> None:
    submit(lifecycle)
    job = claim(lifecycle, "t1")
    lifecycle.cancel(job.id, "ada")
    lifecycle.mark_worker_dead("w1")
    assert get(lifecycle, job.id).status is Status.CANCELLED


def test_a_job_nobody_starts_in_time_expires(lifecycle: Lifecycle, clock: Clock) -> None:
    by_janitor = submit(lifecycle, expires_ms=5000)
    clock.advance(6)
    lifecycle.reap()
    assert get(lifecycle, by_janitor).status is Status.EXPIRED
    by_claim = submit(lifecycle, expires_ms=5000)
    clock.advance(6)
    assert lifecycle.claim("gpu.m", "w1", "t1") is None
    assert get(lifecycle, by_claim).status is Status.EXPIRED


def test_a_job_that_was_started_once_never_expires(lifecycle: Lifecycle, clock: Clock) -> None:
    job_id = submit(lifecycle, expires_ms=5000)
    claim(lifecycle, "t1")
    lifecycle.mark_worker_dead("w1")
    clock.advance(60)
    lifecycle.reap()
    assert claim(lifecycle, "t2").id == job_id


def test_a_delayed_job_waits_for_its_time(lifecycle: Lifecycle, clock: Clock) -> None:
    job_id = submit(lifecycle, wait_ms=10_000)
    assert lifecycle.claim("gpu.m", "w1", "t1") is None
    clock.advance(11)
    lifecycle.reap()
    assert claim(lifecycle, "t2").id == job_id


def test_a_retry_waits_and_the_last_one_fails(lifecycle: Lifecycle, clock: Clock) -> None:
    job_id = submit(lifecycle)
    fault = {"code": "engine_fault", "message": "the engine stopped"}
    for retries in range(4):
        job = claim(lifecycle, f"t{retries}")
        answer = lifecycle.retry((job.id, job.attempt), job.retries, fault)
        clock.advance(100)
        lifecycle.reap()
    assert answer == "failed"
    assert get(lifecycle, job_id).error == fault
    assert get(lifecycle, job_id).lost == 0


def test_a_hand_over_costs_no_attempt_and_carries_its_context(lifecycle: Lifecycle) -> None:
    job_id = submit(lifecycle, queue="io")
    claim(lifecycle, "t1", queue="io")
    assert lifecycle.hand_over((job_id, 1), "gpu.m", {"passages": [1]}) == "ok"
    job = claim(lifecycle, "t2")
    assert (job.attempt, job.lost, job.retries, job.context) == (2, 0, 0, {"passages": [1]})
    assert events(lifecycle, job_id) == ["queued", "started", "requeued", "started"]


def test_messages_of_a_session_run_one_after_the_other(lifecycle: Lifecycle, wakeups: list[Any]) -> None:
    lifecycle._client.hset("eh:session:s1", mapping={"owner": "ada", "ttl_seconds": 60})
    lifecycle._client.expire("eh:session:s1", 60)
    first, second, third = (submit(lifecycle, session="s1") for _ in range(3))
    assert wakeups == [("gpu.m", 1)]
    assert claim(lifecycle, "t1").id == first
    assert lifecycle.claim("gpu.m", "w1", "t2") is None
    lifecycle.cancel(second, "ada")
    assert lifecycle.claim("gpu.m", "w1", "t3") is None, "the third must not overtake the first when the second leaves"
    lifecycle.finish((first, 1), Status.COMPLETED, result={}, messages=[{"role": "assistant", "content": "hi"}])
    assert claim(lifecycle, "t4").id == third
    assert lifecycle._client.lrange("eh:session:s1:messages", 0, -1) == ['{"role":"assistant","content":"hi"}']
    assert lifecycle._client.ttl("eh:session:s1:messages") > 0


def test_a_message_to_a_session_that_is_gone_is_refused(lifecycle: Lifecycle) -> None:
    with pytest.raises(NotFound, match="no session"):
        submit(lifecycle, session="gone")
    assert lifecycle._client.zcard("eh:jobs:due") == 0


def test_missing_tickets_are_issued_once(lifecycle: Lifecycle, wakeups: list[Any]) -> None:
    for _ in range(5):
        submit(lifecycle)
    lifecycle._client.lpush("gpu.m", "ticket", "ticket")
    wakeups.clear()
    assert lifecycle.missing_wakeups(1000) == {"gpu.m": 3}
    assert lifecycle.missing_wakeups(1000) == {}, "a second janitor in the same second rings for nothing"
    assert wakeups == [("gpu.m", 3)]


def test_only_an_ended_job_can_be_deleted(lifecycle: Lifecycle) -> None:
    job_id = submit(lifecycle)
    assert lifecycle.delete(job_id, "ada") == "queued"
    lifecycle.cancel(job_id, "ada")
    assert lifecycle.delete(job_id, "eve") == "missing"
    assert lifecycle.delete(job_id, "ada") == "deleted"
    assert lifecycle.get_job(job_id) is None


def test_purge_drops_what_outlived_its_record(lifecycle: Lifecycle) -> None:
    kept, gone = submit(lifecycle), submit(lifecycle)
    lifecycle.cancel(gone, "ada")
    lifecycle._client.delete(f"eh:job:{gone}")
    assert lifecycle.purge() == 1
    assert lifecycle._client.zrange("eh:owner:ada:jobs", 0, -1) == [kept]


def test_a_job_out_of_time_ends_failed_wherever_it_is(lifecycle: Lifecycle, clock: Clock) -> None:
    queued, claimed, running = (submit(lifecycle, timeout_ms=5000, queue=f"q{n}") for n in range(3))
    claim(lifecycle, "t1", queue="q2")
    clock.advance(6)
    assert lifecycle.renew("w1", [(running, 1)]) == ["timeout"]
    assert lifecycle.claim("q1", "w1", "t2") is None
    lifecycle.reap()
    for job_id in (queued, claimed):
        job = get(lifecycle, job_id)
        assert job.status is Status.FAILED
        assert job.error is not None
        assert job.error["code"] == "timeout"
    assert get(lifecycle, running).status is Status.IN_PROGRESS


def test_a_document_fails_with_its_job_unless_it_has_ended(lifecycle: Lifecycle) -> None:
    for status, after in (("parsing", "failed"), ("ready", "ready")):
        job_id = submit(lifecycle, queue="cpu", kind="ingest", document="doc_1")
        lifecycle._client.hset("eh:document:doc_1", mapping={"job_id": job_id, "status": status})
        job = claim(lifecycle, f"t {status}", queue="cpu")
        lifecycle.finish((job.id, 1), Status.FAILED, error={"code": "worker_lost", "message": "its worker died"})
        assert lifecycle._client.hget("eh:document:doc_1", "status") == after
    assert lifecycle._client.hget("eh:document:doc_1", "reason") is None or status == "ready"
