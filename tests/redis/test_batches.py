"""A batch stands for its jobs: its counts are exact and it ends once, in whatever order they end."""

import itertools
import random

import pytest

from shared.errors import BatchSealed, IdempotencyConflict, NotFound
from shared.jobs.models import Job, Status
from shared.jobs.submission import Submission
from shared.settings import Settings
from tests.conftest import Clock, JobSystem

OPEN_SECONDS = Settings().seal_seconds


def open_batch(system: JobSystem, children: int = 0, owner: str = "ada") -> str:
    batch = system.submitter.open_batch(owner, spec={"collection": "manuals"}).id
    for _ in range(children):
        add(system, batch)
    return batch


def add(system: JobSystem, batch: str, **options: int) -> str:
    return system.submitter.submit_job(Submission(kind="ingest", queue="cpu", spec={}, owner="ada", parent=batch, **options)).id  # type: ignore[arg-type]


def get(system: JobSystem, job: str) -> Job:
    found = system.queries.get_job(job)
    assert found is not None
    return found


def claim(system: JobSystem, token: str) -> Job:
    job = system.transitions.claim("cpu", "w1", token)
    assert job is not None
    return job


def ended_events(system: JobSystem, job: str) -> int:
    return sum(fields["type"] == "ended" for _, fields in system.client.xrange(f"eh:job:{job}:events"))


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_exact_whatever_the_order_and_however_often_an_end_is_sent(system: JobSystem, seed: int) -> None:
    chance = random.Random(seed)
    batch = open_batch(system, children=9)
    leases = [(claim(system, f"t{number}").id, 1) for number in range(9)]
    chance.shuffle(leases)
    seal_after = chance.randrange(10)
    endings = itertools.cycle([Status.COMPLETED, Status.FAILED, Status.CANCELLED])
    for number, (lease, status) in enumerate(zip(leases, endings, strict=False)):
        if number == seal_after:
            system.submitter.seal_batch(batch)
        for _ in range(chance.randrange(1, 4)):
            error = {"code": "engine_fault", "message": "it stopped"} if status is Status.FAILED else None
            system.transitions.finish(lease, status, error=error)  # type: ignore[arg-type]
        assert sum((get(system, batch).counts or {}).values()) == 9 + number + 1
    system.submitter.seal_batch(batch)
    system.submitter.seal_batch(batch)
    job = get(system, batch)
    assert job.status is Status.COMPLETED
    assert job.result == job.counts == {"total": 9, "completed": 3, "failed": 3, "cancelled": 3, "expired": 0}
    assert ended_events(system, batch) == 1


