"""Job transitions on a real Redis with a simulated clock."""

from typing import Any

import pytest
import redis

from shared.errors import Conflict, NotFound, TooMany
from shared.jobs.models import Job, Outcome, Status
from shared.jobs.scripts import JobScripts
from shared.jobs.submission import JobSubmitter, Submission
from shared.jobs.transitions import Event
from shared.jobs.worker_registry import WorkerRegistry, is_running_here, this_process
from shared.machine import HAS_PROC
from shared.redis_connection import PREFIX
from shared.sessions.store import Sessions
from shared.settings import Settings
from testing.waiting import wait_until
from tests.conftest import Clock, JobSystem


def submit(system: JobSystem, queue: str = "gpu.m", **options: Any) -> str:
    options = {"kind": "generate", "spec": {"prompt": "hello"}, "owner": "ada"} | options
    return system.submitter.submit_job(Submission(queue=queue, **options)).id


def claim(system: JobSystem, token: str, queue: str = "gpu.m", worker: str = "w1") -> Job:
    job = system.transitions.claim(queue, worker, token)
    assert job is not None
    return job


def get(system: JobSystem, job: str) -> Job:
    found = system.queries.get_job(job)
    assert found is not None
    return found


def events(system: JobSystem, job: str) -> list[str]:
    return [fields["type"] for _, fields in system.client.xrange(f"eh:job:{job}:events")]


def delta(job: Job, index: int, text: str = "x") -> Event:
    return Event(job=job.id, attempt=job.attempt, index=index, type="delta", data={"text": text})


def test_a_job_goes_from_queued_to_completed(system: JobSystem, wakeups: list[Any]) -> None:
    job_id = submit(system)
    assert wakeups == [("gpu.m", 1)]
    assert get(system, job_id).status is Status.QUEUED
    job = claim(system, "t1")
    assert (job.id, job.attempt, job.status, job.spec) == (job_id, 1, Status.IN_PROGRESS, {"prompt": "hello"})
    assert system.transitions.append_events([delta(job, 1)]) == ["ok"]
    assert system.transitions.finish((job.id, 1), Status.COMPLETED, result={"text": "x"}, last=delta(job, 2)) == "ok"
    ended = get(system, job_id)
    assert (ended.status, ended.result) == (Status.COMPLETED, {"text": "x"})
    assert ended.attempts[0].outcome is Outcome.COMPLETED
    assert events(system, job_id) == ["queued", "started", "delta", "delta", "ended"]
    assert system.client.zcard("eh:jobs:due") == 0
    assert system.client.exists("eh:worker:w1:jobs") == 0


def test_submitting_the_same_id_twice_makes_one_job(system: JobSystem, wakeups: list[Any]) -> None:
    submission = Submission(kind="generate", queue="gpu.m", spec={}, owner="ada")
    system.submitter.submit_job(submission)
    system.submitter.submit_job(submission)
    claim(system, "t1")
    assert system.transitions.claim("gpu.m", "w1", "t2") is None
    assert wakeups == [("gpu.m", 1)]


def test_a_claim_sent_twice_gets_the_same_job(system: JobSystem) -> None:
    submit(system)
    submit(system)
    assert claim(system, "t1").id == claim(system, "t1").id
    assert claim(system, "t2").id != claim(system, "t1").id


def test_urgent_jobs_come_first_then_the_oldest(system: JobSystem, clock: Clock) -> None:
    jobs = []
    for priority in (5, 5, 0, 9):
        clock.advance(1)
        jobs.append(submit(system, priority=priority))
    assert [claim(system, f"t{n}").id for n in range(4)] == [jobs[2], jobs[0], jobs[1], jobs[3]]


def test_the_owner_with_the_least_service_comes_first(system: JobSystem) -> None:
    for _ in range(4):
        submit(system, owner="greedy", cost=100)
    assert claim(system, "t1").owner == "greedy"
    submit(system, owner="modest", cost=10)
    submit(system, owner="modest", cost=10)
    owners = [claim(system, f"c{n}").owner for n in range(5)]
    assert owners[:3].count("modest") == 2, "a new owner starts level with the others, and its jobs cost less"


