"""API keys are required once the first one exists, and owners cannot reach each other's objects."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from testing.process_forks import run_command
from testing.stack import QUICK, Stack


def command(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command([*arguments, "--data", str(stack.data)], environment=stack.environment)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("guarded"), environment=QUICK)
    try:
        yield stack.start()
    finally:
        stack.kill()


@pytest.fixture(scope="module")
def keys(guarded: Stack) -> dict[str, dict[str, Any]]:
    """Keys of Ada, Bob and an administrator, created with the command."""
    before = guarded.ended(guarded.generate("before there was a key")["id"])
    assert before["status"] == "completed"
    made = {
        "ada": command(guarded, "keys", "create", "--name", "ada", "--json"),
        "bob": command(guarded, "keys", "create", "--name", "bob", "--json"),
        "root": command(guarded, "keys", "create", "--name", "root", "--owner", "local", "--admin", "--json"),
    }
    return {name: json.loads(done.stdout) for name, done in made.items()}


def bearer(keys: dict[str, dict[str, Any]], name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {keys[name]['key']}"}


def test_the_command_shows_a_key_once(guarded: Stack, keys: dict[str, dict[str, Any]]) -> None:
    assert set(keys["ada"]) >= {"id", "name", "owner", "scopes", "admin", "key"}
    listed = command(guarded, "keys", "list", "--json").stdout
    assert keys["ada"]["id"] in listed
    assert keys["ada"]["key"] not in listed
    assert keys["ada"]["key"] not in guarded.log.read_text()


def test_commands_are_in_the_audit_log_of_the_stack(guarded: Stack, keys: dict[str, dict[str, Any]]) -> None:
    command(guarded, "keys", "change", keys["bob"]["id"], "--expires", "1d")
    file = guarded.data / "log" / "audit.jsonl"
    recorded = [json.loads(line) for line in file.read_text().splitlines()]
    changed = [(entry["action"], entry["targets"]) for entry in recorded if entry["outcome"] == "done"]
    assert ("key.create", [keys["ada"]["id"]]) in changed
    assert ("key.change", [keys["bob"]["id"]]) in changed
    assert not any(key["key"] in file.read_text() for key in keys.values())


def test_without_a_key_only_health_is_open(guarded: Stack, keys: dict[str, dict[str, Any]]) -> None:
    assert guarded.client.get("/health/ready").status_code == 200
    for path in ("/jobs", "/models", "/collections"):
        answer = guarded.client.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "key_missing")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    wrong = guarded.client.get("/jobs", headers={"Authorization": "Bearer eh_nonsense"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "key_unknown")


def test_objects_of_another_owner_are_not_found(guarded: Stack, keys: dict[str, dict[str, Any]]) -> None:
    client, ada, bob = guarded.client, bearer(keys, "ada"), bearer(keys, "bob")
    job = guarded.post("/generate", {"prompt": "secret"}, Prefer="wait=30", **ada).json()["id"]
    session = guarded.post("/chat/start", {"message": "hi"}, **ada).json()["sessionId"]
    uploaded = client.post("/collections/mine/documents", files={"file": ("a.txt", b"secret text")}, headers=ada).json()
    document = uploaded["data"][0]["id"]
    turns = f"/chat/sessions/{session}/turns"
    paths = [f"/jobs/{job}", f"/chat/history/{session}", turns, f"/documents/{document}", "/collections/mine/documents"]
    assert [client.get(path, headers=ada).status_code for path in paths] == [200] * 5
    assert [client.get(path, headers=bob).status_code for path in paths] == [404] * 5
    assert client.post(f"/jobs/{job}/cancel", headers=bob).status_code == 404
    assert client.delete(f"/jobs/{job}", headers=bob).status_code == 404
    for page in ("file", "pages/1.png", "pages/1/text"):
        assert client.get(f"/documents/{document}/{page}", headers=bob).status_code == 404
    assert client.delete(f"/documents/{document}", headers=bob).status_code == 404
    assert client.delete(f"/documents/{document}?permanent=true", headers=bob).status_code == 404
    assert client.delete(f"/documents/{document}", headers=ada).status_code == 200
    assert client.post(f"/documents/{document}/restore", headers=bob).status_code == 404
    assert client.post(f"/documents/{document}/restore", headers=ada).status_code == 200
    assert guarded.post("/chat/message", {"sessionId": session, "message": "x"}, **bob).status_code == 404
    [turn] = client.get(turns, headers=ada).json()["data"]
    assert guarded.post(f"{turns}/{turn['id']}/regenerate", {}, **bob).status_code == 404
    assert client.patch(f"/chat/sessions/{session}", json={"title": "mine"}, headers=bob).status_code == 404
    assert client.delete(f"/chat/sessions/{session}", headers=bob).status_code == 404
    assert [entry["id"] for entry in client.get("/chat/sessions?q=hi", headers=ada).json()["data"]] == [session]
    assert client.get("/chat/sessions?q=hi", headers=bob).json()["data"] == []
    assert client.delete(f"/chat/sessions/{session}", headers=ada).status_code == 200
    assert client.post(f"/chat/sessions/{session}/restore", headers=bob).status_code == 404
    assert client.get("/jobs", headers=bob).json()["data"] == []


def test_jobs_from_before_the_first_key_belong_to_local(guarded: Stack, keys: dict[str, dict[str, Any]]) -> None:
    seen = guarded.client.get("/jobs", headers=bearer(keys, "root")).json()["data"]
    assert "before there was a key" in [job["summary"] for job in seen]


def test_only_an_administrator_may_list_dead_letters(guarded: Stack, keys: dict[str, dict[str, Any]]) -> None:
    assert guarded.client.get("/admin/dead-letters", headers=bearer(keys, "root")).json()["data"] == []
    refused = guarded.client.get("/admin/dead-letters", headers=bearer(keys, "ada"))
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")


def test_a_revoked_key_stops_working_at_once(guarded: Stack, keys: dict[str, dict[str, Any]]) -> None:
    made = json.loads(command(guarded, "keys", "create", "--name", "short", "--json").stdout)
    header = {"Authorization": f"Bearer {made['key']}"}
    assert guarded.client.get("/jobs", headers=header).status_code == 200
    assert command(guarded, "keys", "revoke", made["id"]).returncode == 0
    assert guarded.client.get("/jobs", headers=header).status_code == 401
    assert "was already revoked" in command(guarded, "keys", "revoke", made["id"]).stdout
    assert command(guarded, "keys", "revoke", "key_nope").returncode == 1


def test_only_removing_all_keys_opens_the_server_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    stack = Stack(tmp_path_factory.mktemp("reopened"), environment=QUICK)
    try:
        stack.start()
        job = stack.generate("before")["id"]
        made = command(stack, "keys", "create", "--name", "ada", "--json")
        assert "from now on, every call needs a key" in made.stderr
        assert "The server stays closed" in command(stack, "keys", "revoke", json.loads(made.stdout)["id"]).stdout
        assert stack.client.get("/jobs").status_code == 401
        assert redis.Redis.from_url(stack.redis_url()).delete("eh:keys") == 1
        assert stack.client.get("/jobs").status_code == 401
        assert command(stack, "keys", "create", "--name", "bob").returncode == 0
        assert "Removed 1 key." in command(stack, "keys", "remove-all", "--yes").stdout
        assert stack.stop() == 0
        stack.start()
        assert stack.job(job)["id"] == job
    finally:
        stack.kill()


def test_a_command_without_a_stack_names_the_next_step(tmp_path_factory: pytest.TempPathFactory, guarded: Stack) -> None:
    folder = tmp_path_factory.mktemp("empty")
    done = run_command(["keys", "list", "--data", str(folder)], environment=guarded.environment)
    assert done.returncode == 2
    assert "enginehouse up" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_sends_its_key(guarded: Stack, keys: dict[str, dict[str, Any]]) -> None:
    def jobs(**environment: str) -> subprocess.CompletedProcess[str]:
        return run_command(["jobs", "--data", str(guarded.data)], environment=guarded.environment | environment)

    refused = jobs()
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "Send an API key" in refused.stderr
    assert jobs(ENGINEHOUSE_API_KEY=keys["ada"]["key"]).returncode == 0
    assert command(guarded, "jobs", "--key", keys["ada"]["key"]).returncode == 0
