"""API processes that die, clients that cancel or send bad requests, full disks and missing file descriptors."""

import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx2
import psutil
import pytest

from testing.fault_rig.disks import disk, full
from testing.fault_rig.duration import hold_fault
from testing.fault_rig.fault_stack import TEXT, FaultStack, open_fault_stack
from testing.fault_rig.processes import kill, process_tree, suspended, with_limit

MEGABYTE = 1024 * 1024
STACK_OPTIONS = {"environment": {"ENGINEHOUSE_MAX_UPLOAD_BYTES": str(MEGABYTE), "ENGINEHOUSE_MAX_BODY_BYTES": str(MEGABYTE)}}


def api_processes(stack: FaultStack) -> list[int]:
    """The process ids of gunicorn's workers, which answer requests."""
    return [process.pid for process in process_tree(stack.pid_of("api"))[1:]]


@pytest.mark.slow_fault
def test_an_api_process_killed_during_a_submit_makes_one_job_for_a_retrying_client(stack: FaultStack) -> None:
    key = {"Idempotency-Key": "killed-under-me"}
    stack.proxy.freeze()
    outcome: list[object] = []

    def first_request() -> None:
        try:
            outcome.append(
                httpx2.post(f"{stack.server.url}/generate", json={"prompt": TEXT, "max_tokens": 500}, headers=key, timeout=20)
            )
        except httpx2.HTTPError as error:
            outcome.append(error)

    client = threading.Thread(target=first_request)
    client.start()
    hold_fault(0.5)
    for pid in api_processes(stack):
        kill(pid)
    client.join()
    stack.proxy.thaw()
    assert isinstance(outcome[0], httpx2.HTTPError), "the first request was broken off"
    jobs = {stack.submit_through_outage(headers=key) for _ in range(3)}
    assert len(jobs) == 1
    created = [job for job in stack.client.get("/jobs", params={"limit": 100}).json()["data"] if job["id"] in jobs]
    assert len(created) == 1
    assert len(stack.wait_for_end(jobs.pop()).attempts) == 1


def test_killed_api_processes_lose_no_accepted_job(stack: FaultStack) -> None:
    jobs = [stack.submit_job() for _ in range(4)]
    for pid in api_processes(stack):
        kill(pid)
    jobs += [stack.submit_through_outage() for _ in range(4)]
    for job in jobs:
        assert len(stack.wait_for_end(job).attempts) == 1


def test_a_cancelled_queued_job_never_runs(stack: FaultStack) -> None:
    running = stack.start_jobs(8, TEXT * 10)
    job = stack.submit_job()
    stack.ledger.allow_end(job, "cancelled")
    assert stack.client.post(f"/jobs/{job}/cancel").status_code == 200
    assert stack.read_job(job).attempts == ()
    for other in running:
        stack.ledger.allow_end(other, "cancelled")
        assert stack.client.post(f"/jobs/{other}/cancel").status_code in (200, 202)
    stack.wait_for_end(stack.submit_job())
    assert stack.read_job(job).attempts == ()


def test_a_cancelled_running_job_stops_at_once(stack: FaultStack) -> None:
    [job] = stack.start_jobs(1, TEXT * 8)  # seventeen seconds long, so that one that is not stopped completes
    stack.ledger.allow_end(job, "cancelled")
    # 200 if a worker that was starved of CPU has lost its lease, so that the job is in its queue again.
    assert stack.client.post(f"/jobs/{job}/cancel").status_code in (200, 202)
    assert stack.wait_for_end(job).status == "cancelled"
    count = len(stack.read_events(job))
    stack.wait_for_end(stack.submit_job())
    assert len(stack.read_events(job)) == count


@pytest.mark.slow_fault
def test_a_missed_cancel_message_arrives_with_the_lease_renewal(stack: FaultStack) -> None:
    [job] = stack.start_jobs(1, TEXT * 8)
    stack.ledger.allow_end(job, "cancelled")
    stack.proxy.lose_reply(f"worker:{stack.read_job(job).worker}".encode())
    loss = stack.proxy.lose_request(b"SUBSCRIBE", 1)
    stack.proxy.reset()
    stack.client.post(f"/jobs/{job}/cancel")
    assert stack.wait_for_end(job).status == "cancelled"
    assert loss.seen


def test_a_job_that_ends_while_it_is_cancelled_ends_once(stack: FaultStack) -> None:
    jobs = [stack.submit_job("x" * 4) for _ in range(20)]
    for job in jobs:
        stack.ledger.allow_end(job, "cancelled", "completed")
        answer = stack.client.post(f"/jobs/{job}/cancel")
        assert answer.status_code in (200, 202, 409)
        if answer.status_code == 409:
            assert answer.json()["error"]["status"] == "completed"
    for job in jobs:
        before = stack.wait_for_end(job)
        assert stack.client.post(f"/jobs/{job}/cancel").status_code == 409
        assert stack.read_job(job) == before


@pytest.mark.slow_fault
def test_a_job_can_be_cancelled_while_no_worker_is_up(stack: FaultStack) -> None:
    jobs = stack.start_jobs(2, TEXT * 4)
    with suspended(process.pid for process in process_tree(stack.pid_of("gpu0"))):
        jobs.append(stack.submit_job())
        for job in jobs:
            stack.ledger.allow_end(job, "cancelled")
            assert stack.client.post(f"/jobs/{job}/cancel").status_code in (200, 202)
        assert stack.wait_for_end(jobs[2]).status == "cancelled"
        for job in jobs[:2]:
            assert stack.wait_for_end(job).status == "cancelled", "once its lease has lapsed"


