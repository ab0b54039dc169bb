"""A Redis that is full, may evict keys, or comes back without some or all of its data."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.errors import CommandError
from cli.local.redis_server import check_redis, start_redis
from shared.redis_connection import connect
from testing.fault_rig.disks import disk, full
from testing.fault_rig.duration import hold_fault
from testing.fault_rig.fault_stack import TEXT, FaultStack, open_fault_stack
from testing.waiting import wait_until

TAIL_BYTES = 100


def check_rejected_quickly(stack: FaultStack) -> None:
    """Check that a submit is answered 503 within two seconds, once the machine is not too busy for that."""

    def is_rejected_quickly() -> bool:
        start = time.monotonic()
        answer = stack.request_job()
        assert answer.status_code == 503, answer.text
        assert answer.json()["error"]["code"] == "redis_unavailable"
        return time.monotonic() - start < 2

    wait_until(is_rejected_quickly, "a submit is rejected within 2 s")


def test_a_full_redis_rejects_submits_and_keeps_running_jobs(stack: FaultStack) -> None:
    jobs = stack.start_jobs(8, TEXT * 2)
    stack.direct.config_set("maxmemory", "1mb")
    check_rejected_quickly(stack)
    assert stack.client.get(f"/jobs/{jobs[0]}").status_code == 200, "existing jobs can still be read"
    stack.ledger.allow_end(jobs[0], "completed", "cancelled")
    assert stack.client.post(f"/jobs/{jobs[0]}/cancel").status_code in (200, 202, 409)
    for job in jobs:
        assert len(stack.wait_for_end(job).attempts) == 1, "jobs end although Redis is full"
    assert stack.client.delete(f"/jobs/{jobs[0]}").status_code == 200
    stack.ledger.excuse_job(jobs[0], "deleted")
    stack.direct.config_set("maxmemory", "0")


@pytest.fixture
def stack_with_a_small_redis_disk(tmp_path: Path) -> Iterator[tuple[FaultStack, Path]]:
    with disk(tmp_path / "disk", 64) as folder, open_fault_stack(tmp_path / "stack", redis_folder=folder) as stack:
        yield stack, folder


@pytest.mark.slow_fault
def test_a_redis_with_a_full_disk_rejects_submits_and_keeps_running_jobs(
    stack_with_a_small_redis_disk: tuple[FaultStack, Path],
) -> None:
    stack, folder = stack_with_a_small_redis_disk
    jobs = stack.start_jobs(8, TEXT * 3)
    with full(folder):
        wait_until(lambda: "err" in str(stack.direct.info("persistence")["aof_last_write_status"]), "Redis cannot write")
        check_rejected_quickly(stack)
        hold_fault(5)
    for job in jobs:
        stack.wait_for_end(job)
    stack.wait_for_end(stack.submit_through_outage())
    stack.check_invariants()


@pytest.mark.parametrize(
    ("name", "value", "reason"), [("maxmemory-policy", "allkeys-lru", "evict"), ("appendonly", "no", "loses its jobs")]
)
def test_a_redis_configuration_that_may_lose_jobs_is_rejected(tmp_path: Path, name: str, value: str, reason: str) -> None:
    server = start_redis(tmp_path / "redis")
    with connect(server.url) as client:
        client.config_set(name, value)
    with pytest.raises(CommandError, match=reason):
        check_redis(server.url)
    server.stop()


@pytest.mark.slow_fault
def test_a_truncated_append_only_file_costs_at_most_the_last_write(stack: FaultStack) -> None:
    jobs = [stack.submit_job(TEXT * 3) for _ in range(20)]
    wait_until(lambda: stack.count_in_progress(jobs) == 8, "the first jobs are running")
    stack.direct.execute_command("WAITAOF", 1, 0, 5000)
    stack.kill_redis()
    [log] = (stack.redis.folder / "appendonlydir").glob("*.incr.aof")
    with log.open("r+b") as stream:
        stream.truncate(log.stat().st_size - TAIL_BYTES)
    stack.start_redis()
    missing = [job for job in jobs if not stack.direct.exists(f"eh:job:{job}")]
    assert len(missing) <= 1
    for job in jobs:
        stack.ledger.excuse_stream(job, "the write cut off may have been one of its events")
    for job in missing:
        stack.ledger.excuse_job(job, "its record was in the part that was cut off")
    assert "ncat" in (stack.redis.folder / "server.log").read_text(), "the server's log mentions the truncated file"
    wait_until(stack.is_ready, "the stack is ready again")


@pytest.mark.slow_fault
def test_a_redis_that_comes_back_empty_is_reported_and_used(stack: FaultStack) -> None:
    jobs = stack.start_jobs(8, TEXT * 3)
    stack.kill_redis()
    for job in jobs:
        stack.ledger.excuse_job(job, "all data was destroyed")
    shutil.rmtree(stack.redis.folder / "appendonlydir")
    stack.start_redis()
    wait_until(lambda: stack.client.get(f"/jobs/{jobs[0]}").status_code == 404, "a client learns that its job is gone")
    pids = stack.worker_pids()
    stack.wait_for_end(stack.submit_through_outage())
    hold_fault(5)
    assert stack.worker_pids() == pids, "no worker keeps restarting"