def test_a_stale_attempt_changes_nothing(system: JobSystem, clock: Clock) -> None:
    job_id = submit(system)
    first = claim(system, "t1")
    system.transitions.append_events([delta(first, 1)])
    clock.advance(31)
    assert system.maintenance.reap()[1] == [job_id]
    second = claim(system, "t2", worker="w2")
    assert second.attempt == 2
    assert system.transitions.renew("w1", [(job_id, 1)]) == ["lost"]
    assert system.transitions.append_events([delta(first, 2)]) == ["lost"]
    assert system.transitions.finish((job_id, 1), Status.COMPLETED, result={"text": "stale"}) == "lost"
    assert system.transitions.hand_over((job_id, 1), "io", {}) == "lost"
    assert system.transitions.retry((job_id, 1), 0, {"code": "engine_fault"}) == "lost"
    assert system.transitions.finish((job_id, 2), Status.COMPLETED, result={"text": "right"}) == "ok"
    assert get(system, job_id).result == {"text": "right"}
    assert events(system, job_id) == [
        "queued", "started", "delta", "attempt_lost", "requeued", "started", "ended",
    ]  # fmt: skip


def test_every_ending_transition_gives_the_same_result_when_sent_twice(system: JobSystem, clock: Clock) -> None:
    for name in ("end", "hand_over", "retry", "release"):
        job_id = submit(system)
        lease = (claim(system, f"first {name}").id, 1)
        transitions: dict[str, Any] = {
            "end": lambda lease=lease: system.transitions.finish(lease, Status.COMPLETED, result={}),
            "hand_over": lambda lease=lease: system.transitions.hand_over(lease, "gpu.m", {}),
            "release": lambda lease=lease: system.transitions.release(lease, "gpu.m"),
            "retry": lambda lease=lease: system.transitions.retry(lease, 0, {"code": "engine_fault"}),
        }
        assert transitions[name]() == transitions[name]() == "ok"
        job = get(system, job_id)
        assert (job.lost, job.retries) == (0, 1 if name == "retry" else 0)
        if name != "end":
            clock.advance(10)
            system.maintenance.reap()
            again = claim(system, f"second {name}")
            system.transitions.finish((again.id, again.attempt), Status.COMPLETED, result={})


def test_an_event_sent_twice_is_written_once(system: JobSystem) -> None:
    submit(system)
    job = claim(system, "t1")
    assert system.transitions.append_events([delta(job, 1), delta(job, 1), delta(job, 2)]) == ["ok"] * 3
    assert events(system, job.id).count("delta") == 2


def test_a_worker_learns_that_a_client_follows_its_job(system: JobSystem, redis_client: redis.Redis) -> None:
    scripts = JobScripts(redis_client)
    submit(system)
    job = claim(system, "t1")
    assert not job.followed
    assert system.transitions.append_events([delta(job, 1)]) == ["ok"]
    for followed in (job.id, "job_gone"):
        scripts.follow(id=followed)
    assert system.transitions.append_events([delta(job, 2), delta(job, 2)]) == ["followed"] * 2
    system.transitions.release((job.id, job.attempt), "gpu.m")
    again = claim(system, "t2")
    assert (again.id, again.followed) == (job.id, True), "a later attempt knows it from its start"
    system.transitions.finish((again.id, again.attempt), Status.COMPLETED, result={})
    scripts.follow(id=again.id)
    assert redis_client.hget(f"{PREFIX}job:{again.id}", "followed") is None
    assert not redis_client.exists(f"{PREFIX}job:job_gone")


def test_a_renewed_lease_does_not_lapse(system: JobSystem, clock: Clock) -> None:
    submit(system)
    job = claim(system, "t1")
    for _ in range(10):
        clock.advance(20)
        assert system.transitions.renew("w1", [(job.id, 1)]) == ["ok"]
        assert system.maintenance.reap()[:2] == (0, [])


def test_a_job_that_kills_its_workers_fails_and_becomes_a_dead_letter(system: JobSystem, clock: Clock) -> None:
    job_id = submit(system)
    for attempt in range(3):
        clock.advance(100)
        system.maintenance.reap()
        claim(system, f"t{attempt}")
        clock.advance(31)
        assert system.maintenance.reap()[1] == [job_id]
    job = get(system, job_id)
    assert job.status is Status.FAILED
    assert job.error is not None
    assert job.error["code"] == "worker_lost"
    assert system.client.zscore("eh:jobs:dead_letters", job_id) is not None


def test_only_the_jobs_of_a_dead_worker_are_requeued_at_once(system: JobSystem) -> None:
    submit(system)
    submit(system)
    dead, alive = claim(system, "t1", worker="dead"), claim(system, "t2", worker="alive")
    assert system.maintenance.mark_worker_dead("dead") == [dead.id]
    assert system.maintenance.mark_worker_dead("dead") == []
    assert get(system, dead.id).status is Status.QUEUED
    assert get(system, alive.id).status is Status.IN_PROGRESS


