"""API keys over HTTP, from the keys file and in the audit log, without a stack."""

import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from flask.testing import FlaskClient

from api import auth, event_stream
from api.app import create_app
from api.audit import ACTIONS
from api.openapi.operation import Operation
from cli.admin.api_keys import change_key, create_key, key_options, parse_expiry, rotate_key, show_key
from cli.admin.audit import audited
from cli.errors import CommandError
from cli.output import Output
from shared.audit_log import OLD_FILES, Actor, AuditLog
from shared.errors import Conflict, InvalidValue, NotFound, SettingsError
from shared.owners.closed_marker import ClosedMarker
from shared.owners.keys_file import read_keys_file
from shared.owners.limits import KeyLimits
from shared.owners.scripts import OwnerScripts
from shared.owners.store import ApiKeys
from shared.rights import OWNER_SCOPES, SCOPES
from shared.settings import Settings
from tests.conftest import Clock

SECRET = "eh_" + "s" * 40
FIELDS = {"scopes": ["generate"], "models": ["a", "b"], "collections": ["c"], "requests_per_second": 5}


@pytest.fixture
def api_keys(redis_client: redis.Redis) -> ApiKeys:
    return ApiKeys(redis_client)


@pytest.fixture
def root(api_keys: ApiKeys) -> dict[str, str]:
    """The headers of an administrator."""
    return bearer(api_keys.create("root", admin=True)[1])


@pytest.fixture
def client(settings: Settings, redis_client: redis.Redis) -> FlaskClient:
    return create_app(settings).test_client()


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def entries(settings: Settings) -> list[dict[str, Any]]:
    """The lines of the audit log."""
    file = settings.audit_file
    assert file is not None
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_a_rotated_key_has_the_limits_of_the_old_one(api_keys: ApiKeys, redis_client: redis.Redis) -> None:
    key, _ = api_keys.create("app")
    limits = KeyLimits(redis_client)
    limits.set_limits(key.id, {"tokens_per_day": 500})
    rotated, _ = api_keys.rotate(key.id, overlap_seconds=60)
    assert limits.limits(rotated.id) == limits.limits(key.id) == {"tokens_per_day": 500}


def test_the_life_of_a_key_over_http(client: FlaskClient, root: dict[str, str], settings: Settings) -> None:
    created = client.post("/admin/keys", json={"name": "app", "owner": "ada", **FIELDS, "expires_in": 60}, headers=root)
    key, secret = created.get_json(), bearer(created.get_json()["secret"])
    assert (created.status_code, {name: key[name] for name in FIELDS}) == (201, FIELDS)
    assert 0 < key["expires_at"] - key["created_at"] <= 61
    shown = client.get(f"/admin/keys/{key['id']}", headers=root).get_json()
    assert shown == {name: value for name, value in key.items() if name != "secret"}
    assert client.get("/jobs", headers=secret).status_code == 200
    changed = client.patch(f"/admin/keys/{key['id']}", json={"scopes": None, "expires_at": None}, headers=root).get_json()
    assert (changed["scopes"], changed["expires_at"], changed["models"]) == (list(OWNER_SCOPES), None, ["a", "b"])
    assert changed["last_used_at"] >= int(key["created_at"])
    rotated = client.post(f"/admin/keys/{key['id']}/rotate", json={"overlap": 60}, headers=root).get_json()
    assert (rotated["successor_of"], rotated["models"]) == (key["id"], ["a", "b"])
    for each in (secret, bearer(rotated["secret"])):
        assert client.get("/jobs", headers=each).status_code == 200, "both are valid"
    assert client.delete(f"/admin/keys/{rotated['id']}", headers=root).get_json()["revoked_at"]
    assert client.get("/jobs", headers=bearer(rotated["secret"])).get_json()["error"]["code"] == "key_unknown"
    assert client.patch(f"/admin/keys/{rotated['id']}", json={"name": "x"}, headers=root).status_code == 409
    assert client.post(f"/admin/keys/{rotated['id']}/rotate", headers=root).status_code == 409
    assert [each["name"] for each in client.get("/admin/keys", headers=root).get_json()["data"]] == ["root", "app", "app"]
    recorded = entries(settings)
    assert [(entry["action"], entry["outcome"]) for entry in recorded] == [
        ("key.create", "done"),
        ("key.change", "done"),
        ("key.rotate", "done"),
        ("key.revoke", "done"),
        ("key.change", "key_not_active"),
        ("key.rotate", "key_not_active"),
    ]
    assert recorded[0]["targets"] == [key["id"]]
    assert recorded[2]["targets"] == [key["id"], rotated["id"]]
    assert {(entry["owner"], entry["key_name"], entry["address"]) for entry in recorded} == {("root", "root", "127.0.0.1")}
    assert all(entry["request_id"].startswith("req_") and entry["time"].endswith("+00:00") for entry in recorded)
    assert not any(each["secret"] in json.dumps(recorded) for each in (key, rotated))


