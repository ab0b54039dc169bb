"""When a generation may start, and how long its job is kept, as its client asks."""

from datetime import UTC, datetime, timedelta

import pytest
import redis
from flask.testing import FlaskClient

from api.app import create_app
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