def test_a_dead_worker_leaves_no_counts_of_its_jobs(system: JobSystem, redis_client: redis.Redis) -> None:
    submit(system)
    submit(system)
    first, second = sorted((claim(system, "one"), claim(system, "two")), key=lambda job: job.id)
    redis_client.delete(f"{PREFIX}job:{first.id}")
    assert system.maintenance.mark_worker_dead("w1") == [second.id]
    assert redis_client.keys(f"{PREFIX}worker:w1:*") == []
    redis_client.flushdb()  # the other keys of a record that was deleted by hand stay


def test_leases_do_not_lapse_just_after_an_outage(system: JobSystem, clock: Clock) -> None:
    submit(system)
    job = claim(system, "t1")
    clock.advance(100)
    assert system.maintenance.reap(leases=False)[:2] == (0, [])
    assert system.transitions.renew("w1", [(job.id, 1)]) == ["ok"]


def test_cancel_of_a_queued_job_means_it_never_runs(system: JobSystem) -> None:
    job_id = submit(system)
    assert system.transitions.cancel(job_id, "eve") == ("missing", "")
    assert system.transitions.cancel(job_id, "ada") == ("cancelled", "cancelled")
    assert system.transitions.claim("gpu.m", "w1", "t1") is None
    assert system.transitions.cancel(job_id, "ada") == ("ended", "cancelled")


def test_cancel_of_a_running_job_reaches_its_worker(system: JobSystem) -> None:
    submit(system)
    job = claim(system, "t1")
    with system.client.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe("eh:worker:w1")
        pubsub.get_message(timeout=5)
        assert system.transitions.cancel(job.id, "ada")[0] == "requested"
        message = pubsub.get_message(timeout=5)
    assert message is not None
    assert message["data"] == f'{{"cancel":"{job.id}","attempt":1}}' or job.id in message["data"]
    assert system.transitions.renew("w1", [(job.id, 1)]) == ["cancel"]
    assert system.transitions.finish((job.id, 1), Status.CANCELLED) == "ok"
    assert get(system, job.id).status is Status.CANCELLED


def test_a_cancelled_job_whose_worker_dies_is_not_run_again(system: JobSystem) -> None:
    submit(system)
    job = claim(system, "t1")
    system.transitions.cancel(job.id, "ada")
    system.maintenance.mark_worker_dead("w1")
    assert get(system, job.id).status is Status.CANCELLED


def test_a_job_that_is_not_started_in_time_expires(system: JobSystem, clock: Clock) -> None:
    reaped = submit(system, expires_ms=5000)
    clock.advance(6)
    system.maintenance.reap()
    assert get(system, reaped).status is Status.EXPIRED
    unclaimed = submit(system, expires_ms=5000)
    clock.advance(6)
    assert system.transitions.claim("gpu.m", "w1", "t1") is None, "a claim leaves it to maintenance"
    system.maintenance.reap()
    assert get(system, unclaimed).status is Status.EXPIRED


def test_a_job_that_was_started_never_expires(system: JobSystem, clock: Clock) -> None:
    job_id = submit(system, expires_ms=5000)
    claim(system, "t1")
    system.maintenance.mark_worker_dead("w1")
    clock.advance(60)
    system.maintenance.reap()
    assert claim(system, "t2").id == job_id


def test_a_delayed_job_is_not_claimed_before_its_time(system: JobSystem, clock: Clock) -> None:
    job_id = submit(system, wait_ms=10_000)
    assert system.transitions.claim("gpu.m", "w1", "t1") is None
    clock.advance(11)
    system.maintenance.reap()
    assert claim(system, "t2").id == job_id


def test_a_retry_is_delayed_and_the_last_one_fails(system: JobSystem, clock: Clock) -> None:
    job_id = submit(system)
    fault = {"code": "engine_fault", "message": "the engine stopped"}
    for retries in range(4):
        job = claim(system, f"t{retries}")
        answer = system.transitions.retry((job.id, job.attempt), job.retries, fault)
        clock.advance(100)
        system.maintenance.reap()
    assert answer == "failed"
    assert get(system, job_id).error == fault
    assert get(system, job_id).lost == 0


OUTAGE = {"code": "redis_unavailable", "message": "Redis was unavailable."}