@pytest.mark.parametrize("end", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_an_archive_counts_as_one_until_its_documents_count_in_its_place(system: JobSystem, end: Status) -> None:
    batch = open_batch(system)
    system.submitter.submit_job(Submission(kind="unpack", queue="cpu", spec={}, owner="ada", parent=batch))
    system.submitter.seal_batch(batch)
    unpacking = (claim(system, "t1").id, 1)
    assert (get(system, batch).counts or {})["total"] == 1
    for _ in range(2):
        add(system, batch)
    system.transitions.finish((claim(system, "t2").id, 1), Status.COMPLETED, result={})
    assert (get(system, batch).counts or {})["total"] == 3
    for _ in range(2):
        system.transitions.finish(
            unpacking, end, error={"code": "failed", "message": "It is broken."} if end is Status.FAILED else None
        )  # type: ignore[arg-type]
    assert get(system, batch).status is Status.IN_PROGRESS
    system.transitions.finish((claim(system, "t3").id, 1), Status.COMPLETED, result={})
    expected = {"total": 2, "completed": 2, "failed": 0, "cancelled": 0, "expired": 0}
    if end is not Status.COMPLETED:
        expected |= {"total": 3, end.value: 1}
    job = get(system, batch)
    assert (job.status, job.result, job.counts) == (Status.COMPLETED, expected, expected)
    assert ended_events(system, batch) == 1


def test_an_archive_of_nothing_new_leaves_an_empty_batch(system: JobSystem) -> None:
    batch = open_batch(system)
    system.submitter.submit_job(Submission(kind="unpack", queue="cpu", spec={}, owner="ada", parent=batch))
    system.submitter.seal_batch(batch)
    system.transitions.finish((claim(system, "t1").id, 1), Status.COMPLETED, result={})
    job = get(system, batch)
    assert (job.status, (job.counts or {})["total"]) == (Status.COMPLETED, 0)


def test_an_open_batch_waits_for_more_although_all_its_jobs_have_ended(system: JobSystem) -> None:
    batch = open_batch(system, children=1)
    system.transitions.finish((claim(system, "t1").id, 1), Status.COMPLETED, result={})
    assert get(system, batch).status is Status.IN_PROGRESS
    add(system, batch)
    system.submitter.seal_batch(batch)
    system.transitions.finish((claim(system, "t2").id, 1), Status.COMPLETED, result={})
    assert get(system, batch).status is Status.COMPLETED


def test_an_empty_batch_ends_when_it_is_sealed(system: JobSystem) -> None:
    batch = open_batch(system)
    system.submitter.seal_batch(batch)
    assert get(system, batch).status is Status.COMPLETED


def test_a_batch_whose_maker_died_is_sealed_by_the_janitor_after_an_hour(system: JobSystem, clock: Clock) -> None:
    batch = open_batch(system, children=1)
    system.transitions.finish((claim(system, "t1").id, 1), Status.COMPLETED, result={})
    clock.advance(OPEN_SECONDS - 1)
    system.maintenance.reap()
    assert get(system, batch).status is Status.IN_PROGRESS
    clock.advance(2)
    system.maintenance.reap()
    system.maintenance.reap()
    assert get(system, batch).status is Status.COMPLETED
    assert ended_events(system, batch) == 1


def test_an_open_batch_that_jobs_still_join_is_not_sealed(system: JobSystem, clock: Clock) -> None:
    batch = open_batch(system)
    for number in range(4):
        clock.advance(OPEN_SECONDS - 1)
        system.maintenance.reap()
        # By turns one of the two ways to show that its maker lives: an upload that begins, and one whose job is there.
        if number % 2:
            system.submitter.join_batch(batch, "ada")
        else:
            add(system, batch)
            system.transitions.finish((claim(system, f"t{number}").id, 1), Status.COMPLETED, result={})
    assert get(system, batch).sealed is False
    clock.advance(OPEN_SECONDS + 1)
    system.maintenance.reap()
    job = get(system, batch)
    assert (job.status, job.sealed, job.counts) == (
        Status.COMPLETED,
        True,
        {"total": 2, "completed": 2, "failed": 0, "cancelled": 0, "expired": 0},
    )


def test_an_open_batch_is_not_sealed_while_its_jobs_run_as_its_maker_may_wait_for_them(system: JobSystem, clock: Clock) -> None:
    batch = open_batch(system, children=1)
    running = claim(system, "t1")
    for _ in range(int(3 * OPEN_SECONDS / 20)):
        clock.advance(20)
        assert system.transitions.renew("w1", [(running.id, 1)]) == ["ok"]
        system.maintenance.reap()
    system.submitter.join_batch(batch, "ada")
    add(system, batch)
    system.transitions.finish((running.id, 1), Status.COMPLETED, result={})
    system.transitions.finish((claim(system, "t2").id, 1), Status.COMPLETED, result={})
    clock.advance(OPEN_SECONDS - 1)
    system.maintenance.reap()
    assert get(system, batch).status is Status.IN_PROGRESS
    clock.advance(2)
    system.maintenance.reap()
    assert (get(system, batch).counts or {})["completed"] == 2
    assert ended_events(system, batch) == 1


def test_nothing_joins_a_batch_that_is_sealed_cancelled_or_over(system: JobSystem) -> None:
    sealed, cancelled, over = (open_batch(system, children=1) for _ in range(3))
    claim(system, "t1")
    running = [claim(system, token).id for token in ("t2", "t3")]
    system.submitter.seal_batch(sealed)
    system.transitions.cancel(cancelled, "ada")
    system.submitter.seal_batch(over)
    system.transitions.finish((running[1], 1), Status.COMPLETED, result={})
    for batch, status in ((sealed, "in_progress"), (cancelled, "in_progress"), (over, "completed")):
        with pytest.raises(BatchSealed) as refusal:
            system.submitter.join_batch(batch, "ada")
        assert refusal.value.details == {"status": status}
    assert system.client.zscore("eh:jobs:due", sealed) == float("inf")


def test_a_batch_is_joined_by_its_owner_alone_and_only_a_batch_is(system: JobSystem) -> None:
    batch = open_batch(system, children=1)
    [child] = system.client.smembers(f"eh:job:{batch}:open")
    for job, owner in ((batch, "eve"), (child, "ada"), ("job_none", "ada")):
        with pytest.raises(NotFound, match=job):
            system.submitter.join_batch(job, owner)


def test_a_key_joins_again_with_the_same_request_alone(system: JobSystem) -> None:
    batch = open_batch(system)
    for _ in range(2):
        system.submitter.join_batch(batch, "ada", idempotency_key="upload-8", fingerprint="files")
    with pytest.raises(IdempotencyConflict, match=batch):
        system.submitter.join_batch(batch, "ada", idempotency_key="upload-8", fingerprint="other files")


def test_cancel_ends_the_queued_jobs_at_once_and_the_batch_with_its_last_running_one(system: JobSystem) -> None:
    batch = open_batch(system, children=3)
    running = claim(system, "t1")
    system.submitter.seal_batch(batch)
    assert system.transitions.cancel(batch, "ada") == ("requested", "in_progress")
    assert system.transitions.claim("cpu", "w1", "t2") is None
    assert system.transitions.renew("w1", [(running.id, 1)]) == ["cancel"]
    system.transitions.finish((running.id, 1), Status.CANCELLED)
    job = get(system, batch)
    assert (job.status, job.counts) == (
        Status.CANCELLED,
        {"total": 3, "completed": 0, "failed": 0, "cancelled": 3, "expired": 0},
    )
    assert ended_events(system, batch) == 1
    assert system.transitions.cancel(batch, "ada") == ("ended", "cancelled")


def test_a_large_batch_is_cancelled_to_its_last_job_although_one_move_takes_only_so_many(system: JobSystem, clock: Clock) -> None:
    batch = open_batch(system)
    children = [add(system, batch, expires_ms=1500) for _ in range(1005)]
    system.submitter.seal_batch(batch)
    assert system.transitions.cancel(batch, "ada")[0] == "requested"
    # When the janitor comes to the rest, their time to start has passed as well: they must not end a second time for it.
    clock.advance(2)
    system.maintenance.reap()
    counts = get(system, batch).counts or {}
    assert (counts["total"], counts["cancelled"], counts["expired"]) == (1005, 1005, 0)
    assert {ended_events(system, child) for child in children} == {1}
    assert system.client.zcard("eh:jobs:due") == 0


def test_a_job_that_comes_after_the_cancel_is_cancelled_too(system: JobSystem) -> None:
    batch = open_batch(system, children=1)
    claim(system, "t1")
    system.transitions.cancel(batch, "ada")
    late = add(system, batch)
    assert get(system, late).status is Status.CANCELLED
    assert (get(system, batch).counts or {})["total"] == 2
    system.maintenance.mark_worker_dead("w1")
    assert get(system, batch).result == get(system, batch).counts


def test_what_an_ended_batch_has_counted_stands(system: JobSystem) -> None:
    for cancelled in (True, False):
        batch = open_batch(system)
        if cancelled:
            system.transitions.cancel(batch, "ada")
        system.submitter.seal_batch(batch)
        late = add(system, batch)
        assert get(system, batch).counts == get(system, batch).result
        assert get(system, late).status is (Status.CANCELLED if cancelled else Status.QUEUED)


def test_a_job_of_a_batch_that_is_gone_runs_alone(system: JobSystem) -> None:
    batch = open_batch(system)
    system.submitter.seal_batch(batch)
    assert system.transitions.delete(batch, "ada") == "deleted"
    late = add(system, batch)
    assert claim(system, "t1").id == late
    system.transitions.finish((late, 1), Status.COMPLETED, result={})
    assert system.client.exists(f"eh:job:{batch}", f"eh:job:{batch}:children") == 0
