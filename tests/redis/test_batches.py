"""Batches: the counts are exact and the batch ends once, in any order of its jobs."""

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
def test_counts_are_exact_in_any_order_and_with_repeated_commands(system: JobSystem, seed: int) -> None:
    chance = random.Random(seed)
    batch = open_batch(system, children=9)
    leases = [(claim(system, f"t{number}").id, 1) for number in range(9)]
    chance.shuffle(leases)
    seal_after = chance.randrange(10)
    statuses = itertools.cycle([Status.COMPLETED, Status.FAILED, Status.CANCELLED])
    for number, (lease, status) in enumerate(zip(leases, statuses, strict=False)):
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
def test_an_archive_counts_as_one_document_until_it_is_unpacked(system: JobSystem, end: Status) -> None:
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


def test_an_archive_without_new_documents_leaves_an_empty_batch(system: JobSystem) -> None:
    batch = open_batch(system)
    system.submitter.submit_job(Submission(kind="unpack", queue="cpu", spec={}, owner="ada", parent=batch))
    system.submitter.seal_batch(batch)
    system.transitions.finish((claim(system, "t1").id, 1), Status.COMPLETED, result={})
    job = get(system, batch)
    assert (job.status, (job.counts or {})["total"]) == (Status.COMPLETED, 0)


def test_an_open_batch_stays_open_after_all_its_jobs_have_ended(system: JobSystem) -> None:
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


def test_maintenance_seals_an_abandoned_batch_after_an_hour(system: JobSystem, clock: Clock) -> None:
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


def test_an_open_batch_is_not_sealed_while_jobs_join(system: JobSystem, clock: Clock) -> None:
    batch = open_batch(system)
    for number in range(4):
        clock.advance(OPEN_SECONDS - 1)
        system.maintenance.reap()
        # A client keeps the batch open in two ways: it announces an upload, or it submits a job.
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


def test_an_open_batch_is_not_sealed_while_its_jobs_run(system: JobSystem, clock: Clock) -> None:
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


def test_no_job_joins_a_sealed_cancelled_or_ended_batch(system: JobSystem) -> None:
    sealed, cancelled, ended = (open_batch(system, children=1) for _ in range(3))
    claim(system, "t1")
    running = [claim(system, token).id for token in ("t2", "t3")]
    system.submitter.seal_batch(sealed)
    system.transitions.cancel(cancelled, "ada")
    system.submitter.seal_batch(ended)
    system.transitions.finish((running[1], 1), Status.COMPLETED, result={})
    for batch, status in ((sealed, "in_progress"), (cancelled, "in_progress"), (ended, "completed")):
        with pytest.raises(BatchSealed) as refusal:
            system.submitter.join_batch(batch, "ada")
        assert refusal.value.details == {"status": status}
    assert system.client.zscore("eh:jobs:due", sealed) == float("inf")


def test_only_the_owner_joins_a_batch_and_only_batches_are_joined(system: JobSystem) -> None:
    batch = open_batch(system, children=1)
    [child] = system.client.smembers(f"eh:job:{batch}:open")
    for job, owner in ((batch, "eve"), (child, "ada"), ("job_none", "ada")):
        with pytest.raises(NotFound, match=job):
            system.submitter.join_batch(job, owner)


def test_an_idempotency_key_joins_again_only_with_the_same_request(system: JobSystem) -> None:
    batch = open_batch(system)
    for _ in range(2):
        system.submitter.join_batch(batch, "ada", idempotency_key="upload-8", fingerprint="files")
    with pytest.raises(IdempotencyConflict, match=batch):
        system.submitter.join_batch(batch, "ada", idempotency_key="upload-8", fingerprint="other files")


def test_cancel_ends_queued_jobs_at_once_and_the_batch_with_its_last_running_job(system: JobSystem) -> None:
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


def test_a_large_batch_is_cancelled_completely_in_several_steps(system: JobSystem, clock: Clock) -> None:
    batch = open_batch(system)
    children = [add(system, batch, expires_ms=1500) for _ in range(1005)]
    system.submitter.seal_batch(batch)
    assert system.transitions.cancel(batch, "ada")[0] == "requested"
    # When maintenance cancels the remaining jobs, they have also expired. They must not end twice.
    clock.advance(2)
    system.maintenance.reap()
    counts = get(system, batch).counts or {}
    assert (counts["total"], counts["cancelled"], counts["expired"]) == (1005, 1005, 0)
    assert {ended_events(system, child) for child in children} == {1}
    assert system.client.zcard("eh:jobs:due") == 0


def test_a_job_submitted_after_the_cancel_is_cancelled(system: JobSystem) -> None:
    batch = open_batch(system, children=1)
    claim(system, "t1")
    system.transitions.cancel(batch, "ada")
    late = add(system, batch)
    assert get(system, late).status is Status.CANCELLED
    assert (get(system, batch).counts or {})["total"] == 2
    system.maintenance.mark_worker_dead("w1")
    assert get(system, batch).result == get(system, batch).counts


def test_the_counts_of_an_ended_batch_are_final(system: JobSystem) -> None:
    for cancelled in (True, False):
        batch = open_batch(system)
        if cancelled:
            system.transitions.cancel(batch, "ada")
        system.submitter.seal_batch(batch)
        late = add(system, batch)
        assert get(system, batch).counts == get(system, batch).result
        assert get(system, late).status is (Status.CANCELLED if cancelled else Status.QUEUED)


def test_a_job_of_a_deleted_batch_runs_without_it(system: JobSystem) -> None:
    batch = open_batch(system)
    system.submitter.seal_batch(batch)
    assert system.transitions.delete(batch, "ada") == "deleted"
    late = add(system, batch)
    assert claim(system, "t1").id == late
    system.transitions.finish((late, 1), Status.COMPLETED, result={})
    assert not list(system.client.scan_iter(f"eh:job:{batch}*"))