def test_the_limits_of_a_key_are_set_and_shown_over_http(client: FlaskClient, root: dict[str, str], settings: Settings) -> None:
    limits = {"tokens_per_minute": 500, "tokens_per_day": 1000}
    body = {"name": "app", "requests_per_second": 50, "limits": limits}
    key = client.post("/admin/keys", json=body, headers=root).get_json()
    assert key["limits"] == limits
    me = client.get("/me", headers=bearer(key["secret"])).get_json()
    assert me["key"]["limits"] == {**limits, "requests_per_second": 50}
    change = {"limits": {"tokens_per_day": None, "tokens_per_month": 9000}}
    changed = client.patch(f"/admin/keys/{key['id']}", json=change, headers=root).get_json()
    assert changed["limits"] == {"tokens_per_minute": 500, "tokens_per_month": 9000}
    rotated = client.post(f"/admin/keys/{key['id']}/rotate", headers=root).get_json()
    assert rotated["limits"] == changed["limits"]
    assert [each["limits"] for each in client.get("/admin/keys", headers=root).get_json()["data"]] == [
        {},
        *[changed["limits"]] * 2,
    ]
    assert [entry.get("limits") for entry in entries(settings)] == [limits, changed["limits"], None]
    for wrong in ({"running_jobs": 1}, {"tokens_per_day": -1}, {"tokens_per_day": 10**16}):
        before = len(client.get("/admin/keys", headers=root).get_json()["data"])
        refused = client.post("/admin/keys", json={"name": "x", "limits": wrong}, headers=root)
        assert (refused.status_code, refused.get_json()["error"]["param"].split(".")[0]) in ((422, "limit"), (422, "limits"))
        assert len(client.get("/admin/keys", headers=root).get_json()["data"]) == before


def test_examples_work_and_answers_match_their_schemas(client: FlaskClient, api_keys: ApiKeys, root: dict[str, str]) -> None:
    operations: list[Operation] = [
        operation for operation in client.application.extensions["openapi"].operations if operation.path.startswith("/admin/keys")
    ]
    assert len(operations) == 6
    for operation in operations:
        for example in operation.examples.values() or [None]:
            path = operation.path.format(key=api_keys.create("example")[0].id)
            body = {} if example is None else {"json": example.body}
            answer = client.open(path, method=operation.method.upper(), headers=root, **body)
            model = operation.replies[answer.status_code].model
            assert model is not None
            model.model_validate_json(answer.text)


def test_bad_rights_are_refused_by_field(client: FlaskClient, root: dict[str, str]) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"scopes": ["all"]}, "scopes.0"),
        ({"scopes": []}, "scopes"),
        ({"models": [""]}, "models.0"),
        ({"collections": ["x"] * 101}, "collections"),
        ({"expires_at": 1}, "expires_at"),
        ({"expires_in": -1}, "expires_in"),
        ({"requests_per_second": 0}, "requests_per_second"),
        ({"owner": "a b"}, "owner"),
        ({"admin": True}, "admin"),
    ]
    for body, param in cases:
        answer = client.post("/admin/keys", json={"name": "app", **body}, headers=root)
        assert (answer.status_code, answer.get_json()["error"]["param"]) == (422, param), answer.text
    both = client.post("/admin/keys", json={"name": "app", "expires_in": 1, "expires_at": 4e9}, headers=root)
    assert "not both" in both.get_json()["error"]["message"]


