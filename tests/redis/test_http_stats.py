"""``GET /stats`` over HTTP, who sees what of it, and the compression of responses."""

import gzip
import json
from dataclasses import replace
from typing import Any

import pytest
import redis
from flask import Flask, Response
from flask.testing import FlaskClient

from api.app import create_app
from api.compression import MIN_BYTES, compress_responses
from api.schemas.responses import Stats
from shared.jobs.stats_history import StatsHistory
from shared.owners.store import ApiKeys
from shared.settings import Settings
from tests.conftest import JobSystem
from tests.redis.test_stats import submit

GZIP = {"Accept-Encoding": "gzip"}


@pytest.fixture
def client(settings: Settings, redis_client: redis.Redis) -> FlaskClient:
    return create_app(replace(settings, grafana_url="https://grafana.example")).test_client()


@pytest.fixture
def recorded(redis_client: redis.Redis, system: JobSystem) -> None:
    """A sample with a job of ada in a queue."""
    submit(system)
    StatsHistory(redis_client).record(10)


def read(client: FlaskClient, path: str = "/stats", **headers: str) -> dict[str, Any]:
    answer = client.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.get_json()
    Stats.model_validate(body)
    return body


@pytest.mark.usefixtures("recorded")
def test_an_administrator_sees_everything(client: FlaskClient) -> None:
    body = read(client)
    assert (body["interval_seconds"], body["intervals"]) == (10, 360)
    assert {len(series) for series in body["totals"].values()} == {360}
    # The interval may have ended meanwhile.
    assert 1 in body["totals"]["queued"][-2:]
    [queue] = body["queues"]
    assert queue["queue"] == "gpu.a"
    assert 1 in queue["waiting"][-2:]
    assert body["workers"].keys() == {"gpu", "cpu", "io"}
    assert body["links"] == {"flower": None, "grafana": "https://grafana.example"}
    assert len(read(client, "/stats?minutes=1")["totals"]["queued"]) == 6


@pytest.mark.usefixtures("recorded")
def test_other_callers_see_how_long_the_queues_of_their_jobs_are(client: FlaskClient, redis_client: redis.Redis) -> None:
    keys = ApiKeys(redis_client)
    headers = {name: {"Authorization": f"Bearer {keys.create(name)[1]}"} for name in ("ada", "bob")}
    body = read(client, **headers["ada"])
    assert (body["totals"], body["workers"], body["links"], body["gpus"]) == (None, None, None, [])
    [queue] = body["queues"]
    assert 1 in queue["waiting"][-2:]
    assert (queue["oldest_seconds"], queue["submitted"], queue["ended"], queue["failed"]) == (None, None, None, None)
    assert read(client, **headers["bob"])["queues"] == []


@pytest.mark.parametrize("minutes", ["0", "1441", "x", "-5"])
def test_the_number_of_minutes_is_limited(client: FlaskClient, minutes: str) -> None:
    answer = client.get(f"/stats?minutes={minutes}")
    assert answer.status_code == 422
    assert answer.get_json()["error"]["message"] == f"minutes: must be an integer from 1 to 1440, not '{minutes}'"


def test_large_json_is_compressed_for_those_who_accept_it(client: FlaskClient) -> None:
    plain, short = client.get("/stats"), client.get("/stats", headers=GZIP)
    assert "Content-Encoding" not in plain.headers
    assert "Accept-Encoding" in plain.headers["Vary"]
    assert short.headers["Content-Encoding"] == "gzip"
    assert short.headers["Content-Length"] == str(len(short.data))
    assert len(short.data) < len(plain.data) / 10
    assert json.loads(gzip.decompress(short.data)).keys() == json.loads(plain.data).keys()
    assert "Content-Encoding" not in client.get("/health/live", headers=GZIP).headers
    refused = client.get("/stats", headers={"Accept-Encoding": "gzip;q=0, identity"})
    assert "Content-Encoding" not in refused.headers


def test_a_compressed_response_can_be_revalidated(client: FlaskClient) -> None:
    for path in ("/openapi.json", "/docs"):
        answer = client.get(path, headers=GZIP)
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["ETag"].startswith("W/")
        again = client.get(path, headers=GZIP | {"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b"")


def test_streams_and_files_are_sent_as_they_are() -> None:
    text = "x" * 10 * MIN_BYTES
    for media_type, body in (("text/event-stream", iter([text])), ("application/json", iter([text])), ("image/png", text)):
        app, path = Flask("streams"), "/"
        compress_responses(app)
        app.add_url_rule(path, path, lambda body=body, media_type=media_type: Response(body, mimetype=media_type))
        answer = app.test_client().get(path, headers=GZIP)
        assert "Content-Encoding" not in answer.headers
        assert answer.text == text
