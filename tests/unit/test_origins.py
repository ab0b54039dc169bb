"""Pages of other origins are rejected unless the setting lists them."""

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from shared.errors import SettingsError
from shared.settings import Settings
from shared.settings_sources import from_environment

OURS = "https://app.example.org"


def client(origins: str = "") -> FlaskClient:
    return create_app(Settings(cors_origins=origins)).test_client()


def test_by_default_no_other_origin_may_call() -> None:
    answer = client().get("/openapi.json", headers={"Origin": OURS})
    assert answer.status_code == 403
    assert answer.get_json()["error"]["code"] == "origin_refused"
    assert not [name for name, _ in answer.headers if name.startswith("Access-Control")]


def test_a_listed_origin_may_call_and_read() -> None:
    answer = client(f"https://other.example.org, {OURS}").get("/openapi.json", headers={"Origin": OURS})
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == OURS
    assert "Location" in answer.headers["Access-Control-Expose-Headers"]
    assert "Access-Control-Allow-Credentials" not in answer.headers, "the page sends keys, never the browser by itself"


@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/generate", "/jobs/job_x/events", "/admin/dead-letters"])
def test_a_preflight_request_needs_no_key(path: str, method: str) -> None:
    preflight = {
        "Origin": OURS,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type,idempotency-key,last-event-id,prefer",
    }
    answer = client(OURS).options(path, headers=preflight)
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == OURS
    assert method in answer.headers["Access-Control-Allow-Methods"]
    allowed = {name.strip().lower() for name in answer.headers["Access-Control-Allow-Headers"].split(",")}
    assert allowed == set(preflight["Access-Control-Request-Headers"].split(","))


def test_a_listed_origin_may_read_errors() -> None:
    answer = client(OURS).get("/nothing/here", headers={"Origin": OURS})
    assert answer.status_code == 404
    assert answer.headers["Access-Control-Allow-Origin"] == OURS


def test_an_unlisted_origin_is_rejected() -> None:
    for origin in ("https://evil.example.org", f"{OURS}.evil.example", "null"):
        answer = client(OURS).get("/openapi.json", headers={"Origin": origin})
        assert answer.status_code == 403, origin
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("origins", ["*", "app.example.org", f"{OURS}/path", f"{OURS},ftp://x"])
def test_an_invalid_origin_stops_the_start(origins: str) -> None:
    with pytest.raises(SettingsError, match="ENGINEHOUSE_CORS_ORIGINS"):
        from_environment({"ENGINEHOUSE_CORS_ORIGINS": origins})
