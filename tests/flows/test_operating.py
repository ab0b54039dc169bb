"""An operator's bad day: a full disk, output that nobody reads, frozen processes. Nothing exits, and nothing needs a hand."""

import fcntl
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest

from cli.local.disk_check import check_disk_space
from cli.local.process_tree import children
from cli.local.redis_server import free_port
from shared.jobs.worker_registry import WorkerRegistry
from shared.redis_connection import connect
from testing.fault_rig.disks import disk, full
from testing.fault_rig.processes import is_alive
from testing.repository import REPOSITORY
from testing.stack import QUICK, Stack
from testing.waiting import wait_until

DISK_MEGABYTES = 300


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with disk(tmp_path_factory.mktemp("small") / "disk", DISK_MEGABYTES) as folder:
        yield folder


@pytest.fixture(scope="module")
def operated(small_disk: Path) -> Iterator[Stack]:
    stack = Stack(small_disk, token_seconds=0.05, environment=QUICK)
    try:
        yield stack.start()
    finally:
        stack.kill()


def command(stack: Stack, *words: str) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "cli.main", *words, "--data", str(stack.data)]
    return subprocess.run(line, cwd=REPOSITORY, env=stack.environment, capture_output=True, text=True, timeout=120, check=False)


def answer(stack: Stack, path: str, **options: object) -> httpx2.Response:
    return stack.client.post(path, **options)  # type: ignore[arg-type]


def test_a_full_disk_refuses_what_is_new_and_ends_nothing(operated: Stack, small_disk: Path) -> None:
    stack = operated
    before = stack.pids()
    kept = stack.generate("x" * 40, max_tokens=8)["id"]
    stack.ended(kept)
    running = stack.generate("a long answer " * 20, max_tokens=64)["id"]
    wait_until(lambda: stack.job(running)["status"] == "in_progress", "the job runs")
    assert upload_of(stack, 2 * DISK_MEGABYTES * 2**20) == (503, "disk_full"), "a file that does not fit is not even received"
    unpacking = refuse_bytes_that_would_use_the_reserve(stack, small_disk)
    filler = fill(small_disk, 96)
    wait_until(lambda: answer(stack, "/generate", json={"prompt": "x"}).status_code == 503, "jobs are refused")
    for refused in (
        answer(stack, "/generate", json={"prompt": "x"}),
        answer(stack, "/upload", files={"file": ("a.txt", b"some text")}),
        answer(stack, "/collections/handbook/documents", files={"file": ("a.txt", b"some text")}),
        answer(stack, "/batches", json={}),
        answer(stack, f"/jobs/{kept}/retry"),
    ):
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "disk_full"), refused.text
        assert "more bytes are free" in refused.json()["error"]["message"]
    ready = stack.client.get("/health/ready")
    assert ready.status_code == 503
    assert ready.json()["waiting_for"] == ["disk space (jobs and uploads are refused)"]
    assert stack.ended(running)["status"] == "completed", "what was accepted ends"
    assert stack.client.delete(f"/jobs/{kept}").status_code == 200

    with full(small_disk):
        started = time.monotonic()
        wait_until(lambda: time.monotonic() - started > 8, "the disk was full for a while", seconds=30)
        assert stack.process is not None
        assert stack.process.poll() is None
        assert stack.pids() == before, "no process has exited"
        assert stack.client.get("/health/live").status_code == 200
    filler.unlink()
    wait_until(lambda: answer(stack, "/generate", json={"prompt": "x"}).status_code == 202, "jobs are accepted again")
    wait_until(lambda: stack.client.get("/health/ready").status_code == 200, "the stack is ready")
    assert stack.ended(stack.generate("again", max_tokens=4)["id"])["status"] == "completed"
    assert stack.ended(unpacking)["status"] == "completed", "it waited for space"
    assert stack.pids() == before


