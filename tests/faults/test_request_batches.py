"""Batches of requests while workers and API are killed, and while the disk of their files is full."""

import json
import os
import random
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from enginehouse_client import Client, ConnectionFailed, RequestBatch, RetryPolicy, Unavailable
from shared.jobs.stats import StatsReader
from shared.models.catalogue import load_catalogue
from shared.redis_connection import connect
from shared.settings_sources import from_environment
from testing.fault_rig.disks import disk, full
from testing.stack import HASH, QUICK, Stack
from testing.waiting import wait_until
from tests.flows.tiny_model import make_tiny_model, tiny_entry
from workers.gpu.weights import prepare_model

ENVIRONMENT = {**QUICK, "ENGINEHOUSE_MAX_ATTEMPTS": "20"}
KILLED = ("io", "gpu0", "api", "redis")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("batches"), token_seconds=0.001, environment=ENVIRONMENT)
    try:
        yield stack.start()
        assert stack.denied_commands() == []
    finally:
        stack.kill()


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.url, retry_policy=RetryPolicy(retries=120, max_delay=1.0)) as client:
        yield client


def requests(count: int, **options: Any) -> bytes:
    lines = (
        {
            "custom_id": f"r{number}",
            "method": "POST",
            "url": "/v1/completions",
            "body": {"prompt": f"answer {number}", **options},
        }
        for number in range(count)
    )
    return "\n".join(map(json.dumps, lines)).encode()


def answers(client: Client, batch: RequestBatch) -> dict[str, Any]:
    """The answer to each request, or its error. Fails if a request is there twice."""
    found: dict[str, Any] = {}
    for line in client.request_results(batch):
        assert line["custom_id"] not in found
        body = (line["response"] or {}).get("body", {})
        found[line["custom_id"]] = body["choices"][0]["text"] if "choices" in body else line
    return found


def generated(stack: Stack) -> int:
    """How many generations have ended since the stack started."""
    with connect(stack.redis_url()) as redis:
        return sum(
            count for name, count in StatsReader(redis).collect().counters("ended").items() if name.startswith("generate ")
        )


@contextmanager
def kills(stack: Stack, rounds: int, pause: float) -> Iterator[list[str]]:
    """Kill one of the processes after another, with pauses, this often or until the block ends."""
    over, killed, choice = threading.Event(), list[str](), random.Random(1)

    def kill() -> None:
        while not over.wait(pause * (0.5 + choice.random())) and len(killed) < rounds * len(KILLED):
            name = KILLED[len(killed) % len(KILLED)]
            with suppress(psutil.Error, OSError, KeyError, ValueError):
                psutil.Process(stack.pid(name)).send_signal(signal.SIGKILL)
                killed.append(name)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize(
    ("count", "rounds", "pause"),
    [
        (1000, 2, 0.8),
        pytest.param(6000, 4, 5.0, marks=pytest.mark.slow_fault),
        # Kills do not stop before the end.
        pytest.param(50_000, 1000, 10.0, marks=[pytest.mark.slow_fault, pytest.mark.timeout(2000)]),
    ],
    ids=["small", "thousands", "fifty thousand"],
)
def test_every_request_is_answered_once_whatever_is_killed(
    count: int, rounds: int, pause: float, stack: Stack, client: Client
) -> None:
    before = generated(stack)
    batch = client.submit_requests(("requests.jsonl", requests(count)))
    with kills(stack, rounds, pause) as killed:
        batch = client.wait_for_requests(batch, timeout=1800)
    assert set(killed) == set(KILLED)
    assert batch.status == "completed"
    assert answers(client, batch) == {f"r{number}": f"answer {number}" for number in range(count)}
    assert generated(stack) - before == count, "no request was generated twice"
    wait_until(lambda: not list((stack.data / "files" / "batches").iterdir()), "nothing of the batch is left")