def test_an_outage_costs_no_attempt_no_retry_and_no_service(system: JobSystem, clock: Clock) -> None:
    job_id = submit(system, cost=100)
    for number in range(1, 30):
        job = claim(system, f"t{number}")
        assert (job.id, job.attempt) == (job_id, number)
        before = system.client.hget("eh:queue:gpu.m:service", "ada")
        assert system.transitions.release_after_outage((job_id, number), "gpu.m", number - 1, OUTAGE) == "ok"
        assert system.transitions.release_after_outage((job_id, number), "gpu.m", number - 1, OUTAGE) == "ok", "sent twice"
        assert before is not None
        assert float(before) == 100, "each attempt is charged, and the charge is returned when it was interrupted"
        clock.advance(46)
        system.maintenance.reap()
    job = claim(system, "last")
    assert (job.lost, job.retries) == (0, 0)
    assert len(job.attempts) <= 22, "the oldest of many interrupted attempts are dropped"
    assert system.transitions.finish((job_id, job.attempt), Status.COMPLETED, result={}) == "ok"


def test_an_outage_ends_a_job_once_it_has_lasted_for_as_long_as_a_job_may_wait(system: JobSystem, clock: Clock) -> None:
    job_id = submit(system)
    answers, seconds = [], system.settings.max_queue_seconds
    for number in range(1, 4):
        assert claim(system, f"t{number}").attempt == number
        answers.append(system.transitions.release_after_outage((job_id, number), "gpu.m", 5, OUTAGE))
        clock.advance(seconds / 2 + 60)
        system.maintenance.reap()
    assert answers == ["ok", "ok", "failed"]
    job = get(system, job_id)
    assert (job.status, job.error) == (Status.FAILED, OUTAGE)


def test_an_attempt_that_ran_for_long_shows_that_an_earlier_outage_was_over(system: JobSystem, clock: Clock) -> None:
    job_id = submit(system)
    for number in range(1, 4):
        assert claim(system, f"t{number}").attempt == number
        clock.advance(system.settings.max_queue_seconds)
        assert system.transitions.release_after_outage((job_id, number), "gpu.m", 0, OUTAGE) == "ok"
        clock.advance(60)
        system.maintenance.reap()


def test_a_cancelled_job_does_not_wait_for_the_end_of_an_outage(system: JobSystem) -> None:
    job_id = submit(system)
    claim(system, "t")
    system.transitions.cancel(job_id, "ada")
    assert system.transitions.release_after_outage((job_id, 1), "gpu.m", 0, OUTAGE) == "ok"
    assert get(system, job_id).status is Status.CANCELLED


def test_a_claim_is_repeated_after_its_token_was_forgotten(system: JobSystem) -> None:
    """An outage of Redis may outlast the token. A repeated claim charged the owner again, and the first job was lost."""
    first, second = submit(system, cost=100), submit(system, cost=100)
    system.transitions.claim_for_slot("gpu.m", "w1", "other", slots=3, reserved=0)
    assert claim(system, "t").id == second
    system.client.delete("eh:claim:t")
    again = system.transitions.claim_for_slot("gpu.m", "w1", "t", slots=3, reserved=0, retried=True)
    assert isinstance(again, Job)
    assert (again.id, again.attempt) == (second, 1)
    assert float(str(system.client.hget("eh:queue:gpu.m:service", "ada"))) == 200
    assert get(system, first).attempt == 1


