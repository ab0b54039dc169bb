"""Faults 21, 32, 34, 42 to 44: servers that die, clients that cancel, go away or send what they should not, full disks."""

import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx2
import psutil
import pytest

from testing.fault_rig.disks import disk, full
from testing.fault_rig.fault_stack import TEXT, FaultStack, open_house
from testing.fault_rig.pausing import pause
from testing.fault_rig.processes import family, kill, limited, stopped

MEGABYTE = 1024 * 1024
HOUSE = {"environment": {"ENGINEHOUSE_MAX_UPLOAD_BYTES": str(MEGABYTE), "ENGINEHOUSE_MAX_BODY_BYTES": str(MEGABYTE)}}


def api_processes(house: FaultStack) -> list[int]:
    """What answers: gunicorn's workers."""
    return [process.pid for process in family(house.pid("api"))[1:]]


@pytest.mark.slow_fault
def test_21_a_server_killed_in_the_middle_of_a_submit_makes_one_job_for_a_client_that_tries_again(house: FaultStack) -> None:
    key = {"Idempotency-Key": "killed-under-me"}
    house.proxy.freeze()
    outcome: list[object] = []

    def first_try() -> None:
        try:
            outcome.append(
                httpx2.post(f"{house.stack.url}/generate", json={"prompt": TEXT, "max_tokens": 500}, headers=key, timeout=20)
            )
        except httpx2.HTTPError as error:
            outcome.append(error)

    client = threading.Thread(target=first_try)
    client.start()
    pause(0.5)
    for pid in api_processes(house):
        kill(pid)
    client.join()
    house.proxy.thaw()
    assert isinstance(outcome[0], httpx2.HTTPError), "the first try was broken off"
    jobs = {house.submit_when_possible(headers=key) for _ in range(3)}
    assert len(jobs) == 1
    made = [job for job in house.client.get("/jobs", params={"limit": 100}).json()["data"] if job["id"] in jobs]
    assert len(made) == 1
    assert len(house.ended(jobs.pop()).attempts) == 1


def test_21_killed_servers_lose_no_accepted_job(house: FaultStack) -> None:
    jobs = [house.submit() for _ in range(4)]
    for pid in api_processes(house):
        kill(pid)
    jobs += [house.submit_when_possible() for _ in range(4)]
    for job in jobs:
        assert len(house.ended(job).attempts) == 1


def test_32_a_cancelled_queued_job_never_runs(house: FaultStack) -> None:
    running = house.running(8)
    job = house.submit()
    house.ledger.may_end(job, "cancelled")
    assert house.client.post(f"/jobs/{job}/cancel").status_code == 200
    assert house.job(job).attempts == ()
    for other in running:
        house.ended(other)
    assert house.job(job).attempts == ()


def test_32_a_cancelled_running_job_stops_at_once(house: FaultStack) -> None:
    [job] = house.running(1, TEXT * 8)
    house.ledger.may_end(job, "cancelled")
    assert house.client.post(f"/jobs/{job}/cancel").status_code == 202
    assert house.ended(job, 1 + 1).status == "cancelled"
    told = len(house.events(job))
    house.ended(house.submit())
    assert len(house.events(job)) == told


@pytest.mark.slow_fault
def test_32_a_cancel_that_the_worker_does_not_hear_comes_with_its_renewal(house: FaultStack) -> None:
    [job] = house.running(1, TEXT * 8)
    house.ledger.may_end(job, "cancelled")
    house.proxy.lose_reply(f"worker:{house.job(job).worker}".encode())
    loss = house.proxy.lose_request(b"SUBSCRIBE", 1)
    house.proxy.reset()
    house.client.post(f"/jobs/{job}/cancel")
    assert house.ended(job, 5).status == "cancelled"
    assert loss.seen


def test_32_a_job_that_ends_while_it_is_cancelled_ends_once(house: FaultStack) -> None:
    jobs = [house.submit("x" * 4) for _ in range(20)]
    for job in jobs:
        house.ledger.may_end(job, "cancelled", "completed")
        answer = house.client.post(f"/jobs/{job}/cancel")
        assert answer.status_code in (200, 202, 409)
        if answer.status_code == 409:
            assert answer.json()["error"]["status"] == "completed"
    for job in jobs:
        before = house.ended(job)
        assert house.client.post(f"/jobs/{job}/cancel").status_code == 409
        assert house.job(job) == before


