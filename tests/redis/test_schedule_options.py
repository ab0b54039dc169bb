"""When a generation may start, and how long its job is kept, as its client asks."""

import io
import json
from datetime import UTC, datetime, timedelta

import pytest
import redis
from flask.testing import FlaskClient

from api.app import create_app
from shared.jobs.maintenance import JobMaintenance
from shared.jobs.models import Status
from shared.jobs.transitions import JobTransitions
from shared.settings import Settings

MODEL = "gemma-3-270m"


@pytest.fixture
def client(settings: Settings, redis_client: redis.Redis) -> FlaskClient:
    redis_client.hset("eh:models", MODEL, "1")
    return create_app(settings).test_client()


def test_a_job_starts_at_its_time_and_is_kept_as_long_as_its_client_says(
    client: FlaskClient, settings: Settings, redis_client: redis.Redis
) -> None:
    transitions = JobTransitions(redis_client, settings, lambda queue, count: None)
    at = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    key = {"Idempotency-Key": "later"}
    body = {"prompt": "x", "not_before": at, "store": False}
    later = client.post("/generate", json=body, headers=key).get_json()
    assert (later["waiting_for"], later["status"]) == ("not_before", "queued")
    assert abs(later["not_before"] - datetime.fromisoformat(at).timestamp()) < 60
    # It does not expire before it may start.
    assert later["expires_at"] > later["not_before"]
    assert client.post("/generate", json=body, headers=key).get_json()["id"] == later["id"]
    soon = client.post("/generate", json={"prompt": "x", "keep_seconds": 90}).get_json()
    claimed = transitions.claim(f"gpu.{MODEL}", "w", "t")
    assert claimed is not None
    assert claimed.id == soon["id"]
    assert transitions.finish((claimed.id, 1), Status.COMPLETED, result={"text": "y"}) == "ok"
    assert not redis_client.exists(f"eh:job:{claimed.id}:input")
    kept_ms = redis_client.zscore("eh:jobs:ended", claimed.id) - int(redis_client.hget(f"eh:job:{claimed.id}", "ended_at") or 0)
    assert kept_ms == 90_000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("not_before", -1),
        ("not_before", "tomorrow"),
        ("not_before", "2026-01-31T18:00:00"),
        ("not_before", "2999-01-31T18:00:00Z"),
        ("not_before", 1e300),
        ("not_before", True),
        ("keep_seconds", 5),
        ("keep_seconds", 8 * 24 * 3600),
    ],
)
def test_a_malformed_time_names_its_field(client: FlaskClient, field: str, value: object) -> None:
    refused = client.post("/generate", json={"prompt": "x", field: value})
    assert (refused.status_code, refused.get_json()["error"]["param"]) == (422, field)


def test_files_are_indexed_from_their_time_on(client: FlaskClient, settings: Settings, redis_client: redis.Redis) -> None:
    form = {"file": (io.BytesIO(b"later"), "later.txt"), "not_before": "3600", "password": "secret"}
    answer = client.post("/collections/c/documents", data=form)
    assert answer.status_code == 202, answer.text
    later = client.get(f"/jobs/{answer.get_json()['data'][0]['job']}").get_json()
    assert (later["status"], later["waiting_for"]) == ("queued", "not_before")
    assert 3500 <= later["not_before"] - later["created_at"] <= 3601
    assert later["expires_at"] > later["not_before"]
    # The password is kept for as long as its job may wait.
    [password] = redis_client.scan_iter("eh:document:*:password")
    assert redis_client.ttl(password) > settings.max_queue_seconds + 3000
    transitions = JobTransitions(redis_client, settings, lambda queue, count: None)
    assert transitions.claim("cpu", "w", "t") is None
    now_ms = int(1000 * (later["not_before"] + 1))
    JobMaintenance(redis_client, settings, lambda queue, count: None, clock=lambda: now_ms).reap(limit=10)
    claimed = transitions.claim("cpu", "w", "t2")
    assert claimed is not None
    assert claimed.id == later["id"]


def test_the_jobs_of_a_batch_start_at_its_time_or_later(client: FlaskClient) -> None:
    def start(**form: str) -> float:
        data = {"file": (io.BytesIO(str(form).encode()), f"{len(form)}.txt"), **form}
        answer = client.post("/collections/c/documents", query_string={"batch": batch["id"]}, data=data).get_json()
        return float(client.get(f"/jobs/{answer['data'][0]['job']}").get_json()["not_before"])

    batch = client.post("/batches", json={"not_before": 3600}).get_json()
    assert (batch["status"], client.get(f"/jobs/{batch['id']}").get_json()["not_before"]) == ("in_progress", batch["not_before"])
    assert abs(start() - batch["not_before"]) < 60
    assert start(not_before="7200") - batch["not_before"] > 3000
    urls = {"urls": ["https://example.org/a.txt"]}
    for own, seconds in ({}, 0), ({"not_before": 7200}, 3600):
        answer = client.post("/collections/c/documents", query_string={"batch": batch["id"]}, json={**urls, **own}).get_json()
        fetch = client.get(f"/jobs/{answer['fetches'][0]['job']}").get_json()
        assert abs(fetch["not_before"] - batch["not_before"] - seconds) < 60


def test_a_request_batch_starts_at_its_time_and_its_window_counts_from_then(client: FlaskClient) -> None:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"model": MODEL, "prompt": "x"}}
    form = {"file": (io.BytesIO(json.dumps(line).encode()), "in.jsonl"), "purpose": "batch"}
    file = client.post("/v1/files", data=form).get_json()["id"]
    body = {"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "1h"}
    batch = client.post("/v1/batches", json={**body, "not_before": 7200}).get_json()
    assert batch["status"] == "validating"
    assert batch["not_before"] - batch["created_at"] >= 7100
    assert batch["expires_at"] - batch["not_before"] >= 3599
    job = client.get(f"/jobs/{batch['job_id']}").get_json()
    assert job["waiting_for"] == "not_before"
    refused = client.post("/v1/batches", json={**body, "not_before": "tomorrow"})
    assert (refused.status_code, refused.get_json()["error"]["param"]) == (400, "not_before")


@pytest.mark.parametrize("value", ["-1", "tomorrow", "nan", "1e300", "2999-01-31T18:00:00Z"])
def test_a_form_with_a_malformed_time_is_refused(client: FlaskClient, value: str) -> None:
    form = {"file": (io.BytesIO(b"x"), "a.txt"), "not_before": value}
    refused = client.post("/upload", data=form)
    assert (refused.status_code, refused.get_json()["error"]["param"]) == (422, "not_before")
    refused = client.post("/batches", json={"not_before": value})
    assert (refused.status_code, refused.get_json()["error"]["param"]) == (422, "not_before")
