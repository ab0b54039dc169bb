"""Chroma admits only those who have its password, and the password is where only the server's user can read it."""

import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from cli.local.redis_server import free_port
from shared.errors import IndexUnavailable
from testing.chroma_server import PASSWORD, ChromaServer
from testing.fault_rig.processes import has_word
from testing.stack import Stack
from workers.index.vector_store import VectorStore, login_header

COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
INDEX = "col_00000000000000000000000000.v1"


@pytest.fixture(scope="module")
def chroma(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChromaServer]:
    server = ChromaServer(tmp_path_factory.mktemp("chroma"), free_port())
    server.start()
    yield server
    server.kill()


def basic(login: str) -> str:
    return "Basic " + base64.b64encode(login.encode()).decode()


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Basic",
        "Basic !",
        "Basic \u00e9\u00e9",
        basic(":"),
        basic(PASSWORD),
        basic(f":{PASSWORD} "),
        basic(f":{PASSWORD[:-1]}"),
        f"Bearer {PASSWORD}",
        PASSWORD,
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", COLLECTIONS), ("DELETE", f"{COLLECTIONS}/{INDEX}"), ("GET", "/docs"), ("POST", "/api/v2/reset")]
)
def test_every_call_needs_the_password(chroma: ChromaServer, method: str, path: str, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization.encode()}
    answer = httpx.request(method, f"http://127.0.0.1:{chroma.port}{path}", headers=headers, trust_env=False)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["error"]) == (401, "AuthError")


def test_a_body_without_a_password_is_not_read(chroma: ChromaServer) -> None:
    with socket.create_connection(("127.0.0.1", chroma.port), 20) as connection:
        connection.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n" % COLLECTIONS.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 401 ")
        assert connection.recv(1000) in (b"", b'{"error":"AuthError","message":"The password is missing or wrong."}')


def test_only_the_calls_of_the_vector_store_exist(chroma: ChromaServer) -> None:
    for method, path in (("GET", "/docs"), ("POST", "/api/v2/reset"), ("GET", "/api/v1/collections"), ("PUT", COLLECTIONS)):
        answer = httpx.request(method, f"http://127.0.0.1:{chroma.port}{path}", headers=login_header(chroma.url), trust_env=False)
        assert answer.status_code == 404


def test_a_store_with_the_wrong_password_reports_that_the_index_is_unavailable(chroma: ChromaServer) -> None:
    VectorStore(chroma.url).put_vectors(INDEX, "doc", [0], [[1.0, 0.0]])
    wrong = VectorStore(chroma.url.replace(PASSWORD, "guessed"))
    with pytest.raises(IndexUnavailable) as refused:
        wrong.drop_index(INDEX)
    assert "guessed" not in str(refused.value)
    assert VectorStore(chroma.url).count_vectors(INDEX) == 1


def test_the_password_of_a_stack_is_private_and_random(stack: Stack) -> None:
    url = json.loads((stack.data / "state.json").read_text())["chroma"]
    password = urlsplit(url).password
    assert password is not None
    assert len(password) >= 32
    for file in ("state.json", "chroma-password"):
        assert (stack.data / file).stat().st_mode & 0o777 == 0o600
    address = url.replace(f":{password}@", "")
    assert httpx.get(f"{address}{COLLECTIONS}", headers={"Host": "evil.example"}, trust_env=False).status_code == 401
    assert httpx.get(f"{address}{COLLECTIONS}", headers=login_header(url), trust_env=False).status_code == 200
    assert password not in stack.log.read_text()
    for pid in stack.pids().values():
        assert not has_word(psutil.Process(pid), password)


def test_chroma_gets_no_login_of_redis(stack: Stack) -> None:
    assert "REDIS_URL" not in psutil.Process(stack.pid("chroma")).environ()


def test_the_server_does_not_start_without_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEHOUSE_CHROMA_URL", "http://chroma:8000")
    from workers.index.chroma_server import main

    with pytest.raises(SystemExit, match="must contain the password"):
        main(["--path", str(tmp_path), "--port", "1"])