@pytest.mark.slow_fault
def test_32_a_job_can_be_cancelled_while_no_worker_is_up(house: FaultStack) -> None:
    jobs = house.running(2, TEXT * 4)
    with stopped(process.pid for process in family(house.pid("gpu0"))):
        jobs.append(house.submit())
        for job in jobs:
            house.ledger.may_end(job, "cancelled")
            assert house.client.post(f"/jobs/{job}/cancel").status_code in (200, 202)
        assert house.ended(jobs[2], 1).status == "cancelled"
        for job in jobs[:2]:
            assert house.ended(job, 12).status == "cancelled", "when its lease has lapsed"


def raw(house: FaultStack, *pieces: bytes, every: float = 0.0, seconds: float = 20) -> bytes:
    """What the server answers to these very bytes."""
    with socket.create_connection(("127.0.0.1", house.stack.port), timeout=seconds) as connection:
        for piece in pieces:
            connection.sendall(piece)
            if every:
                pause(every)
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
def test_42_a_bad_request_is_the_fault_of_the_client(house: FaultStack, sent: bytes, statuses: set[int]) -> None:
    answer = raw(house, sent)
    status = int(answer.split(b" ", 2)[1]) if answer else 0
    assert status in statuses, answer[:400]
    assert house.client.get("/health/live").status_code == 200


def test_42_a_file_name_with_a_path_stays_a_name(house: FaultStack) -> None:
    before = set(house.stack.folder.rglob("*passwd*"))
    answer = raw(house, request("/upload", multipart("../../../passwd", b"some words to be kept"), FORM))
    assert answer.startswith(b"HTTP/1.1 202"), answer[:400]
    assert set(house.stack.folder.rglob("*passwd*")) == before
    jobs = [job["id"] for job in house.client.get("/jobs", params={"kind": "ingest"}).json()["data"]]
    assert house.ended(jobs[0], 40).status == "completed"


@pytest.mark.slow_fault
def test_42_clients_that_send_slowly_hold_nobody_up(house: FaultStack) -> None:
    with ExitStack() as slow:
        head = request("/upload", b"", FORM, 100_000)
        for _ in range(50):
            connection = slow.enter_context(socket.create_connection(("127.0.0.1", house.stack.port)))
            connection.sendall(head + b"--b")
        for _ in range(5):
            start = time.monotonic()
            assert house.client.get("/health/live").status_code == 200
            assert time.monotonic() - start < 1
        house.ended(house.submit())


@pytest.fixture
def house_with_little_room(tmp_path: Path) -> Iterator[tuple[FaultStack, Path]]:
    with disk(tmp_path / "house" / "data" / "documents", 8) as folder, open_house(tmp_path / "house") as house:
        yield house, folder


@pytest.mark.slow_fault
def test_43_a_full_disk_refuses_the_upload_and_keeps_no_half_file(house_with_little_room: tuple[FaultStack, Path]) -> None:
    house, folder = house_with_little_room
    with full(folder):
        answer = house.client.post("/upload", files={"file": ("a.txt", TEXT.encode() * 5000)})
        assert answer.status_code in (503, 507), answer.text
        assert "disk" in answer.json()["error"]["message"]
        assert [path for path in folder.rglob("*") if path.is_file()] == [folder / "filler"]
        assert not house.client.get("/collections/default/documents").json().get("data"), "no document refers to it"
    _, job = house.upload("default", "a.txt", TEXT.encode() * 50)
    assert house.ended(job).status == "completed"
    house.check()


@pytest.mark.slow_fault
def test_44_a_server_out_of_descriptors_answers_again_when_it_has_some(house: FaultStack) -> None:
    with ExitStack() as limits:
        for pid in api_processes(house):
            limits.enter_context(limited(pid, resource.RLIMIT_NOFILE, psutil.Process(pid).num_fds() + 3))
        connections = []
        for _ in range(40):
            connection = limits.enter_context(socket.create_connection(("127.0.0.1", house.stack.port)))
            connection.sendall(b"GET /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            connections.append(connection)
        pause(2)
    job = house.submit_when_possible()
    house.ended(job)


@pytest.mark.slow_fault
def test_44_a_worker_out_of_descriptors_serves_again_when_it_has_some(house: FaultStack) -> None:
    pid = house.pid("gpu0")
    jobs = house.running(4, TEXT * 3)
    with limited(pid, resource.RLIMIT_NOFILE, psutil.Process(pid).num_fds()):
        house.proxy.reset()  # it cannot lack what it has open; so it must open it anew
        jobs.append(house.submit_when_possible())
        pause(3)
    for job in jobs:
        house.ended(job, 60)
