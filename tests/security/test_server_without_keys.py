"""A server without API keys serves the user of its own machine only, and a server that had keys never opens again by accident."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from flask.testing import FlaskClient

from api.app import create_app
from api.auth import Authenticator
from api.peer_user import is_other_user
from cli.admin.api_keys import create_key, remove_all_keys
from cli.local.console_log import ConsoleLog
from cli.local.stack import _create_first_key
from cli.output import Output
from shared.audit_log import AuditLog
from shared.errors import Unauthorized
from shared.owners.closed_marker import ClosedMarker
from shared.owners.store import LOCAL, ApiKeys
from shared.settings import Settings
from testing.stack import Stack

REBOUND = "rebound.example:5000"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "0.0.0.0"])
@pytest.mark.parametrize("allow_open", [False, True])
def test_a_rebound_host_name_is_refused_on_every_address(
    settings: Settings, redis_client: redis.Redis, host: str, allow_open: bool
) -> None:
    client = create_app(replace(settings, host=host, allow_open=allow_open)).test_client()
    headers = {"Host": REBOUND, "Origin": f"http://{REBOUND}", "Sec-Fetch-Site": "same-origin"}
    for method, path in (("GET", "/jobs"), ("POST", "/batches"), ("GET", "/admin/gpus"), ("GET", "/metrics")):
        answer = client.open(path, method=method, headers=headers)
        assert (answer.status_code, answer.get_json()["error"]["code"]) == (400, "host_refused"), path


@pytest.mark.parametrize("host", ["127.0.0.1:5000", "localhost", "LOCALHOST:80", "[::1]:5000"])
def test_loopback_names_are_accepted(client: FlaskClient, host: str) -> None:
    assert client.get("/jobs", headers={"Host": host}).status_code == 200


def test_other_names_are_accepted_if_the_setting_lists_them(settings: Settings, redis_client: redis.Redis) -> None:
    client = create_app(replace(settings, allowed_hosts="models.lan, localhost")).test_client()
    assert client.get("/jobs", headers={"Host": "models.lan:5000"}).status_code == 200
    assert client.get("/jobs", headers={"Host": "other.lan"}).status_code == 400


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "Via", "X-Real-IP"])
def test_a_forwarded_request_needs_a_key(client: FlaskClient, key_of: Callable[[str], dict[str, str]], header: str) -> None:
    answer = client.get("/admin/gpus", headers={header: "for=203.0.113.7"})
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (403, "keys_missing")
    key = key_of("ada")
    assert client.get("/jobs", headers={header: "for=203.0.113.7"}).status_code == 401
    assert client.get("/jobs", headers={header: "for=203.0.113.7", **key}).status_code == 200


def test_another_machine_needs_a_key(client: FlaskClient, settings: Settings) -> None:
    remote = {"REMOTE_ADDR": "203.0.113.7"}
    answer = client.get("/jobs", environ_overrides=remote)
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (403, "keys_missing")
    opened = create_app(replace(settings, allow_open=True)).test_client()
    assert opened.get("/jobs", environ_overrides=remote).status_code == 200
    assert opened.get("/jobs", environ_overrides=remote, headers={"Via": "1.1 proxy"}).status_code == 403


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs a second user")
def test_another_user_of_the_machine_needs_a_key(stack: Stack) -> None:
    script = (
        "import http.client, os\n"
        "def call(method, path):\n"
        f"    connection = http.client.HTTPConnection('127.0.0.1', {stack.port})\n"
        "    connection.request(method, path); print(connection.getresponse().status)\n"
        # The other user cannot read Python's library, so this call imports all of it that the next ones need.
        "call('GET', '/jobs')\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "call('GET', '/jobs'); call('POST', '/clear_db'); call('GET', '/health/live')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["200", "403", "403", "200"]


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
def test_a_closed_connection_belongs_to_no_user() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        caller = socket.create_connection(server.getsockname())
        connection, _ = server.accept()
        with connection:
            ends = connection.getpeername(), connection.getsockname()
            assert not is_other_user(*ends)
            caller.close()
            assert is_other_user(*ends)


def test_the_server_of_gunicorn_takes_no_prefix_from_a_header(stack: Stack) -> None:
    headers = {"SCRIPT_NAME": "/x", "X-Forwarded-Proto": "https"}
    assert stack.client.get("/x/health/live", headers=headers).status_code == 404
    assert stack.client.get("/health/live", headers=headers).status_code == 200
    assert stack.client.get("/jobs", headers={"SCRIPT_NAME": "/x"}).status_code == 200


def test_a_process_that_finds_out_that_keys_exist_answers_no_request_as_the_local_owner(
    settings: Settings, redis_client: redis.Redis, key_of: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    key_of("ada")
    app, keys, clients = create_app(settings), ApiKeys(redis_client), 16
    barrier = threading.Barrier(clients)

    def is_refused(authenticator: Authenticator) -> bool:
        with app.test_request_context("/jobs"):
            barrier.wait(60)
            try:
                authenticator.authenticate()
            except Unauthorized:
                return True
            return False

    with ThreadPoolExecutor(clients) as pool:
        for number in range(100):
            # A process has one, and no marker yet if another process has created the first key.
            authenticator = Authenticator(replace(settings, data_dir=tmp_path / str(number)), keys, AuditLog(None))
            assert all(pool.map(is_refused, [authenticator] * clients))


@pytest.mark.parametrize("loss", ["emptied", "older"])
def test_a_lost_redis_does_not_open_a_server_that_had_keys(
    settings: Settings, redis_client: redis.Redis, key_of: Callable[[str], dict[str, str]], loss: str
) -> None:
    key = key_of("ada")
    assert create_app(settings).test_client().get("/jobs", headers=key).status_code == 200
    if loss == "emptied":
        redis_client.flushall()
    else:
        redis_client.delete("eh:keys")
    restarted = create_app(settings).test_client()
    assert restarted.get("/jobs").status_code == 401
    assert restarted.get("/jobs", headers=key).status_code == 401


def test_creating_a_key_closes_the_server_even_if_redis_is_lost_before_the_next_call(
    settings: Settings, redis_client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = ClosedMarker(settings.data_dir)
    create_key(redis_client, marker, "ada", owner="", admin=False, requests_per_second=None, out=Output(as_json=True))
    redis_client.flushall()
    assert create_app(settings).test_client().get("/jobs").status_code == 401
    capsys.readouterr()


def test_only_a_command_returns_to_a_server_without_keys(
    settings: Settings, redis_client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = ClosedMarker(settings.data_dir)
    for name in ("ada", "bob"):
        create_key(redis_client, marker, name, owner="", admin=False, requests_per_second=None, out=Output(as_json=True))
    running = create_app(settings).test_client()
    assert running.get("/jobs").status_code == 401
    remove_all_keys(redis_client, marker)
    assert "Removed 2 keys. Restart the stack" in capsys.readouterr().out
    assert running.get("/jobs").status_code == 401, "a running server stays closed"
    assert create_app(settings).test_client().get("/jobs").status_code == 200


def test_a_server_beyond_loopback_gets_a_first_key_which_is_shown_once(
    settings: Settings, redis_client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    public = replace(settings, host="0.0.0.0")
    _create_first_key(public, log := ConsoleLog())
    log.flush()
    [secret] = [word for word in capsys.readouterr().out.split() if word.startswith("eh_")]
    key = ApiKeys(redis_client).find(secret)
    assert key is not None
    assert (key.owner, key.admin) == (LOCAL, True)
    assert create_app(public).test_client().get("/jobs").status_code == 401
    assert secret not in json.dumps(redis_client.hgetall("eh:keys"))
    for again in (public, replace(settings, host="::")):
        _create_first_key(again, log)
    log.flush()
    assert capsys.readouterr().out == ""
    assert len(ApiKeys(redis_client).list_keys()) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
def test_a_server_on_loopback_gets_no_key(settings: Settings, redis_client: redis.Redis, host: str) -> None:
    _create_first_key(replace(settings, host=host), ConsoleLog())
    _create_first_key(replace(settings, host="0.0.0.0", keys_file=Path("keys.json")), ConsoleLog())
    assert not ApiKeys(redis_client).any_exist()
    assert not Path(settings.data_dir, "keys-required").exists()