def refuse_bytes_that_would_use_the_reserve(stack: Stack, small_disk: Path) -> str:
    """Leave little more than the reserve. An upload without a length and the member of an archive are larger; returns the unpack job."""
    fill(small_disk, 92)
    large = os.urandom(8192) * (DISK_MEGABYTES * 2**20 // 20 // 8192)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("large.bin", large)
    form = httpx2.Request("POST", stack.url, files={"file": ("large.bin", large)})
    body = form.read()
    pieces = (body[start : start + 2**20] for start in range(0, len(body), 2**20))
    refused = answer(stack, "/upload", content=pieces, headers={"Content-Type": form.headers["Content-Type"]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "disk_full"), refused.text
    accepted = answer(stack, "/collections/handbook/documents", files={"file": ("packed.zip", packed.getvalue())})
    [unpacking] = [found["job"] for found in accepted.json()["archives"]]
    ends = lambda: [(attempt["outcome"], attempt["error"]) for attempt in stack.job(unpacking)["attempts"]]  # noqa: E731
    wait_until(lambda: ends()[:1] == [("released", "disk_full")], "the unpack job waits for space")
    assert used_megabytes(small_disk) < DISK_MEGABYTES * 95 // 100
    return str(unpacking)


def upload_of(stack: Stack, size: int) -> tuple[int, str]:
    """Announce an upload of this size and send none of it. Returns status and code of the response."""
    connection = http.client.HTTPConnection("127.0.0.1", stack.client.base_url.port or 0, timeout=60)
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(size)}
    connection.request("POST", "/upload", headers=headers)
    response = connection.getresponse()
    code = json.loads(response.read())["error"]["code"]
    connection.close()
    return response.status, code


def fill(folder: Path, percent: int) -> Path:
    """Let a file grow until this much of the disk is used, whatever the stack writes meanwhile."""
    filler = folder / "used-space"
    with filler.open("ab", buffering=0) as stream:
        while used_megabytes(folder) < DISK_MEGABYTES * percent // 100:
            stream.write(bytes(2**20))
    return filler


def used_megabytes(folder: Path) -> int:
    usage = os.statvfs(folder)
    return (usage.f_blocks - usage.f_bavail) * usage.f_frsize // 2**20


def test_a_start_on_a_full_disk_ends_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with disk(tmp_path / "disk", 800) as folder:
        data = folder / "not yet there" / "data"
        check_disk_space(data, 2**30)
        assert capsys.readouterr().err == ""
        filler = folder / "most"
        with filler.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, 765 * 2**20)
        check_disk_space(data, 2**30)
        assert "is nearly full. Jobs and uploads are refused until" in capsys.readouterr().err
        with full(folder):
            line = [sys.executable, "-m", "cli.main", "up", "--data", str(data), "--port", str(free_port())]
            environment = {**os.environ, "ENGINEHOUSE_ALLOW_ROOT": "1"}
            done = subprocess.run(line, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert re.fullmatch(
            r"The disk of the data folder .* is full: Enginehouse can start when [\d,]+ more bytes are free.*\n", done.stderr
        )
        assert not data.parent.exists()


@pytest.mark.slow_fault
def test_frozen_workers_are_reported_and_restarted(operated: Stack) -> None:
    stack = operated
    frozen = {name: stack.pids()[name] for name in ("cpu", "io", "gpu0")}
    api = stack.pids()["api"]
    frozen_api = children(api)[0]
    for pid in (*frozen.values(), frozen_api):
        os.kill(pid, signal.SIGSTOP)
    # A connection that is open may belong to the stopped API worker; a new one is accepted by another.
    stack.client = httpx2.Client(base_url=stack.client.base_url, timeout=60)
    # Heartbeats are trusted for some seconds; a process that is stopped on this machine is not.
    # Children of the cpu worker still run, but nothing gives them jobs.
    expected = {"the cpu worker", "the io worker", "model echo (no worker yet)"}
    wait_until(lambda: expected <= set(stack.client.get("/health/ready").json()["waiting_for"]), "they are missed")
    queued = stack.job(stack.generate("x")["id"])
    assert queued["waiting_for"] in ("worker", "model_loading")
    assert queued["estimated_wait"] is None, "no worker takes it at the rate of the past"
    for name, pid in frozen.items():
        wait_until(lambda name=name, pid=pid: stack.pids().get(name, pid) != pid, f"{name} is replaced")  # type: ignore[misc]
    wait_until(lambda: frozen_api not in children(api), "the API worker is replaced")
    os.kill(api, signal.SIGSTOP)
    reported = lambda: "the first process of the API" in stack.client.get("/health/ready").json()["waiting_for"]  # noqa: E731
    wait_until(reported, "its other processes miss the first one")
    wait_until(lambda: stack.pids().get("api", api) != api, "the first process of the API is replaced")
    frozen["api"] = api
    log = command(stack, "logs").stdout
    assert f"WORKER TIMEOUT (pid:{frozen_api})" in log
    assert all(f"{name} has shown no sign of life" in log for name in frozen)
    wait_until(lambda: responds(stack.client, "/health/ready"), "the stack is ready again")
    assert stack.ended(queued["id"])["status"] == "completed"


def test_a_healthcheck_asks_the_processes_and_not_redis(operated: Stack) -> None:
    stack = operated
    redis = stack.pids()["redis"]
    os.kill(redis, signal.SIGSTOP)
    try:
        for words in (["healthcheck"], ["healthcheck", "gpu0"], ["healthcheck", "cpu"]):
            done = command(stack, *words)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    finally:
        os.kill(redis, signal.SIGCONT)
    done = command(stack, "healthcheck", "gpu7")
    assert done.returncode == 1
    assert "No worker gpu7 runs on host" in done.stderr


def test_the_log_of_one_process_can_be_read(operated: Stack) -> None:
    lines = command(operated, "logs", "io").stdout.splitlines()
    assert lines
    assert all(line.startswith("io ") for line in lines)
    missing = command(operated, "logs", "nobody")
    assert missing.returncode != 0
    assert "no line of 'nobody'" in missing.stderr


def test_a_worker_of_another_host_reports_to_systemd(operated: Stack, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    line = [sys.executable, "-m", "cli.main", "worker", "gpu", "--number", "7", "--redis", operated.redis_url()]
    line += ["--data", str(tmp_path / "data"), "--models", str(operated.models)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.settimeout(120)
        worker = subprocess.Popen(line, cwd=REPOSITORY, env={**operated.environment, "NOTIFY_SOCKET": address})
        try:
            while receiver.recv(100) != b"READY=1":
                pass
            workers = WorkerRegistry(connect(operated.redis_url())).workers()
            assert [(found.model, found.phase) for found in workers if found.name.startswith("gpu7@")] == [("echo", "ready")]
            worker.terminate()
            while receiver.recv(100) != b"STOPPING=1":
                pass
            assert worker.wait(60) == 0
        finally:
            worker.kill()
            worker.wait()


def test_the_processes_of_an_api_die_with_its_first_one(operated: Stack, tmp_path: Path) -> None:
    """A stopped one too: it would keep the port, and connections that nobody answers."""
    port = free_port()
    line = [sys.executable, "-m", "cli.main", "api", "--port", str(port), "--redis", operated.redis_url()]
    line += ["--data", str(tmp_path / "data"), "--models", str(operated.models)]
    first = subprocess.Popen(line, cwd=REPOSITORY, env=operated.environment)
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            wait_until(lambda: responds(client, "/health/live"), "the API answers")
        processes = wait_until(lambda: psutil.Process(first.pid).children(recursive=True), "it has other processes")
        processes[0].suspend()
    finally:
        first.kill()
        first.wait()
    wait_until(lambda: not any(map(is_alive, processes)), "they have ended")


def test_output_that_nobody_reads_stops_nothing(tmp_path: Path) -> None:
    """The reader stops after a few lines and keeps the pipe open, as a pager does; then the stack is told to stop."""
    stack = Stack(tmp_path, environment={**QUICK, "ENGINEHOUSE_LOG_LEVEL": "DEBUG"})
    line = [sys.executable, "-m", "cli.main", "up", "--no-flower", "--data", str(stack.data), "--port", str(free_port())]
    reader, writer = os.pipe()
    try:
        stack.process = subprocess.Popen(
            [*line, "--models", str(stack.models)], stdout=writer, stderr=writer, cwd=REPOSITORY, env=stack.environment
        )
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
        os.close(writer)
        port = int(line[-1])
        stack.client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        os.set_blocking(reader, True)
        os.read(reader, 100)
        wait_until(lambda: responds(stack.client, "/health/ready"), "the stack is ready although nobody reads", seconds=180)
        log = stack.data / "log" / "enginehouse.log"
        for number in range(400):
            if log.stat().st_size > 20_000:
                break
            stack.ended(stack.generate(f"job {number}", max_tokens=2)["id"])
        assert log.stat().st_size > 20_000, "more than the pipe holds"
        assert command(stack, "stop").stdout == "Enginehouse has stopped.\n"
        assert stack.process.wait(60) == 0
    finally:
        os.close(reader)
        stack.kill()


def responds(client: httpx2.Client, path: str) -> bool:
    """Whether the server listens and answers with status 200."""
    try:
        return client.get(path).status_code == 200
    except httpx2.TransportError:
        return False