def test_an_expired_key_is_refused_and_its_streams_end(
    client: FlaskClient, redis_client: redis.Redis, api_keys: ApiKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 1.0)
    monkeypatch.setattr(auth, "VALID_SECONDS", 0.0)
    key, secret = api_keys.create("ada", expires_at=int(time.time() * 1000) + 60_000)
    batch = client.post("/batches", headers=bearer(secret)).get_json()["id"]
    stream = iter(client.get(f"/jobs/{batch}/events", headers=bearer(secret), buffered=False).response)
    assert b"started" in next(stream) + next(stream)
    # A minute passes.
    [(digest, record)] = redis_client.hgetall("eh:keys").items()
    redis_client.hset("eh:keys", digest, json.dumps({**json.loads(record), "expires_at": int(time.time() * 1000) - 1}))
    assert b"ended" not in b"".join(stream)
    refused = client.get("/jobs", headers=bearer(secret))
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (401, "key_expired")
    assert "expired at 20" in refused.get_json()["error"]["message"]
    assert api_keys.find(secret) is None
    client.application.extensions["enginehouse"].transitions.cancel(batch, "ada")
    with pytest.raises(Conflict, match="has expired"):
        api_keys.rotate(key.id, overlap_seconds=0)


def test_a_rotation_without_an_overlap_ends_the_old_key(api_keys: ApiKeys) -> None:
    old, secret = api_keys.create("app", owner="ada", scopes=["chat"])
    new, successor = api_keys.rotate(old.id, overlap_seconds=0)
    assert (api_keys.find(secret), api_keys.find(successor)) == (None, new)
    assert (new.name, new.owner, new.scopes, new.expires_at) == ("app", "ada", ("chat",), None)
    with pytest.raises(InvalidValue, match="overlap"):
        api_keys.rotate(new.id, overlap_seconds=1e9)
    with pytest.raises(NotFound):
        api_keys.rotate("key_x", overlap_seconds=1)


def test_a_change_does_not_undo_a_revocation(api_keys: ApiKeys) -> None:
    key = api_keys.create("app")[0]
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            try:
                api_keys.change(key.id, {"requests_per_second": 7})
            except Conflict:
                return

    threads = [threading.Thread(target=change) for _ in range(4)]
    for thread in threads:
        thread.start()
    api_keys.revoke(key.id)
    for thread in threads:
        thread.join(20)
    stop.set()
    assert api_keys.get(key.id).revoked_at is not None


def test_the_last_use_is_written_once_a_minute(redis_client: redis.Redis, api_keys: ApiKeys, clock: Clock) -> None:
    key, secret = api_keys.create("ada")
    digest = hashlib.sha256(secret.encode()).hexdigest()
    use = partial(OwnerScripts(redis_client, clock=clock).authenticate, digest=digest, requests_per_second=0)
    assert api_keys.last_uses() == {}
    first = clock.now_ms
    for _ in range(3):
        use()
        assert api_keys.last_uses() == {key.id: first}
        clock.advance(29)
    use()
    assert api_keys.last_uses() == {key.id: first + 87_000}
    assert api_keys.remove_all() == 1
    assert api_keys.last_uses() == {}


# The keys file


def write_keys(file: Path, *keys: dict[str, Any]) -> Path:
    file.write_text(json.dumps({"keys": keys}))
    return file


@pytest.fixture
def with_file(settings: Settings, tmp_path: Path) -> Settings:
    return replace(settings, keys_file=tmp_path / "keys.json")


def start(settings: Settings) -> FlaskClient:
    """A process of the API that has just started."""
    app = create_app(settings)
    app.extensions["enginehouse"].authenticator.apply_keys_file()
    return app.test_client()


