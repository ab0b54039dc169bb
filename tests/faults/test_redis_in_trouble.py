"""Faults 22 to 26: a Redis that is full, may evict, or comes back without some or all that it knew."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.errors import CommandError
from cli.local.redis_server import check_redis, start_redis
from shared.redis_connection import connect
from testing.fault_rig.disks import disk, full
from testing.fault_rig.fault_stack import TEXT, FaultStack, open_house
from testing.fault_rig.pausing import pause
from testing.waiting import wait_until

TAIL_BYTES = 100


def check_refused_quickly(house: FaultStack) -> None:
    """503 within two seconds, in a sentence."""
    start = time.monotonic()
    answer = house.try_submit()
    assert time.monotonic() - start < 2
    assert answer.status_code == 503, answer.text
    assert answer.json()["error"]["code"] == "redis_unavailable"


def test_22_a_full_redis_refuses_submits_and_keeps_what_runs(house: FaultStack) -> None:
    jobs = house.running(8, TEXT * 2)
    house.direct.config_set("maxmemory", "1mb")
    check_refused_quickly(house)
    assert house.client.get(f"/jobs/{jobs[0]}").status_code == 200, "what is there can still be read"
    pause(5)  # the jobs come to their ends meanwhile
    house.direct.config_set("maxmemory", "0")
    for job in jobs:
        assert len(house.ended(job).attempts) == 1


@pytest.fixture
def house_on_a_disk(tmp_path: Path) -> Iterator[tuple[FaultStack, Path]]:
    with disk(tmp_path / "disk", 64) as folder, open_house(tmp_path / "house", redis_folder=folder) as house:
        yield house, folder


@pytest.mark.slow_fault
def test_23_a_redis_whose_disk_is_full_refuses_submits_and_keeps_what_runs(house_on_a_disk: tuple[FaultStack, Path]) -> None:
    house, folder = house_on_a_disk
    jobs = house.running(8, TEXT * 3)
    with full(folder):
        wait_until(lambda: "err" in str(house.direct.info("persistence")["aof_last_write_status"]), "Redis cannot write")
        check_refused_quickly(house)
        pause(5)
    for job in jobs:
        house.ended(job)
    house.ended(house.submit_when_possible())
    house.check()


@pytest.mark.parametrize(
    ("name", "value", "reason"), [("maxmemory-policy", "allkeys-lru", "evict"), ("appendonly", "no", "forgets")]
)
def test_24_a_redis_that_may_lose_jobs_is_refused(tmp_path: Path, name: str, value: str, reason: str) -> None:
    server = start_redis(tmp_path / "redis")
    with connect(server.url) as client:
        client.config_set(name, value)
    with pytest.raises(CommandError, match=reason):
        check_redis(server.url)
    server.stop()


@pytest.mark.slow_fault
def test_25_a_cut_tail_of_the_log_costs_the_last_write_at_most(house: FaultStack) -> None:
    jobs = [house.submit(TEXT * 3) for _ in range(20)]
    wait_until(lambda: house.in_progress(jobs) == 8, "the first are running")
    house.direct.execute_command("WAITAOF", 1, 0, 5000)
    house.kill_redis()
    [log] = (house.redis.folder / "appendonlydir").glob("*.incr.aof")
    with log.open("r+b") as stream:
        stream.truncate(log.stat().st_size - TAIL_BYTES)
    house.start_redis()
    missing = [job for job in jobs if not house.direct.exists(f"eh:job:{job}")]
    assert len(missing) <= 1
    for job in jobs:
        house.ledger.stream_damaged(job, "the write cut off may have been one of its events")
    for job in missing:
        house.ledger.excused(job, "its record was cut off")
    assert "ncat" in (house.redis.folder / "server.log").read_text(), "the server's log tells of the truncated file"
    wait_until(house.ready, "the stack is ready again", seconds=30)


@pytest.mark.slow_fault
def test_26_a_redis_that_comes_back_empty_is_told_and_served(house: FaultStack) -> None:
    jobs = house.running(8, TEXT * 3)
    house.kill_redis()
    for job in jobs:
        house.ledger.excused(job, "everything was destroyed")
    shutil.rmtree(house.redis.folder / "appendonlydir")
    house.start_redis()
    wait_until(
        lambda: house.client.get(f"/jobs/{jobs[0]}").status_code == 404, "a client is told that its job is gone", seconds=15
    )
    pids = house.pids()
    house.ended(house.submit_when_possible(seconds=30))
    pause(5)
    assert house.pids() == pids, "no worker ends over and over"