def test_a_worker_name_has_one_holder(system: JobSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = WorkerRegistry(system.client)
    assert registry.hold_name("gpu0@host", 60) == ""
    assert registry.hold_name("gpu0@host", 60) == "", "renewed"
    process = this_process()
    assert is_running_here(process) is True
    monkeypatch.setattr("shared.jobs.worker_registry.this_process", lambda: "elsewhere 1 2.5")
    assert is_running_here("elsewhere 1 2.5") is None
    assert registry.hold_name("gpu0@host", 60) == process
    assert registry.hold_name("gpu0@host", 60, replaces=process) == ""
    assert registry.hold_name("gpu0@host", 0) == ""
    monkeypatch.undo()
    wait_until(lambda: registry.hold_name("gpu0@host", 60) == "", "it was given up")


@pytest.mark.skipif(not HAS_PROC, reason="needs the /proc of Linux")
def test_a_holder_is_recognised_after_the_clock_was_set() -> None:
    """A worker that started after the clock was set took the one that runs for dead, and requeued its jobs."""
    machine, pid, start, ticks = this_process().split(" ")
    earlier = float(start) - 3600
    assert is_running_here(f"{machine} {pid} {earlier} {ticks}") is True
    assert is_running_here(f"{machine} {pid} {start} {int(ticks) + 1}") is False, "another process with the same id"
    assert is_running_here(f"{machine} {pid} {start}") is True, "named by an earlier version"


def test_a_renewal_that_comes_after_the_end_of_its_own_attempt_reports_no_loss(system: JobSystem) -> None:
    job_id = submit(system)
    claim(system, "t1")
    assert system.transitions.release((job_id, 1), "gpu.m") == "ok"
    assert system.transitions.renew("w1", [(job_id, 1)]) == ["settled"]
    claim(system, "t2")
    assert system.transitions.finish((job_id, 2), Status.COMPLETED, result={}) == "ok"
    assert system.transitions.renew("w1", [(job_id, 1), (job_id, 2), ("job_none", 1)]) == ["settled", "settled", "lost"]


def test_a_hand_over_counts_no_lost_attempt_and_keeps_its_context(system: JobSystem) -> None:
    job_id = submit(system, queue="io")
    claim(system, "t1", queue="io")
    assert system.transitions.hand_over((job_id, 1), "gpu.m", {"passages": [1]}) == "ok"
    job = claim(system, "t2")
    assert (job.attempt, job.lost, job.retries, job.context) == (2, 0, 0, {"passages": [1]})
    assert events(system, job_id) == ["queued", "started", "requeued", "started"]


def test_turns_of_a_session_run_in_order(system: JobSystem, wakeups: list[Any]) -> None:
    sessions = Sessions(system.client, system.settings)
    sessions.open("s1", "ada")
    first, second, third = (submit(system, session="s1") for _ in range(3))
    assert wakeups == [("gpu.m", 1)]
    assert claim(system, "t1").id == first
    assert system.transitions.claim("gpu.m", "w1", "t2") is None
    system.transitions.cancel(second, "ada")
    assert system.transitions.claim("gpu.m", "w1", "t3") is None, (
        "the third must not overtake the first when the second is cancelled"
    )
    system.transitions.finish((first, 1), Status.COMPLETED, result={}, messages=[{"role": "assistant", "content": "hi"}])
    assert claim(system, "t4").id == third
    assert [message["content"] for message in sessions.messages("s1", "ada")] == ["", "hi"]


def test_a_turn_of_a_missing_session_is_rejected(system: JobSystem) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        submit(system, session="gone")
    assert system.client.zcard("eh:jobs:due") == 0


def test_reaping_says_whether_any_job_can_be_claimed(system: JobSystem) -> None:
    assert not system.maintenance.reap().jobs_wait
    generate, ingest = submit(system), submit(system, queue="cpu")
    for queue, job in (("gpu.m", generate), ("cpu", ingest)):
        assert system.maintenance.reap().jobs_wait, queue
        assert system.transitions.claim(queue, "w1", job) is not None
    assert not system.maintenance.reap().jobs_wait


def test_missing_wakeups_are_sent_once(system: JobSystem, wakeups: list[Any]) -> None:
    for _ in range(5):
        submit(system)
    system.client.lpush("gpu.m", "wake-up", "wake-up")
    wakeups.clear()
    assert system.maintenance.send_missing_wakeups(1000) == {"gpu.m": 3}
    assert system.maintenance.send_missing_wakeups(1000) == {}, "a second process in the same second sends no wake-ups"
    assert wakeups == [("gpu.m", 3)]


def test_only_an_ended_job_can_be_deleted(system: JobSystem) -> None:
    job_id = submit(system)
    assert system.transitions.delete(job_id, "ada") == "queued"
    system.transitions.cancel(job_id, "ada")
    assert system.transitions.delete(job_id, "eve") == "missing"
    assert system.transitions.delete(job_id, "ada") == "deleted"
    assert system.queries.get_job(job_id) is None


def test_purge_deletes_jobs_that_have_outlived_their_retention(system: JobSystem, clock: Clock) -> None:
    settings = Settings()
    waiting, cancelled, completed = submit(system, queue="later"), submit(system), submit(system)
    system.transitions.cancel(cancelled, "ada")
    claim(system, "t1")
    assert system.transitions.finish((completed, 1), Status.COMPLETED, result={"text": "done"}) == "ok"
    clock.advance(settings.failed_retention_seconds + 1)
    assert system.maintenance.purge() == 1
    assert system.client.zrange("eh:owner:ada:jobs", 0, -1) == [waiting, completed]
    clock.advance(settings.job_retention_seconds)
    assert system.maintenance.purge() == 1
    assert system.client.keys(f"eh:job:{completed}*") == []
    assert list(system.client.hgetall("eh:owner_bytes")) == ["ada"], "those of the job that has not ended"


def test_dead_letters_are_kept_like_completed_jobs(system: JobSystem, clock: Clock) -> None:
    job_id = submit(system)
    for number in range(3):
        claim(system, f"t{number}")
        system.maintenance.mark_worker_dead("w1")
        clock.advance(61)
        system.maintenance.reap()
    assert get(system, job_id).status is Status.FAILED
    clock.advance(Settings().failed_retention_seconds + 1)
    assert system.maintenance.purge() == 0
    assert [letter.id for letter in system.queries.dead_letters()] == [job_id]


def test_the_bytes_of_an_owners_jobs_are_bounded(system: JobSystem) -> None:
    limited = JobSubmitter(system.client, Settings(max_bytes_per_owner=100_000), lambda *_: None)

    def send(owner: str, characters: int) -> str:
        return limited.submit_job(Submission(kind="generate", queue="q", spec={"prompt": "x" * characters}, owner=owner)).id

    first = send("ada", 60_000)
    with pytest.raises(TooMany, match="may occupy 100000 bytes, and with the 60013 of this one") as refusal:
        send("ada", 60_000)
    assert refusal.value.code == "bytes_full"
    send("eve", 60_000)
    system.transitions.cancel(first, "ada")
    with pytest.raises(TooMany):
        send("ada", 60_000)
    assert system.transitions.delete(first, "ada") == "deleted"
    send("ada", 60_000)


def test_the_prompt_of_a_completed_job_can_be_dropped(system: JobSystem, clock: Clock) -> None:
    submitter = JobSubmitter(system.client, Settings(keep_prompts=False), lambda *_: None, clock=clock)
    ids = [submitter.submit_job(Submission(kind="generate", queue="q", spec={"prompt": "secret"}, owner="ada")).id for _ in "ab"]
    for number, status in enumerate((Status.COMPLETED, Status.FAILED)):
        job = claim(system, f"t{number}", queue="q")
        assert job.spec == {"prompt": "secret"}
        error = None if status is Status.COMPLETED else {"code": "odd", "message": "Odd."}
        system.transitions.finish((job.id, 1), status, result={"text": "y"}, error=error)
    completed, failed = (get(system, job_id) for job_id in ids)
    with pytest.raises(Conflict, match="was not kept"):
        submitter.replay(completed)
    assert submitter.replay(failed).id


def test_a_prompt_that_is_too_long_is_dropped(system: JobSystem) -> None:
    job_id = submit(system)
    claim(system, "t1")
    error = {"code": "prompt_too_long", "message": "Too long."}
    system.transitions.finish((job_id, 1), Status.FAILED, error=error)
    assert system.client.hgetall("eh:owner_bytes") == {}
    with pytest.raises(Conflict, match="was not kept"):
        system.submitter.replay(get(system, job_id))


def test_a_job_fails_at_its_timeout_in_any_state(system: JobSystem, clock: Clock) -> None:
    queued, claimed, running = (submit(system, timeout_ms=5000, queue=f"q{n}") for n in range(3))
    claim(system, "t1", queue="q2")
    clock.advance(6)
    assert system.transitions.renew("w1", [(running, 1)]) == ["timeout"]
    assert system.transitions.claim("q1", "w1", "t2") is None
    system.maintenance.reap()
    for job_id in (queued, claimed):
        job = get(system, job_id)
        assert job.status is Status.FAILED
        assert job.error is not None
        assert job.error["code"] == "timeout"
    assert get(system, running).status is Status.IN_PROGRESS


def test_a_document_fails_with_its_job_unless_it_has_ended(system: JobSystem) -> None:
    for status, after in (("parsing", "failed"), ("ready", "ready")):
        job_id = submit(system, queue="cpu", kind="ingest", document="doc_1")
        system.client.hset("eh:document:doc_1", mapping={"job_id": job_id, "status": status})
        job = claim(system, f"t {status}", queue="cpu")
        system.transitions.finish((job.id, 1), Status.FAILED, error={"code": "worker_lost", "message": "its worker died"})
        assert system.client.hget("eh:document:doc_1", "status") == after
    assert system.client.hget("eh:document:doc_1", "reason") is None or status == "ready"