def test_keys_of_the_file_are_created_changed_and_revoked(with_file: Settings, api_keys: ApiKeys, tmp_path: Path) -> None:
    hashed, file = hashlib.sha256(b"t" * 40).hexdigest(), tmp_path / "keys.json"
    app: dict[str, Any] = {"name": "app", "owner": "ada", "secret": SECRET, **FIELDS, "expires_at": "2100-01-01T00:00:00Z"}
    monitor = {"name": "monitor", "sha256": hashed, "scopes": ["metrics"]}
    write_keys(file, app, monitor)
    client = start(with_file)
    assert client.get("/me", headers=bearer(SECRET)).get_json()["rights"]["models"] == ["a", "b"]
    assert client.get("/me", headers=bearer("t" * 40)).get_json()["owner"] == "monitor"
    assert client.get("/me").status_code == 401, "the server is closed"
    before = api_keys.list_keys()
    start(with_file)
    assert api_keys.list_keys() == before, "another process changes nothing"
    write_keys(file, {**app, "models": None})
    client = start(with_file)
    assert client.get("/me", headers=bearer(SECRET)).get_json()["rights"]["models"] is None
    assert client.get("/me", headers=bearer("t" * 40)).status_code == 401
    assert {key.id for key in api_keys.list_keys()} == {key.id for key in before}
    [mine] = [key for key in before if key.name == "app"]
    with pytest.raises(Conflict, match="from the keys file"):
        api_keys.rotate(mine.id, overlap_seconds=0)
    api_keys.revoke(mine.id)
    assert start(with_file).get("/me", headers=bearer(SECRET)).status_code == 401, "a restart does not undo it"
    assert [(entry["action"], entry["user"]) for entry in entries(with_file)] == [
        *[("key.create", "keys file")] * 2,
        ("key.change", "keys file"),
        ("key.revoke", "keys file"),
    ]
    assert SECRET not in json.dumps(entries(with_file))


def test_keys_that_the_file_does_not_have_are_left_alone(with_file: Settings, api_keys: ApiKeys, tmp_path: Path) -> None:
    key = api_keys.create("laptop")[0]
    write_keys(tmp_path / "keys.json")
    start(with_file)
    assert api_keys.get(key.id).revoked_at is None