def raw(stack: FaultStack, *pieces: bytes, every: float = 0.0, seconds: float = 20) -> bytes:
    """Send these bytes. Returns the answer of the server."""
    with socket.create_connection(("127.0.0.1", stack.server.port), timeout=seconds) as connection:
        for piece in pieces:
            connection.sendall(piece)
            if every:
                hold_fault(every)
        with suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with suppress(OSError):
            while block := connection.recv(65536):
                answer += block
    return answer


def request(path: str, body: bytes, kind: str, length: int | None = None) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body) if length is None else length}\r\nConnection: close\r\n\r\n".encode() + body


def multipart(name: str, data: bytes) -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: text/plain\r\n\r\n'
    return head.encode() + data + b"\r\n--b--\r\n"


FORM = "multipart/form-data; boundary=b"
DEEP = b'{"prompt": "x", "metadata": ' + b'{"a":' * 200_000 + b"1" + b"}" * 200_000 + b"}"


@pytest.mark.slow_fault
@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        pytest.param(request("/upload", multipart("big.txt", b"x" * 2 * MEGABYTE), FORM), {413}, id="twice the limit"),
        pytest.param(request("/upload", multipart("cut.txt", b"x" * 1000)[:500], FORM, 1100), {400, 0}, id="truncated"),
        pytest.param(request("/generate", DEEP, "application/json"), {400, 413, 422}, id="200,000 deep"),
        pytest.param(request("/generate", b'{"prompt": NaN}', "application/json"), {400, 422}, id="not a number"),
        pytest.param(request("/generate", b"\xff\xfe\x00", "application/json"), {400, 422}, id="not text"),
        pytest.param(request("/upload", b"no parts at all", FORM), {400}, id="no multipart"),
    ],
)  # fmt: skip
def test_a_bad_request_is_answered_as_a_client_error(stack: FaultStack, sent: bytes, statuses: set[int]) -> None:
    answer = raw(stack, sent)
    status = int(answer.split(b" ", 2)[1]) if answer else 0
    assert status in statuses, answer[:400]
    assert stack.client.get("/health/live").status_code == 200


def test_a_file_name_with_a_path_stays_a_file_name(stack: FaultStack) -> None:
    before = set(stack.server.folder.rglob("*passwd*"))
    answer = raw(stack, request("/upload", multipart("../../../passwd", b"some words to be kept"), FORM))
    assert answer.startswith(b"HTTP/1.1 202"), answer[:400]
    assert set(stack.server.folder.rglob("*passwd*")) == before
    jobs = [job["id"] for job in stack.client.get("/jobs", params={"kind": "ingest"}).json()["data"]]
    assert stack.wait_for_end(jobs[0]).status == "completed"


@pytest.mark.slow_fault
def test_slow_clients_do_not_delay_others(stack: FaultStack) -> None:
    with ExitStack() as slow:
        head = request("/upload", b"", FORM, 100_000)
        for _ in range(50):
            connection = slow.enter_context(socket.create_connection(("127.0.0.1", stack.server.port)))
            connection.sendall(head + b"--b")
        for _ in range(5):
            # A request that has to wait for a slow one waits for minutes.
            assert stack.client.get("/health/live", timeout=20).status_code == 200
        stack.wait_for_end(stack.submit_job())


@pytest.fixture
def stack_with_a_small_documents_disk(tmp_path: Path) -> Iterator[tuple[FaultStack, Path]]:
    with disk(tmp_path / "stack" / "data" / "documents", 8) as folder, open_fault_stack(tmp_path / "stack") as stack:
        yield stack, folder


@pytest.mark.slow_fault
def test_a_full_disk_rejects_the_upload_and_keeps_no_partial_file(
    stack_with_a_small_documents_disk: tuple[FaultStack, Path],
) -> None:
    stack, folder = stack_with_a_small_documents_disk
    with full(folder):
        answer = stack.client.post("/upload", files={"file": ("a.txt", TEXT.encode() * 5000)})
        assert answer.status_code in (503, 507), answer.text
        assert "disk" in answer.json()["error"]["message"]
        assert [path for path in folder.rglob("*") if path.is_file()] == [folder / "filler"]
        assert not stack.client.get("/collections/default/documents").json().get("data"), "no document refers to it"
    _, job = stack.upload_file("default", "a.txt", TEXT.encode() * 50)
    assert stack.wait_for_end(job).status == "completed"
    stack.check_invariants()


@pytest.mark.slow_fault
def test_an_api_process_out_of_file_descriptors_recovers(stack: FaultStack) -> None:
    with ExitStack() as limits:
        for pid in api_processes(stack):
            limits.enter_context(with_limit(pid, resource.RLIMIT_NOFILE, psutil.Process(pid).num_fds() + 3))
        connections = []
        for _ in range(40):
            connection = limits.enter_context(socket.create_connection(("127.0.0.1", stack.server.port)))
            connection.sendall(b"GET /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            connections.append(connection)
        hold_fault(2)
    job = stack.submit_through_outage()
    assert stack.wait_for_end(job).status == "completed"


@pytest.mark.slow_fault
def test_a_worker_out_of_file_descriptors_recovers(stack: FaultStack) -> None:
    pid = stack.pid_of("gpu0")
    jobs = stack.start_jobs(4, TEXT * 3)
    with with_limit(pid, resource.RLIMIT_NOFILE, psutil.Process(pid).num_fds()):
        stack.proxy.reset()  # it needs new descriptors only for new connections
        jobs.append(stack.submit_through_outage())
        hold_fault(3)
    for job in jobs:
        assert stack.wait_for_end(job).status == "completed"
