"""Workers of an older release beside a newer API on one Redis, as during a rolling upgrade."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shared.documents.data_state import DATA_VERSION, KEY
from shared.jobs.models import Outcome
from shared.redis_connection import PREFIX
from testing.fault_rig.fault_stack import PRELOAD, SECOND, TEXT, FaultStack
from testing.fault_rig.processes import kill, process_tree
from testing.repository import REPOSITORY
from testing.waiting import LONG_SECONDS, wait_until

# The last commit whose data have version 1: without the index of jobs, which this release makes from them.
OLD_COMMIT = "6a693605a7cb56f5722c10b2cc8f674287f67063"


@pytest.fixture(scope="module")
def old_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    archive = subprocess.run(["git", "archive", OLD_COMMIT], cwd=REPOSITORY, capture_output=True, timeout=120, check=False)
    if archive.returncode:
        pytest.skip("the history of this checkout is too short")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    assert f"DATA_VERSION = {DATA_VERSION}" not in (folder / "shared" / "documents" / "data_state.py").read_text()
    return folder


@contextmanager
def old_worker(stack: FaultStack, code: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of the old release for the model ``second``, on another host: with its own data folder."""
    data = stack.server.folder / "old-data"
    command = [sys.executable, "-m", "cli.main", "worker", "gpu", "--number", "7", "--model", SECOND, "--redis", stack.url]
    command += ["--data", str(data), "--models", str(stack.server.models)]
    search_path = os.pathsep.join(map(str, (PRELOAD, code, code / "client")))
    environment = {**stack.server.environment, "PYTHONPATH": search_path}
    with (stack.server.folder / "old.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=code, env=environment)
    try:
        wait_until(lambda: phase_of(stack, process) == "ready", "the old worker is ready")
        yield process
    finally:
        for each in process_tree(process.pid):
            kill(each.pid)
        process.wait(LONG_SECONDS)


def phase_of(stack: FaultStack, process: subprocess.Popen[bytes]) -> str | None:
    assert process.poll() is None, (stack.server.folder / "old.log").read_text()[-3000:]
    for name, text in stack.direct.hgetall(f"{PREFIX}workers").items():  # type: ignore[union-attr]
        if name.startswith("gpu7@"):
            return str(json.loads(text)["phase"])
    return None


@pytest.mark.slow_fault
def test_old_workers_serve_a_new_api_until_they_are_replaced(old_code: Path, tmp_path: Path) -> None:
    stack = FaultStack(tmp_path)
    try:
        with old_worker(stack, old_code) as old:
            assert stack.direct.hget(KEY, "version") != str(DATA_VERSION)
            stack.start()
            wait_until(lambda: stack.direct.hget(KEY, "version") == str(DATA_VERSION), "the data are migrated")
            assert old.poll() is None

            # The new API submits, streams and cancels; the old worker runs.
            jobs = [stack.submit_job(f"{number} {TEXT}", model=SECOND) for number in range(24)]
            cancelled = stack.submit_job(TEXT * 20, model=SECOND)
            mixed = [stack.submit_job(f"{number} {TEXT}") for number in range(8)]
            stack.client.post(f"/jobs/{cancelled}/cancel")
            for job in [*jobs, *mixed]:
                record = stack.wait_for_end(job)
                assert (record.status, [attempt.outcome for attempt in record.attempts]) == ("completed", [Outcome.COMPLETED])
            assert stack.wait_for_end(cancelled).status == "cancelled"
            stack.ledger.excuse_job(cancelled, "the test cancelled it")
            for job in jobs[:3]:
                streamed = "".join(str(event.data.get("text", "")) for event in stack.read_events(job) if event.type == "delta")
                assert streamed == stack.client.get(f"/jobs/{job}").json()["result"]["text"] != ""

            # It is replaced while it runs jobs: drained, its jobs go on in a worker of the new release.
            running = stack.start_jobs(4, TEXT * 3, model=SECOND)
            waiting = [stack.submit_job(f"{number} {TEXT}", model=SECOND) for number in range(12)]
            new = stack.start_worker(8, model=SECOND)
            old.send_signal(signal.SIGTERM)
            assert old.wait(LONG_SECONDS) == 0
        for job in [*running, *waiting]:
            record = stack.wait_for_end(job)
            assert record.status == "completed"
            assert Outcome.LOST not in [attempt.outcome for attempt in record.attempts]
        assert new.is_alive()
        stack.check_invariants()
    finally:
        stack.close()


@pytest.mark.slow_fault
def test_a_killed_old_worker_loses_no_job(old_code: Path, tmp_path: Path) -> None:
    stack = FaultStack(tmp_path)
    try:
        with old_worker(stack, old_code):
            stack.start()
            running = stack.start_jobs(4, TEXT * 3, model=SECOND)
        stack.start_worker(8, model=SECOND)
        for job in running:
            assert [attempt.outcome for attempt in stack.wait_for_end(job).attempts] == [Outcome.LOST, Outcome.COMPLETED]
        stack.check_invariants()
    finally:
        stack.close()


@pytest.mark.slow_fault
def test_an_old_worker_does_not_start_on_newer_data(old_code: Path, tmp_path: Path) -> None:
    stack = FaultStack(tmp_path)
    try:
        stack.start()
        with pytest.raises(AssertionError, match=r"was written by a newer Enginehouse"), old_worker(stack, old_code):
            pass
    finally:
        stack.close()
