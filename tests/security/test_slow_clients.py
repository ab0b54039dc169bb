"""Slow clients, and requests that no application sees: half a request, or one that cannot be parsed, leaves the server to others."""

import json
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import psutil
import pytest
import redis

from api.gunicorn_worker import address_group
from cli.local.process_commands import api_command, environment_of
from cli.local.redis_server import RedisServer, free_port
from shared.owners.store import ApiKeys
from shared.redis_connection import connect
from shared.settings_sources import from_environment
from testing.repository import REPOSITORY
from testing.waiting import wait_until

THREADS = 16
IDLE = 20
HALF_HEAD = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX-A: b"


class Api:
    """Two API processes with few threads and short time limits, started with the command of the stack."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.port = free_port()
        settings = from_environment(
            {"REDIS_URL": redis_url, "ENGINEHOUSE_DATA": str(folder), "ENGINEHOUSE_LOG_LEVEL": "WARNING"},
            port=self.port,
            api_threads=THREADS,
            header_seconds=2.0,
            body_seconds=2.0,
            max_idle_connections=IDLE,
        )
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                api_command(settings), env=environment_of(settings), cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT
            )
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)
        wait_until(self.is_alive, "the API answers")

    def is_alive(self) -> bool:
        try:
            return self.client.get("/health/live", headers={"Connection": "close"}).status_code == 200
        except httpx2.TransportError:
            return False

    def connect(self, data: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.sendall(data)
        return connection

    def stop(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(90)


@pytest.fixture(scope="module")
def key(redis_server: RedisServer) -> str:
    client = connect(redis_server.url)
    client.flushall()
    return ApiKeys(client).create("ada")[1]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer, key: str) -> Iterator[Api]:
    api = Api(tmp_path_factory.mktemp("api"), redis_server.url)
    yield api
    api.stop()


def post(length: int, key: str = "") -> bytes:
    """The header of a POST request with a body of this length."""
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    return (
        f"POST /generate HTTP/1.1\r\nHost: localhost\r\n{authorization}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0)
    try:
        while data := connection.recv(65536):
            assert data
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def closed_at_once(connections: list[socket.socket]) -> None:
    for connection in connections:
        with suppress(OSError):
            connection.close()


@pytest.mark.parametrize("sent", [b"", HALF_HEAD], ids=["nothing", "half a header"])
def test_half_open_requests_leave_the_server_to_others(api: Api, sent: bytes) -> None:
    held = []
    for _ in range(10 * THREADS):
        with suppress(OSError):
            held.append(api.connect(sent))
    for _ in range(5):
        started = time.monotonic()
        assert api.is_alive()
        assert time.monotonic() - started < 20
    assert sum(not is_closed(connection) for connection in held) <= 2 * IDLE, (
        "newer connections replace older ones of the address"
    )
    wait_until(lambda: all(map(is_closed, held)), "the rest is closed when the time for headers is over", seconds=20)
    closed_at_once(held)


def test_four_thousand_half_open_requests_of_one_address(api: Api) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 5000:
        pytest.skip("needs 5,000 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 5000), hard))
    held = []
    for _ in range(4200):
        with suppress(OSError):
            held.append(api.connect(HALF_HEAD))
    assert all(api.is_alive() for _ in range(3))
    closed_at_once(held)


def test_slow_bodies_of_one_owner_leave_threads_to_others(api: Api, key: str) -> None:
    held = [api.connect(post(100_000, key) + b"{") for _ in range(6 * THREADS)]
    assert all(api.is_alive() for _ in range(5))
    wait_until(lambda: all(map(is_closed, held)), "slow bodies end", seconds=30)
    closed_at_once(held)


def test_a_body_that_stops_is_answered_and_the_connection_closed(api: Api, key: str) -> None:
    connection = api.connect(post(1000, key) + b'{"prompt": ')
    answer = b""
    while data := connection.recv(65536):
        answer += data
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"request_timeout"' in answer
    assert b"Connection: close" in answer


def test_a_body_that_arrives_slowly_is_accepted(api: Api, key: str) -> None:
    body = b'{"prompt": "' + b"x" * 6000 + b'", "model": "unknown"}'
    connection = api.connect(post(len(body), key))
    for start in range(0, len(body), 1000):
        connection.sendall(body[start : start + 1000])
        time.sleep(0.5)
    assert connection.recv(65536).startswith(b"HTTP/1.1 404 ")
    connection.close()


@pytest.mark.parametrize("head", [post(100_000), post(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")])
def test_a_refused_request_closes_its_connection_without_reading_the_body(api: Api, head: bytes) -> None:
    def is_closed_at_once() -> bool:
        connection = api.connect(head + b"1\r\n{")
        started = time.monotonic()
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b"Connection: close" in answer
        while connection.recv(65536):
            pass
        connection.close()
        return time.monotonic() - started < 1.5

    wait_until(
        is_closed_at_once, "the server closes its side before the two seconds of a body are over, unless the machine is busy"
    )


def test_a_connection_is_kept_between_requests(api: Api) -> None:
    connection = api.connect()
    request = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for pieces in ([request], [request[:20], request[20:]], [request[:-1], request[-1:]]):
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.05)
        answer = b""
        while b"alive" not in answer:
            answer += connection.recv(65536)
        assert b"keep-alive" in answer
    connection.sendall(request + request)
    answer = b""
    while answer.count(b'alive"') < 2:
        answer += connection.recv(65536)
    connection.close()


def test_a_kept_connection_with_a_request_on_its_way_is_not_closed_for_a_new_one(api: Api) -> None:
    request = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    kept = []
    for _ in range(6 * IDLE):
        connection = api.connect(request)
        assert b"alive" in connection.recv(65536)
        kept.append(connection)
    kept = [connection for connection in kept if not is_closed(connection)]
    workers = psutil.Process(api.process.pid).children()
    for worker in workers:
        worker.suspend()
    new = [api.connect() for _ in range(4)]
    for connection in kept:
        connection.settimeout(10)
        connection.sendall(request)
    for worker in workers:
        worker.resume()
    for connection in kept:
        assert b"alive" in connection.recv(65536)
    for connection in [*kept, *new]:
        connection.close()


def test_a_header_without_an_end_is_refused(api: Api) -> None:
    connection = api.connect(b"GET / HTTP/1.1\r\nX-A: " + b"a" * 70_000)
    assert connection.recv(65536).startswith(b"HTTP/1.1 431 ")
    connection.close()


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"NONSENSE\r\n\r\n", 400, "invalid_request"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nNo colon\r\n\r\n", 400, "invalid_request"),
        (post(0).replace(b"Content-Length: 0", b"Content-Length: \xb2"), 400, "invalid_request"),
        (post(0).replace(b"Content-Length: 0", b"Content-Length: +1"), 400, "invalid_request"),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414, "invalid_request"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 9000 + b"\r\n\r\n", 431, "invalid_request"),
        (b"GET / HTTP/1.1\r\nX-A: " + b"a" * 70_000, 431, "invalid_request"),
        (HALF_HEAD, 408, "request_timeout"),
    ],
)
def test_a_request_that_cannot_be_parsed_is_refused_in_json(api: Api, request_bytes: bytes, status: int, code: str) -> None:
    connection = api.connect(request_bytes)
    answer = b""
    while data := connection.recv(65536):
        answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"Content-Type: application/json" in head
    assert b"Connection: close" in head
    assert json.loads(body)["error"]["code"] == code
    connection.close()


def test_a_broken_chunk_is_a_malformed_body(api: Api, key: str) -> None:
    head = post(0, key).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    for body in (b"zz\r\n{}\r\n0\r\n\r\n", b"2\r\n{}xx0\r\n\r\n"):
        connection = api.connect(head + body)
        answer = b""
        while data := connection.recv(65536):
            answer += data
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b'"malformed_body"' in answer
        connection.close()


def test_a_client_that_is_still_sending_a_refused_body_reads_the_refusal(api: Api, key: str) -> None:
    head = post(0, key).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    connection = api.connect(head + b"%x\r\n" % 20_000_000 + b"x" * 20_000_000 + b"\r\n0\r\n\r\n")
    assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
    connection.close()


def test_a_client_that_does_not_read_its_response_is_not_waited_for_by_the_main_thread(api: Api) -> None:
    held = [api.connect(post(10)) for _ in range(2 * THREADS)]
    started = time.monotonic()
    assert all(api.is_alive() for _ in range(5))
    assert time.monotonic() - started < 20
    closed_at_once(held)


def test_slow_clients_leave_no_trace_in_the_log(api: Api) -> None:
    assert "Traceback" not in api.log.read_text()


def test_a_stopping_server_does_not_wait_for_idle_connections(
    tmp_path_factory: pytest.TempPathFactory, redis_client: redis.Redis, redis_url: str
) -> None:
    def stops_in_time() -> bool:
        api = Api(tmp_path_factory.mktemp("stopping"), redis_url)
        held = [api.connect(HALF_HEAD) for _ in range(4)]
        started = time.monotonic()
        api.stop()
        closed_at_once(held)
        return time.monotonic() - started < 10

    wait_until(stops_in_time, "the server stops within ten seconds, unless the machine is busy", seconds=240)


@pytest.mark.parametrize(
    ("host", "group"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:0db8:0001:0002::"),
        ("::1", "::1"),
    ],
)
def test_addresses_of_one_network_count_together(host: str, group: str) -> None:
    assert address_group(host) == group