def test_processes_that_start_together_create_one_key(with_file: Settings, api_keys: ApiKeys, tmp_path: Path) -> None:
    write_keys(tmp_path / "keys.json", {"name": "app", "secret": SECRET})
    applications = [create_app(with_file) for _ in range(3)]
    threads = [threading.Thread(target=app.extensions["enginehouse"].authenticator.apply_keys_file) for app in applications]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [key.name for key in api_keys.list_keys()] == ["app"]
    assert len(entries(with_file)) == 1


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"secret": SECRET}, "name: use 1 to 63"),
        ({"name": "a"}, "secret: give secret or sha256"),
        ({"name": "a", "secret": SECRET, "sha256": "0" * 64}, "secret: give secret or sha256"),
        ({"name": "a", "secret": "short"}, "secret: must be 32 to 512"),
        ({"name": "a", "sha256": "X" * 64}, "sha256: must be 64 digits"),
        ({"name": "a", "secret": SECRET, "scopes": ["root"]}, "scopes: must be of generate"),
        ({"name": "a", "secret": SECRET, "scopes": "chat"}, "scopes: must be a list of strings"),
        ({"name": "a", "secret": SECRET, "expires_at": "2030-01-01"}, "expires_at: name the time zone"),
        ({"name": "a", "secret": SECRET, "expires_at": True}, "expires_at: must be Unix seconds"),
        ({"name": "a", "secret": SECRET, "requests_per_second": 0}, "requests_per_second: must be an integer"),
        ({"name": "a", "secret": SECRET, "model": "x"}, "model: is not a field of a key"),
        ("a", "name: an entry must be an object"),
    ],
)
def test_a_bad_entry_stops_the_server_without_a_word_of_its_secret(tmp_path: Path, entry: Any, problem: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read_keys_file(write_keys(tmp_path / "keys.json", entry))
    assert f"keys[0].{problem}" in str(raised.value)
    assert "short" not in str(raised.value)
    assert SECRET not in str(raised.value)


def test_a_keys_file_that_cannot_be_read_stops_the_server(tmp_path: Path, settings: Settings) -> None:
    for content, problem in (
        (None, "cannot be read"),
        ("[", "must be JSON"),
        ("[]", "must be JSON"),
        ('{"keys": 1}', "must be JSON"),
    ):
        file = tmp_path / "keys.json"
        if content is not None:
            file.write_text(content)
        with pytest.raises(SettingsError, match=problem):
            create_app(replace(settings, keys_file=file))
    command = [sys.executable, "-m", "cli.main", "api", "--data", str(tmp_path)]
    environment = {**os.environ, "ENGINEHOUSE_KEYS_FILE": str(file)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "must be JSON" in done.stderr) == (2, True), done.stderr
    twice = {"name": "a", "secret": SECRET}
    with pytest.raises(SettingsError, match="there twice"):
        read_keys_file(write_keys(file, twice, twice))


# Commands


def test_the_command_changes_shows_and_rotates(
    api_keys: ApiKeys, redis_client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    key = api_keys.create("app", owner="ada", models=["a"])[0]
    options = key_options(scopes=["chat", "search"], models=None, collections=["c"], expires="90d", requests_per_second=None)
    change_key(redis_client, key.id, name="web", options=options, clear=["models"], out=Output(as_json=True))
    shown = json.loads(capsys.readouterr().out)
    assert (shown["name"], shown["scopes"], shown["models"], shown["collections"]) == ("web", ["chat", "search"], None, ["c"])
    assert abs(shown["expires_at"] - time.time() - 90 * 86400) < 60
    rotate_key(redis_client, key.id, overlap="2h", out=Output(as_json=True))
    created = json.loads(capsys.readouterr().out)
    assert api_keys.find(created["key"]) == api_keys.get(created["id"])
    show_key(redis_client, key.id, out=Output(as_json=False))
    lines = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert (lines["scopes"], lines["models"], lines["collections"], lines["state"]) == ("chat, search", "all", "c", "active")
    for wrong in ("soon", "5 apples"):
        with pytest.raises(CommandError, match="such as 90d"):
            parse_expiry(wrong)
    with pytest.raises(CommandError, match="Nothing to change"):
        change_key(redis_client, key.id, name=None, options={}, clear=[], out=Output(as_json=True))


# The audit log


def test_a_key_after_the_loss_of_redis_is_not_called_the_first(
    redis_client: redis.Redis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = ClosedMarker(tmp_path)

    def note() -> str:
        create_key(redis_client, marker, "ada", owner="", admin=False, requests_per_second=None, out=Output(as_json=True))
        return capsys.readouterr().err

    assert "This is the first key" in note()
    assert note() == ""
    redis_client.flushdb()
    assert "were lost with its data" in note()
    assert note() == ""


@pytest.fixture
def log(settings: Settings) -> AuditLog:
    return AuditLog(settings.audit_file, max_bytes=2000)


def test_only_the_server_can_read_the_audit_log(settings: Settings, log: AuditLog) -> None:
    log.record("key.create", Actor(user="ada"), targets=["x" * 999])
    file = settings.audit_file
    assert file is not None
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert len(entries(settings)[0]["targets"][0]) == 200


def test_many_writers_lose_and_mix_no_line(settings: Settings) -> None:
    """Each has its own log, as processes have; the file is renamed several times meanwhile."""

    def write(writer: int) -> None:
        log = AuditLog(settings.audit_file, max_bytes=4000)
        for number in range(20):
            log.record("job.delete", Actor(user=str(writer)), targets=[str(number)])

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert settings.audit_file is not None
    files = sorted(settings.audit_file.parent.glob("audit.jsonl*"))
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert len(files) > 2
    assert len({(line["user"], line["targets"][0]) for line in lines}) == len(lines) == 160


def test_old_audit_logs_are_deleted(settings: Settings) -> None:
    log = AuditLog(settings.audit_file, max_bytes=1)
    for number in range(OLD_FILES + 5):
        log.record("job.delete", Actor(user="ada"), targets=[str(number)])
    assert settings.audit_file is not None
    assert len(list(settings.audit_file.parent.iterdir())) == OLD_FILES + 1


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    AuditLog(tmp_path / "file" / "audit.jsonl").record("key.create", Actor(user="ada"), targets=["key_1"])
    assert "key_1" in caplog.text, "the line is in the log of the process"
    assert Settings(audit_log="off").audit_file is None
    AuditLog(None).record("key.create", Actor(user="ada"))


def test_refused_and_local_calls_are_recorded_and_reads_are_not(client: FlaskClient, settings: Settings) -> None:
    client.delete("/collections/missing")
    client.get("/admin/queues")
    client.put("/admin/queues/cpu", json={"paused": True})
    client.put("/admin/queues/cpu", json={"paused": False})
    client.post("/webhooks/secret/rotate")
    client.post("/admin/dead-letters/job_x/replay", headers={"x-request-id": "mine"})
    client.post("/jobs/actions", json={"action": "delete", "filter": {"q": "private words"}})
    recorded = [(entry["action"], entry["targets"], entry["outcome"]) for entry in entries(settings)]
    assert recorded == [
        ("collection.delete", ["missing"], "not_found"),
        ("queue.pause", ["cpu"], "done"),
        ("queue.pause", ["cpu"], "done"),
        ("webhook_secret.rotate", [], "done"),
        ("dead_letter.replay", ["job_x"], "job_not_found"),
        ("jobs.change", [], "done"),
    ]
    assert [entry.get("paused") for entry in entries(settings)[1:3]] == [True, False]
    assert entries(settings)[4]["request_id"] == "mine"
    assert "private" not in json.dumps(entries(settings))
    assert "whsec" not in json.dumps(entries(settings))


def test_single_deletions_retries_and_restorations_are_recorded(client: FlaskClient, settings: Settings) -> None:
    calls = [
        ("job.delete", client.delete("/jobs/job_x")),
        ("job.retry", client.post("/jobs/job_x/retry")),
        ("document.restore", client.post("/documents/doc_x/restore")),
        ("session.delete", client.delete("/chat/sessions/talk")),
        ("session.restore", client.post("/chat/sessions/talk/restore")),
        ("collection.restore", client.post("/collections/missing/restore")),
        ("conversation.delete", client.delete("/v1/conversations/conv_x")),
        ("conversation_item.delete", client.delete("/v1/conversations/conv_x/items/msg_x")),
        ("response.delete", client.delete("/v1/responses/resp_x")),
        ("delivery.redeliver", client.post("/deliveries/del_x/redeliver")),
    ]
    recorded = [(entry["action"], entry["outcome"]) for entry in entries(settings)]
    assert recorded == [(action, answer.get_json()["error"]["code"]) for action, answer in calls]


def test_every_call_of_an_administrator_and_every_deletion_and_restoration_is_recorded(client: FlaskClient) -> None:
    rules = [
        rule for rule in client.application.url_map.iter_rules() if (rule.methods or set()) & {"POST", "PUT", "PATCH", "DELETE"}
    ]
    grave = {
        rule.endpoint
        for rule in rules
        if "DELETE" in (rule.methods or ())
        or rule.rule.startswith("/admin/")
        or rule.rule.endswith(("/restore", "/replay", "/retry"))
    }
    assert grave - set(ACTIONS) == set()
    assert set(ACTIONS) <= {rule.endpoint for rule in client.application.url_map.iter_rules()}


def test_a_stranger_cannot_fill_the_audit_log(client: FlaskClient, root: dict[str, str], settings: Settings) -> None:
    assert root
    for headers in ({}, bearer("eh_unknown")):
        assert client.delete("/admin/keys/key_x", headers=headers).status_code == 401
    assert entries(settings) == []


def test_commands_are_recorded_with_their_user(settings: Settings) -> None:
    with audited(settings, "owner.set", "ada", weight=2, limits=None):
        pass
    with pytest.raises(NotFound), audited(settings, "dead_letter.drop", "job_1"):
        raise NotFound("The job does not exist.", code="job_not_found")
    with pytest.raises(CommandError), audited(settings, "backup.create", "/tmp/x"):
        raise CommandError("no")
    recorded = entries(settings)
    assert [(entry["action"], entry["outcome"]) for entry in recorded] == [
        ("owner.set", "done"),
        ("dead_letter.drop", "job_not_found"),
        ("backup.create", "failed"),
    ]
    with audited(replace(settings, data_dir=settings.data_dir / "missing"), "backup.restore"):
        pass
    assert not (settings.data_dir / "missing").exists()
    assert recorded[0]["weight"] == 2
    assert "limits" not in recorded[0]
    assert recorded[0]["user"]


def test_every_scope_is_in_the_request_model() -> None:
    from typing import get_args

    from api.schemas.requests.keys import Scope

    assert get_args(Scope) == SCOPES
