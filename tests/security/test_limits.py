"""Quotas and rates of owners are exact with many clients at once, and their errors name the quota and its limit."""

import io
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import redis
from flask import Flask, g
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from api.caller import Caller
from api.request_slots import RequestSlots
from cli.admin.owners import list_owners, set_owner
from cli.errors import CommandError
from cli.output import Output
from shared.errors import InvalidValue, QuotaExceeded, TooMany, Unavailable
from shared.jobs.submission import Submission
from shared.owners.limits import OwnerLimits
from shared.owners.store import ApiKeys
from shared.settings import OWNER_LIMITS, Settings
from tests.conftest import Clock, JobSystem

Keys = Callable[[str], dict[str, str]]
CLIENTS = 50


@pytest.fixture
def app(settings: Settings, redis_client: redis.Redis) -> Flask:
    """An application with low limits."""
    low = replace(settings, max_documents=3, max_stored_bytes=100, max_collections=4, max_sessions=5, max_open_batches=6)
    return create_app(replace(low, max_queued_per_owner=7, max_requests_per_second=0))


def at_once(calls: int, call: Callable[[int], TestResponse]) -> Counter[int]:
    """Make calls from many threads; returns how often each status was returned."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        return Counter(answer.status_code for answer in pool.map(call, range(calls)))


def create(app: Flask, what: str, number: int, key: dict[str, str]) -> TestResponse:
    client = app.test_client()
    if what == "documents":
        files = {"file": (io.BytesIO(b"%d" % number), f"{number}.txt")}
        return client.post("/collections/papers/documents", data=files, headers=key)
    path, body = {
        "collections": ("/collections", {"name": f"c{number}"}),
        "sessions": ("/chat/start", {"sessionId": f"s{number}"}),
        "open_batches": ("/batches", {}),
    }[what]
    return client.post(path, json=body, headers=key)


@pytest.mark.parametrize(("quota", "limit"), [("documents", 3), ("collections", 4), ("sessions", 5), ("open_batches", 6)])
def test_a_quota_is_exact_with_many_clients_and_belongs_to_one_owner(app: Flask, key_of: Keys, quota: str, limit: int) -> None:
    ada, bob = key_of("ada"), key_of("bob")
    statuses = at_once(CLIENTS, lambda number: create(app, quota, number, ada))
    assert statuses[409] == CLIENTS - limit, statuses
    refused = create(app, quota, CLIENTS, ada)
    error = refused.get_json()["error"]
    assert (refused.status_code, error["code"], error["quota"], error["limit"]) == (409, "quota_exceeded", quota, limit)
    assert refused.headers["x-should-retry"] == "false"
    assert create(app, quota, 0, bob).status_code < 300


def test_refused_uploads_leave_no_batch_open(app: Flask, key_of: Keys, redis_client: redis.Redis) -> None:
    key = key_of("ada")
    answers = [create(app, "documents", number, key) for number in range(12)]
    assert [answer.get_json()["error"]["quota"] for answer in answers[3:]] == ["documents"] * 9
    assert redis_client.scard("eh:owner:ada:open_batches") == 0


def test_stored_bytes_are_limited_and_deleting_frees_them(app: Flask, key_of: Keys) -> None:
    client, key = app.test_client(), key_of("ada")

    def upload(content: bytes) -> TestResponse:
        return client.post("/collections/papers/documents", data={"file": (io.BytesIO(content), "a.txt")}, headers=key)

    first = upload(b"a" * 60).get_json()["data"][0]["id"]
    refused = upload(b"b" * 41)
    assert refused.get_json()["error"] | {"message": ""} == {
        "code": "quota_exceeded",
        "message": "",
        "param": None,
        "type": "invalid_request_error",
        "quota": "stored_bytes",
        "limit": 100,
    }
    assert upload(b"a" * 60).status_code in (200, 202), "the same bytes are stored once"
    assert upload(b"b" * 40).status_code == 202
    services = app.extensions["enginehouse"]
    documents = services.documents
    assert len(list(services.settings.documents_dir.iterdir())) == 2, "the file of a refused document is not kept"
    collection = documents.find_collection("ada", "papers")
    assert documents.remove(first, collection.id)
    assert upload(b"c" * 60).status_code == 202


def test_closed_batches_and_deleted_sessions_do_not_count(app: Flask, key_of: Keys) -> None:
    client, key = app.test_client(), key_of("ada")
    batches = [create(app, "open_batches", number, key).get_json()["id"] for number in range(6)]
    assert create(app, "open_batches", 6, key).status_code == 409
    client.post(f"/jobs/{batches[0]}/seal", headers=key)
    client.post(f"/jobs/{batches[1]}/cancel", headers=key)
    assert [create(app, "open_batches", number, key).status_code for number in range(3)] == [201, 201, 409]
    for number in range(5):
        create(app, "sessions", number, key)
    assert create(app, "sessions", 0, key).status_code == 200, "an existing session is continued"
    client.delete("/chat/session/s0", headers=key)
    assert [create(app, "sessions", number, key).status_code for number in (7, 8)] == [200, 409]
    for batch in client.get("/jobs", headers=key).get_json()["data"]:
        client.post(f"/jobs/{batch['id']}/cancel", headers=key)


def test_expired_sessions_do_not_count(settings: Settings, redis_client: redis.Redis) -> None:
    from shared.sessions.store import Sessions

    sessions = Sessions(redis_client, replace(settings, session_seconds=60, max_sessions=1))
    sessions.open("a", "ada")
    with pytest.raises(QuotaExceeded):
        sessions.open("b", "ada")
    [(member, expires_at)] = redis_client.zrange("eh:owner:ada:sessions", 0, -1, withscores=True)
    redis_client.zadd("eh:owner:ada:sessions", {member: expires_at - 61_000})
    sessions.open("b", "ada")


def test_queued_jobs_have_a_limit_for_each_owner(system: JobSystem) -> None:
    OwnerLimits(system.client).set_limits("ada", {"queued_jobs": 2})

    def submit(owner: str) -> None:
        system.submitter.submit_job(Submission(kind="generate", queue="gpu.m", spec={}, owner=owner))

    for owner in ("ada", "ada", "bob", "bob", "bob"):
        submit(owner)
    with pytest.raises(TooMany) as refusal:
        submit("ada")
    assert (refusal.value.code, refusal.value.details) == ("owner_full", {"limit": 2})


def test_requests_above_the_rate_are_told_when_to_return(settings: Settings, redis_client: redis.Redis, key_of: Keys) -> None:
    app = create_app(replace(settings, max_requests_per_second=20))
    ada, second, bob = key_of("ada"), key_of("ada"), key_of("bob")
    started = time.monotonic()
    statuses = at_once(3 * CLIENTS, lambda number: app.test_client().get("/jobs", headers=(ada, second)[number % 2]))
    # Twice the rate at once, and the rate for as long as the calls took.
    assert 40 <= statuses[200] <= 41 + 20 * (time.monotonic() - started)
    while (refused := app.test_client().get("/jobs", headers=ada)).status_code == 200:
        pass
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (429, "rate_limited")
    assert 1 <= int(refused.headers["Retry-After"]) <= 2
    assert app.test_client().get("/jobs", headers=bob).status_code == 200


def test_a_rate_is_exact(redis_client: redis.Redis, clock: Clock) -> None:
    import hashlib

    from shared.owners.scripts import OwnerScripts

    _, secret = ApiKeys(redis_client).create("ada")
    scripts, digest = OwnerScripts(redis_client, clock=clock), hashlib.sha256(secret.encode()).hexdigest()

    def allowed() -> int:
        return sum(scripts.authenticate(digest=digest, requests_per_second=3)[1] == 0 for _ in range(20))

    assert allowed() == 6
    assert scripts.authenticate(digest=digest, requests_per_second=3)[1] == 334
    clock.advance(1)
    assert allowed() == 3
    clock.advance(10)
    assert allowed() == 6


def test_a_key_may_have_a_lower_rate_than_its_owner(settings: Settings, redis_client: redis.Redis) -> None:
    client = create_app(settings).test_client()
    keys = ApiKeys(redis_client)
    slow, fast = ({"Authorization": f"Bearer {keys.create('ada', requests_per_second=rate)[1]}"} for rate in (1, None))
    assert [client.get("/jobs", headers=slow).status_code for _ in range(4)] == [200, 200, 429, 429]
    assert client.get("/jobs", headers=fast).status_code == 200


def test_limits_of_one_owner_replace_the_settings(app: Flask, redis_client: redis.Redis, key_of: Keys) -> None:
    key, limits = key_of("ada"), OwnerLimits(redis_client)
    limits.set_limits("ada", {"sessions": 1})
    assert [create(app, "sessions", number, key).status_code for number in range(2)] == [200, 409]
    limits.set_limits("ada", {"sessions": 0})
    assert at_once(10, lambda number: create(app, "sessions", number, key)) == {200: 10}
    limits.set_limits("ada", {"sessions": None})
    assert create(app, "sessions", 20, key).status_code == 409
    assert limits.limits("ada") == {}


def test_the_command_sets_and_lists_limits(redis_client: redis.Redis, capsys: pytest.CaptureFixture[str]) -> None:
    set_owner(redis_client, "ada", weight=2.5, limits=["documents=7", "streams=1"])
    assert capsys.readouterr().out == "Owner ada has weight 2.5 and the limits documents=7, streams=1.\n"
    set_owner(redis_client, "ada", weight=None, limits=["documents=default"])
    assert "weight 2.5 and the limits streams=1." in capsys.readouterr().out
    list_owners(redis_client, out=Output(as_json=True))
    assert '"streams": 1' in capsys.readouterr().out
    for wrong in ("documents", "documents=-1", "documents=²"):
        with pytest.raises(CommandError, match="NAME=NUMBER"):
            set_owner(redis_client, "ada", weight=None, limits=[wrong])
    with pytest.raises(InvalidValue, match="must be one of requests_per_second"):
        set_owner(redis_client, "ada", weight=9, limits=["pages=1"])
    assert OwnerLimits(redis_client).weight("ada") == 2.5, "an error changes nothing"
    with pytest.raises(InvalidValue, match="owner"):
        set_owner(redis_client, "a:b", weight=1, limits=[])


def test_every_limit_has_a_setting() -> None:
    settings = Settings()
    assert all(isinstance(getattr(settings, field), int) for field in OWNER_LIMITS.values())


# Places of an API process, which waiting requests and event streams occupy.


def test_no_owner_takes_the_last_slots() -> None:
    slots, held = RequestSlots(100), Counter[str]()
    for owner in ("ada", "bob", "eve", "dan"):
        with suppress(TooMany):
            while True:
                slots.acquire(owner, "streams", 1000)
                held[owner] += 1
    assert held == {"ada": 50, "bob": 25, "eve": 13, "dan": 6}
    slots.acquire("new", "waits", 1000)


def test_an_owner_has_a_limit_for_each_use() -> None:
    slots = RequestSlots(100)
    for use in ("streams", "waits"):
        for _ in range(3):
            slots.acquire("ada", use, 3)
        with pytest.raises(TooMany):
            slots.acquire("ada", use, 3)
    slots.release("ada", "waits")
    slots.acquire("ada", "waits", 3)


def test_a_single_owner_may_take_all_slots() -> None:
    slots = RequestSlots(10)
    for _ in range(10):
        slots.acquire("local", "waits", None)
    with pytest.raises(Unavailable):
        slots.acquire("local", "waits", None)


def test_idle_streams_of_one_owner_leave_slots_for_others(settings: Settings, redis_client: redis.Redis, key_of: Keys) -> None:
    app = create_app(replace(settings, api_threads=20))
    ada, bob = key_of("ada"), key_of("bob")
    client: FlaskClient = app.test_client()
    batch = client.post("/batches", headers=ada).get_json()["id"]
    streams = [client.get(f"/jobs/{batch}/events", headers=ada) for _ in range(12)]
    assert Counter(stream.status_code for stream in streams) == {200: 8, 429: 4}
    other = client.post("/batches", headers=bob).get_json()["id"]
    assert client.get(f"/jobs/{other}?wait=1", headers=bob).status_code == 200
    for stream in streams:
        stream.close()
    with app.test_request_context():
        g.caller = Caller(owner="ada")
        acquired: list[Any] = [app.extensions["enginehouse"].job_waiter.acquire_slot("streams") for _ in range(8)]
        assert len(acquired) == 8, "closed streams have released their slots"
    for job, key in ((batch, ada), (other, bob)):
        client.post(f"/jobs/{job}/cancel", headers=key)
