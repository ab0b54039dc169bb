"""An owner learns nothing of another, and a revoked key ends what it had opened."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import redis
from flask.testing import FlaskClient

from api import auth, event_stream
from api.app import create_app
from shared.jobs.models import Status
from shared.jobs.submission import Submission
from shared.owners.limits import OwnerLimits
from shared.owners.store import ApiKeys
from shared.settings import Settings

Keys = Callable[[str], dict[str, str]]


def test_each_owner_has_session_ids_of_its_own(client: FlaskClient, key_of: Keys) -> None:
    ada, bob = key_of("ada"), key_of("bob")
    for session in ("support", "support:messages", "bob:support", "../support", "a" * 200, "ß\u202e"):
        for key in (ada, bob):
            answer = client.post("/chat/start", json={"sessionId": session}, headers=key)
            assert (answer.status_code, answer.get_json()["messages"]) == (200, [])
    client.delete("/chat/session/support", headers=ada)
    assert client.get("/chat/history/support", headers=ada).status_code == 404
    assert client.get("/chat/history/support", headers=bob).status_code == 200


def test_no_session_takes_the_place_of_the_messages_of_another(client: FlaskClient, key_of: Keys) -> None:
    ada = key_of("ada")
    names = ("visit", "visit:messages")
    for session in names:
        client.post("/chat/start", json={"sessionId": session}, headers=ada)
    services = client.application.extensions["enginehouse"]
    submission = Submission(kind="generate", queue="q", spec={"message": "hello"}, owner="ada", session="visit")
    job = services.submitter.submit_job(submission).id
    assert services.transitions.claim("q", "w", "t") is not None
    services.transitions.finish((job, 1), Status.COMPLETED, messages=[{"role": "assistant", "content": "hi", "timestamp": "now"}])
    messages = [client.get(f"/chat/history/{name}", headers=ada).get_json()["messages"] for name in names]
    assert [[message["content"] for message in found] for found in messages] == [["hello", "hi"], []]


def test_a_job_of_another_owner_is_answered_as_fast_as_one_that_does_not_exist(client: FlaskClient, key_of: Keys) -> None:
    ada, bob = key_of("ada"), key_of("bob")
    batch = client.post("/batches", headers=ada).get_json()["id"]
    unknown = batch[:-1] + ("0" if batch[-1] != "0" else "1")
    answers = []
    for job in (batch, unknown):
        for path in (f"/jobs/{job}?wait=5", f"/jobs/{job}/events"):
            started = time.monotonic()
            answer = client.get(path, headers=bob)
            assert time.monotonic() - started < 4, "a wait takes five seconds"
            answers.append((answer.status_code, answer.get_json()["error"]["message"].replace(job, "")))
    assert len(set(answers)) == 1
    client.post(f"/jobs/{batch}/cancel", headers=ada)


@pytest.mark.parametrize("first_key", [False, True], ids=["revoked", "first key"])
def test_an_open_stream_ends_with_the_right_to_read_it(
    settings: Settings, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, first_key: bool
) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 1.0)
    monkeypatch.setattr(auth, "VALID_SECONDS", 0.0)
    keys, client = ApiKeys(redis_client), create_app(settings).test_client()
    key, secret = (None, "") if first_key else keys.create("ada")
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    batch = client.post("/batches", headers=headers).get_json()["id"]
    stream = iter(client.get(f"/jobs/{batch}/events", headers=headers, buffered=False).response)
    assert b"retry" in next(stream)
    assert b"started" in next(stream)
    assert next(stream) == b": keep-alive\n\n"
    if key is None:
        keys.create("ada")
    else:
        keys.revoke(key.id)
    client.application.extensions["enginehouse"].transitions.cancel(batch, "local" if first_key else "ada")
    assert list(stream) == [], "neither an event nor a sign of life"


def test_a_second_key_keeps_the_weight_of_its_owner(redis_client: redis.Redis, key_of: Keys) -> None:
    limits = OwnerLimits(redis_client)
    limits.set_weight("ada", 4)
    limits.set_limits("ada", {"documents": 7})
    for _ in range(2):
        key_of("ada")
    assert (limits.weight("ada"), limits.limits("ada")) == (4, {"documents": 7})


def test_responses_are_not_stored_and_keep_their_type(settings: Settings, redis_client: redis.Redis, key_of: Keys) -> None:
    client, key = create_app(replace(settings)).test_client(), key_of("ada")
    for path in ("/jobs", "/nothing", "/collections", "/health/live", "/openapi.json", "/"):
        headers = client.get(path, headers=key).headers
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert headers["Cache-Control"] == ("no-cache" if path in ("/", "/openapi.json") else "no-store"), path


@pytest.mark.parametrize("number", ["²", "٣", "9" * 5000, "1_0", "+1", " ", "-1", "1e3", "½"])
@pytest.mark.parametrize("header", ["Prefer", "Last-Event-ID"])
def test_a_number_in_a_header_is_ascii_and_short(client: FlaskClient, header: str, number: str) -> None:
    batch = client.post("/batches").get_json()["id"]
    path = f"/jobs/{batch}" if header == "Prefer" else f"/jobs/{batch}/events"
    value = (f"wait={number}" if header == "Prefer" else number).encode("utf-8").decode("latin-1")
    answer = client.get(path, headers={header: value})
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (422, header)
    assert len(answer.get_json()["error"]["message"]) < 300
    client.post(f"/jobs/{batch}/cancel")


@pytest.mark.parametrize("suffix", ["²", ":events", "%0A", "%00", "0", "🙂", "٣"])
def test_an_id_with_a_suffix_is_not_found(client: FlaskClient, suffix: str) -> None:
    batch = client.post("/batches").get_json()["id"]
    # The id may end with the suffix itself.
    end = suffix if suffix != batch[-1] else "1"
    for path in (f"/jobs/{batch}{suffix}", f"/jobs/{batch[:-1]}{end}", f"/documents/doc_{batch[4:]}{suffix}"):
        assert client.get(path).status_code == 404, path
    client.post(f"/jobs/{batch}/cancel")