@pytest.mark.slow_fault
@pytest.mark.parametrize(
    ("is_tiny", "tokens"),
    [(True, 60), pytest.param(False, 6, marks=[pytest.mark.model, pytest.mark.timeout(2000)])],
    ids=["tiny", "default"],
)
def test_a_model_answers_every_request_once_whatever_is_killed(is_tiny: bool, tokens: int, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    settings = from_environment(os.environ)
    stack = Stack(tmp_path, environment=ENVIRONMENT | {"ENGINEHOUSE_MODELS_DIR": str(settings.prepared_models.resolve())})
    if is_tiny:
        entry = tiny_entry(make_tiny_model(tmp_path / "model", byte_level=True), max_in_flight=16)
    else:
        default = load_catalogue(settings.models_file).default()
        prepare_model(default, settings.prepared_models, lambda step, fraction: None)
        entry = next(each for each in json.loads(settings.models_file.read_text()) if each["name"] == default.name)
    stack.models.write_text(json.dumps([entry, HASH]))
    try:
        stack.start(seconds=300)
        with Client(stack.url, retry_policy=RetryPolicy(retries=120, max_delay=1.0)) as client:
            batch = client.submit_requests(("requests.jsonl", requests(500, max_tokens=tokens)))
            with kills(stack, 1000, 5.0 if is_tiny else 10.0) as killed:
                batch = client.wait_for_requests(batch, timeout=1800)
            assert len(killed) >= len(KILLED)
            assert (batch.status, batch.request_counts["completed"]) == ("completed", 500)
            assert len(answers(client, batch)) == 500
            assert generated(stack) == 500
    finally:
        stack.kill()


def test_an_upload_that_breaks_off_leaves_nothing(stack: Stack) -> None:
    files = stack.data / "files"
    before = {path.name for path in files.glob("*file-*")}
    head = (
        b"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 5000000\r\n\r\n"
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    )
    with socket.create_connection(("127.0.0.1", stack.port)) as connection:
        connection.sendall(head + b"x" * 1_000_000)
        wait_until(lambda: {path.name for path in files.glob("*file-*")} - before, "a draft is written as the bytes arrive")
    wait_until(lambda: {path.name for path in files.glob("*file-*")} == before, "the draft is gone")


@pytest.fixture
def stack_with_a_small_files_disk(tmp_path: Path) -> Iterator[tuple[Stack, Path]]:
    with disk(tmp_path / "data" / "files", 16) as folder:
        stack = Stack(tmp_path, token_seconds=0.001, environment=ENVIRONMENT)
        try:
            yield stack.start(), folder
        finally:
            stack.kill()


@pytest.mark.slow_fault
def test_a_full_disk_refuses_uploads_and_pauses_batches(stack_with_a_small_files_disk: tuple[Stack, Path]) -> None:
    stack, folder = stack_with_a_small_files_disk
    with Client(stack.url, retry_policy=RetryPolicy(retries=0)) as client:
        batch = client.submit_requests(("requests.jsonl", requests(1500)))
        wait_until(lambda: client.request_batch(batch).request_counts["completed"] >= 100, "it runs")
        with full(folder):
            before = {path.name for path in folder.glob("*file-*")}
            with pytest.raises(Unavailable) as refused:
                client.submit_requests(("more.jsonl", requests(20_000)))
            assert refused.value.code == "disk_full"
            assert {path.name for path in folder.glob("*file-*")} == before
            wait_until(
                lambda: any(attempt.error == "disk_full" for attempt in client.get(batch.job_id).attempts),
                "the batch met the full disk",
            )
            paused = client.request_batch(batch)
            assert (paused.status, paused.request_counts["failed"]) == ("in_progress", 0)
        ended = client.wait_for_requests(batch, timeout=200)
        assert answers(client, ended) == {f"r{number}": f"answer {number}" for number in range(1500)}
        assert generated(stack) == 1500
        large = httpx2.post(
            f"{stack.url}/v1/files", files={"file": ("large", b"x" * 20_000_000)}, data={"purpose": "batch"}, timeout=60
        )
        assert (large.status_code, large.json()["error"]["code"]) == (503, "disk_full")
        with suppress(ConnectionFailed):
            assert client.submit_requests(("small.jsonl", requests(3))).id
