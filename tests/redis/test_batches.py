"""A batch stands for its jobs: its counts are exact and it ends once, in whatever order they end."""

import itertools
import random

import pytest

from shared.errors import BatchSealed, IdempotencyConflict, NotFound
from shared.jobs.models import Job, Status
from shared.jobs.transitions import Lifecycle, Submission
from shared.settings import Settings
from tests.conftest import Clock

OPEN_SECONDS = Settings().seal_seconds


def open_batch(lifecycle: Lifecycle, children: int = 0, owner: str = "ada") -> str:
    batch = lifecycle.open_batch(owner, spec={"collection": "manuals"}).id
    for _ in range(children):
        add(lifecycle, batch)
    return batch


def add(lifecycle: Lifecycle, batch: str, **options: int) -> str:
    return lifecycle.submit_job(Submission(kind="ingest", queue="cpu", spec={}, owner="ada", parent=batch, **options)).id  # type: ignore[arg-type]


def get(lifecycle: Lifecycle, job: str) -> Job:
    found = lifecycle.get_job(job)
    assert found is not None
    return found


def claim(lifecycle: Lifecycle, token: str) -> Job:
    job = lifecycle.claim("cpu", "w1", token)
    assert job is not None
    return job


def ended_events(lifecycle: Lifecycle, job: str) -> int:
    return sum(fields["type"] == "ended" for _, fields in lifecycle._client.xrange(f"eh:job:{job}:events"))


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_exact_whatever_the_order_and_however_often_an_end_is_sent(lifecycle: Lifecycle, seed: int) -> None:
    chance = random.Random(seed)
    batch = open_batch(lifecycle, children=9)
    leases = [(claim(lifecycle, f"t{number}").id, 1) for number in range(9)]
    chance.shuffle(leases)
    seal_after = chance.randrange(10)
    endings = itertools.cycle([Status.COMPLETED, Status.FAILED, Status.CANCELLED])
    for number, (lease, status) in enumerate(zip(leases, endings, strict=False)):
        if number == seal_after:
            lifecycle.seal_batch(batch)
        for _ in range(chance.randrange(1, 4)):
            error = {"code": "engine_fault", "message": "it stopped"} if status is Status.FAILED else None
            lifecycle.finish(lease, status, error=error)  # type: ignore[arg-type]
        assert sum((get(lifecycle, batch).counts or {}).values()) == 9 + number + 1
    lifecycle.seal_batch(batch)
    lifecycle.seal_batch(batch)
    job = get(lifecycle, batch)
    assert job.status is Status.COMPLETED
    assert job.result == job.counts == {"total": 9, "completed": 3, "failed": 3, "cancelled": 3, "expired": 0}
    assert ended_events(lifecycle, batch) == 1


@pytest.mark.parametrize("end", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_an_archive_counts_as_one_until_its_documents_count_in_its_place(lifecycle: Lifecycle, end: Status) -> None:
    batch = open_batch(lifecycle)
    lifecycle.submit_job(Submission(kind="unpack", queue="cpu", spec={}, owner="ada", parent=batch))
    lifecycle.seal_batch(batch)
    unpacking = (claim(lifecycle, "t1").id, 1)
    assert (get(lifecycle, batch).counts or {})["total"] == 1
    for _ in range(2):
        add(lifecycle, batch)
    lifecycle.finish((claim(lifecycle, "t2").id, 1), Status.COMPLETED, result={})
    assert (get(lifecycle, batch).counts or {})["total"] == 3
    for _ in range(2):
        lifecycle.finish(unpacking, end, error={"code": "failed", "message": "It is broken."} if end is Status.FAILED else None)  # type: ignore[arg-type]
    assert get(lifecycle, batch).status is Status.IN_PROGRESS
    lifecycle.finish((claim(lifecycle, "t3").id, 1), Status.COMPLETED, result={})
    expected = {"total": 2, "completed": 2, "failed": 0, "cancelled": 0, "expired": 0}
    if end is not Status.COMPLETED:
        expected |= {"total": 3, end.value: 1}
    job = get(lifecycle, batch)
    assert (job.status, job.result, job.counts) == (Status.COMPLETED, expected, expected)
    assert ended_events(lifecycle, batch) == 1


def test_an_archive_of_nothing_new_leaves_an_empty_batch(lifecycle: Lifecycle) -> None:
    batch = open_batch(lifecycle)
    lifecycle.submit_job(Submission(kind="unpack", queue="cpu", spec={}, owner="ada", parent=batch))
    lifecycle.seal_batch(batch)
    lifecycle.finish((claim(lifecycle, "t1").id, 1), Status.COMPLETED, result={})
    job = get(lifecycle, batch)
    assert (job.status, (job.counts or {})["total"]) == (Status.COMPLETED, 0)


def test_an_open_batch_waits_for_more_although_all_its_jobs_have_ended(lifecycle: Lifecycle) -> None:
    batch = open_batch(lifecycle, children=1)
    lifecycle.finish((claim(lifecycle, "t1").id, 1), Status.COMPLETED, result={})
    assert get(lifecycle, batch).status is Status.IN_PROGRESS
    add(lifecycle, batch)
    lifecycle.seal_batch(batch)
    lifecycle.finish((claim(lifecycle, "t2").id, 1), Status.COMPLETED, result={})
    assert get(lifecycle, batch).status is Status.COMPLETED


def test_an_empty_batch_ends_when_it_is_sealed(lifecycle: Lifecycle) -> None:
    batch = open_batch(lifecycle)
    lifecycle.seal_batch(batch)
    assert get(lifecycle, batch).status is Status.COMPLETED


def test_a_batch_whose_maker_died_is_sealed_by_the_janitor_after_an_hour(lifecycle: Lifecycle, clock: Clock) -> None:
    batch = open_batch(lifecycle, children=1)
    lifecycle.finish((claim(lifecycle, "t1").id, 1), Status.COMPLETED, result={})
    clock.advance(OPEN_SECONDS - 1)
    lifecycle.reap()
    assert get(lifecycle, batch).status is Status.IN_PROGRESS
    clock.advance(2)
    lifecycle.reap()
    lifecycle.reap()
    assert get(lifecycle, batch).status is Status.COMPLETED
    assert ended_events(lifecycle, batch) == 1


def test_an_open_batch_that_jobs_still_join_is_not_sealed(lifecycle: Lifecycle, clock: Clock) -> None:
    batch = open_batch(lifecycle)
    for number in range(4):
        clock.advance(OPEN_SECONDS - 1)
        lifecycle.reap()
        # By turns one of the two ways to show that its maker lives: an upload that begins, and one whose job is there.
        if number % 2:
            lifecycle.join_batch(batch, "ada")
        else:
            add(lifecycle, batch)
            lifecycle.finish((claim(lifecycle, f"t{number}").id, 1), Status.COMPLETED, result={})
    assert get(lifecycle, batch).sealed is False
    clock.advance(OPEN_SECONDS + 1)
    lifecycle.reap()
    job = get(lifecycle, batch)
    assert (job.status, job.sealed, job.counts) == (
        Status.COMPLETED,
        True,
        {"total": 2, "completed": 2, "failed": 0, "cancelled": 0, "expired": 0},
    )


def test_an_open_batch_is_not_sealed_while_its_jobs_run_as_its_maker_may_wait_for_them(
    lifecycle: Lifecycle, clock: Clock
) -> None:
    batch = open_batch(lifecycle, children=1)
    running = claim(lifecycle, "t1")
    for _ in range(int(3 * OPEN_SECONDS / 20)):
        clock.advance(20)
        assert lifecycle.renew("w1", [(running.id, 1)]) == ["ok"]
        lifecycle.reap()
    lifecycle.join_batch(batch, "ada")
    add(lifecycle, batch)
    lifecycle.finish((running.id, 1), Status.COMPLETED, result={})
    lifecycle.finish((claim(lifecycle, "t2").id, 1), Status.COMPLETED, result={})
    clock.advance(OPEN_SECONDS - 1)
    lifecycle.reap()
    assert get(lifecycle, batch).status is Status.IN_PROGRESS
    clock.advance(2)
    lifecycle.reap()
    assert (get(lifecycle, batch).counts or {})["completed"] == 2
    assert ended_events(lifecycle, batch) == 1


def test_nothing_joins_a_batch_that_is_sealed_cancelled_or_over(lifecycle: Lifecycle) -> None:
    sealed, cancelled, over = (open_batch(lifecycle, children=1) for _ in range(3))
    claim(lifecycle, "t1")
    running = [claim(lifecycle, token).id for token in ("t2", "t3")]
    lifecycle.seal_batch(sealed)
    lifecycle.cancel(cancelled, "ada")
    lifecycle.seal_batch(over)
    lifecycle.finish((running[1], 1), Status.COMPLETED, result={})
    for batch, status in ((sealed, "in_progress"), (cancelled, "in_progress"), (over, "completed")):
        with pytest.raises(BatchSealed) as refusal:
            lifecycle.join_batch(batch, "ada")
        assert refusal.value.details == {"status": status}
    assert lifecycle._client.zscore("eh:jobs:due", sealed) == float("inf")


def test_a_batch_is_joined_by_its_owner_alone_and_only_a_batch_is(lifecycle: Lifecycle) -> None:
    batch = open_batch(lifecycle, children=1)
    [child] = lifecycle._client.smembers(f"eh:job:{batch}:open")
    for job, owner in ((batch, "eve"), (child, "ada"), ("job_none", "ada")):
        with pytest.raises(NotFound, match=job):
            lifecycle.join_batch(job, owner)


def test_a_key_joins_again_with_the_same_request_alone(lifecycle: Lifecycle) -> None:
    batch = open_batch(lifecycle)
    for _ in range(2):
        lifecycle.join_batch(batch, "ada", idempotency_key="upload-8", fingerprint="files")
    with pytest.raises(IdempotencyConflict, match=batch):
        lifecycle.join_batch(batch, "ada", idempotency_key="upload-8", fingerprint="other files")


def test_cancel_ends_the_queued_jobs_at_once_and_the_batch_with_its_last_running_one(lifecycle: Lifecycle) -> None:
    batch = open_batch(lifecycle, children=3)
    running = claim(lifecycle, "t1")
    lifecycle.seal_batch(batch)
    assert lifecycle.cancel(batch, "ada") == ("requested", "in_progress")
    assert lifecycle.claim("cpu", "w1", "t2") is None
    assert lifecycle.renew("w1", [(running.id, 1)]) == ["cancel"]
    lifecycle.finish((running.id, 1), Status.CANCELLED)
    job = get(lifecycle, batch)
    assert (job.status, job.counts) == (
        Status.CANCELLED,
        {"total": 3, "completed": 0, "failed": 0, "cancelled": 3, "expired": 0},
    )
    assert ended_events(lifecycle, batch) == 1
    assert lifecycle.cancel(batch, "ada") == ("ended", "cancelled")


def test_a_large_batch_is_cancelled_to_its_last_job_although_one_move_takes_only_so_many(
    lifecycle: Lifecycle, clock: Clock
) -> None:
    batch = open_batch(lifecycle)
    children = [add(lifecycle, batch, expires_ms=1500) for _ in range(1005)]
    lifecycle.seal_batch(batch)
    assert lifecycle.cancel(batch, "ada")[0] == "requested"
    # When the janitor comes to the rest, their time to start has passed as well: they must not end a second time for it.
    clock.advance(2)
    lifecycle.reap()
    counts = get(lifecycle, batch).counts or {}
    assert (counts["total"], counts["cancelled"], counts["expired"]) == (1005, 1005, 0)
    assert {ended_events(lifecycle, child) for child in children} == {1}
    assert lifecycle._client.zcard("eh:jobs:due") == 0


def test_a_job_that_comes_after_the_cancel_is_cancelled_too(lifecycle: Lifecycle) -> None:
    batch = open_batch(lifecycle, children=1)
    claim(lifecycle, "t1")
    lifecycle.cancel(batch, "ada")
    late = add(lifecycle, batch)
    assert get(lifecycle, late).status is Status.CANCELLED
    assert (get(lifecycle, batch).counts or {})["total"] == 2
    lifecycle.mark_worker_dead("w1")
    assert get(lifecycle, batch).result == get(lifecycle, batch).counts


def test_what_an_ended_batch_has_counted_stands(lifecycle: Lifecycle) -> None:
    for cancelled in (True, False):
        batch = open_batch(lifecycle)
        if cancelled:
            lifecycle.cancel(batch, "ada")
        lifecycle.seal_batch(batch)
        late = add(lifecycle, batch)
        assert get(lifecycle, batch).counts == get(lifecycle, batch).result
        assert get(lifecycle, late).status is (Status.CANCELLED if cancelled else Status.QUEUED)


def test_a_job_of_a_batch_that_is_gone_runs_alone(lifecycle: Lifecycle) -> None:
    batch = open_batch(lifecycle)
    lifecycle.seal_batch(batch)
    assert lifecycle.delete(batch, "ada") == "deleted"
    late = add(lifecycle, batch)
    assert claim(lifecycle, "t1").id == late
    lifecycle.finish((late, 1), Status.COMPLETED, result={})
    assert lifecycle._client.exists(f"eh:job:{batch}", f"eh:job:{batch}:children") == 0
