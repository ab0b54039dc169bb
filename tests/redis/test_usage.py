"""The usage ledger over HTTP: sums by group, who sees what, CSV, and its bounds."""

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from flask.testing import FlaskClient

from api.app import create_app
from api.schemas.responses import UsageReport
from shared.jobs.models import Status
from shared.jobs.submission import Submission
from shared.jobs.usage import Usage, UsageLedger
from shared.owners.store import ApiKeys
from shared.settings import Settings
from tests.conftest import Clock, JobSystem

ANSWER = Usage(prompt_tokens=10, cached_tokens=4, completion_tokens=3, gpu_ms=1500)
DAY_SECONDS = 24 * 3600

Run = Callable[..., None]


@pytest.fixture
def client(settings: Settings, redis_client: redis.Redis) -> FlaskClient:
    return create_app(settings).test_client()


@pytest.fixture
def run(system: JobSystem) -> Run:
    """Runs a job that uses something and completes."""

    def run(
        owner: str = "ada", *, usage: Usage = ANSWER, model: str = "gemma", kind: str = "generate", end_user: str = ""
    ) -> None:
        job = system.submitter.submit_job(
            Submission(kind=kind, queue="q", spec={}, owner=owner, model=model, end_user=end_user)
        ).id
        claimed = system.transitions.claim("q", "w", job)
        assert claimed is not None
        assert system.transitions.finish((job, claimed.attempt), Status.COMPLETED, result={}, usage=usage) == "ok"

    return run


def day_of(clock: Clock) -> str:
    return datetime.fromtimestamp(clock.now_ms / 1000, UTC).date().isoformat()


def read(client: FlaskClient, query: str, key: str = "") -> dict[str, Any]:
    answer = client.get(f"/usage?{query}", headers={"Authorization": f"Bearer {key}"} if key else {})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.get_json()
    UsageReport.model_validate(body)
    return body


def test_usage_is_summed_by_day_and_model(client: FlaskClient, run: Run, clock: Clock) -> None:
    first = day_of(clock)
    run()
    run(end_user="uma")
    run(kind="ingest", model="", usage=Usage(embedding_tokens=500, pages=7, bytes=9_000_000_000))
    clock.advance(DAY_SECONDS)
    run(model="other")
    body = read(client, f"group_by=day,model&until={day_of(clock)}")
    assert [(entry["day"], entry["model"], entry["jobs"]) for entry in body["data"]] == [
        (first, "", 1),
        (first, "gemma", 2),
        (day_of(clock), "other", 1),
    ]
    assert body["data"][1] == {
        "day": first,
        "model": "gemma",
        "jobs": 2,
        "prompt_tokens": 20,
        "cached_tokens": 8,
        "completion_tokens": 6,
        "embedding_tokens": 0,
        "gpu_seconds": 3.0,
        "lost_seconds": 0.0,
        "pages": 0,
        "bytes": 0,
    }
    assert (body["total"]["jobs"], body["total"]["pages"], body["total"]["bytes"]) == (4, 7, 9_000_000_000)
    assert read(client, f"until={first}")["total"]["jobs"] == 3
    assert read(client, f"since={day_of(clock)}&until={day_of(clock)}")["total"]["jobs"] == 1


def test_the_time_of_lost_attempts_counts_until_their_last_renewal(client: FlaskClient, system: JobSystem, clock: Clock) -> None:
    job = system.submitter.submit_job(Submission(kind="generate", queue="q", spec={}, owner="ada", model="gemma")).id
    for attempt, seconds in ((1, 12), (2, 5)):
        claimed = system.transitions.claim("q", "w", f"t{attempt}")
        assert claimed is not None
        clock.advance(seconds)
        assert system.transitions.renew("w", [(job, attempt)]) == ["ok"]
        clock.advance(20)
        assert system.maintenance.mark_worker_dead("w") == [job]
        clock.advance(60)
        system.maintenance.reap()
    claimed = system.transitions.claim("q", "w", "t3")
    assert claimed is not None
    assert system.transitions.finish((job, 3), Status.COMPLETED, result={}, usage=ANSWER) == "ok"
    total = read(client, f"until={day_of(clock)}")["total"]
    assert (total["lost_seconds"], total["gpu_seconds"], total["completion_tokens"], total["jobs"]) == (17.0, 1.5, 3, 1)


def test_an_owner_sees_its_own_usage_and_an_administrator_all(
    client: FlaskClient, run: Run, clock: Clock, redis_client: redis.Redis
) -> None:
    keys, until = ApiKeys(redis_client), f"&until={day_of(clock)}"
    _, ada = keys.create("ada")
    _, root = keys.create("root", admin=True)
    for owner in ("ada", "bob", "bob"):
        run(owner)
    assert [(entry["owner"], entry["jobs"]) for entry in read(client, "group_by=owner" + until, ada)["data"]] == [("ada", 1)]
    assert [(entry["owner"], entry["jobs"]) for entry in read(client, "group_by=owner" + until, root)["data"]] == [
        ("ada", 1),
        ("bob", 2),
    ]
    assert read(client, "group_by=kind&owner=bob" + until, root)["total"]["jobs"] == 2
    refused = client.get("/usage?owner=bob", headers={"Authorization": f"Bearer {ada}"})
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (403, "permission_denied")


@pytest.mark.parametrize("size", [99_999_999_999_999, 100_000_000_000_000, 7_000_000_000_000_001])
def test_large_sums_have_all_digits(run: Run, redis_client: redis.Redis, size: int) -> None:
    for _ in range(2):
        run(usage=Usage(bytes=size, prompt_tokens=1))
    total = UsageLedger(redis_client).owner_totals()["ada"]
    assert (total.jobs, total.prompt_tokens, total.bytes) == (2, 2, 2 * size)


def test_csv_has_no_formula_of_an_end_user(client: FlaskClient, run: Run, clock: Clock) -> None:
    run(end_user="=HYPERLINK(1)\n2")
    run()
    for query, headers in (("&format=csv", {}), ("", {"Accept": "text/csv"})):
        answer = client.get(f"/usage?group_by=end_user,day&until={day_of(clock)}{query}", headers=headers)
        assert answer.content_type == "text/csv; charset=utf-8"
        header, *rows = csv.reader(io.StringIO(answer.text, newline=""))
        assert header[:4] == ["end_user", "day", "jobs", "prompt_tokens"]
        assert [row[:4] for row in rows] == [["", day_of(clock), "1", "10"], ["'=HYPERLINK(1)\n2", day_of(clock), "1", "10"]]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("group_by=colour", "group_by"),
        ("since=yesterday", "since"),
        ("until=2026-13-01", "until"),
        ("since=2026-02-01&until=2026-01-01", "since"),
        ("since=2020-01-01&until=2026-01-01", "since"),
        ("until=0001-01-01", "until"),
        ("format=xml", "format"),
    ],
)
def test_a_malformed_query_names_its_field(client: FlaskClient, query: str, param: str) -> None:
    answer = client.get(f"/usage?{query}")
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (422, param)


def test_end_users_beyond_a_thousand_a_day_are_summed(
    client: FlaskClient, run: Run, clock: Clock, redis_client: redis.Redis
) -> None:
    run(end_user="first")
    # As if a thousand had been there.
    redis_client.hset(f"eh:usage:{day_of(clock)}:ada", "#", 1000)
    for end_user in ("second", "third", "first"):
        run(end_user=end_user)
    body = read(client, f"group_by=end_user&until={day_of(clock)}")
    assert [(entry["end_user"], entry["jobs"]) for entry in body["data"]] == [("(other)", 2), ("first", 2)]


def test_the_ledger_outlives_the_jobs_and_then_expires(
    run: Run, clock: Clock, system: JobSystem, redis_client: redis.Redis
) -> None:
    system.submitter._settings = replace(system.settings, usage_retention_days=10)
    run()
    [job] = redis_client.zrange("eh:owner:ada:jobs", 0, -1)
    assert system.transitions.delete(job, "ada") == "deleted"
    today = datetime.fromtimestamp(clock.now_ms / 1000, UTC).date()
    [row] = UsageLedger(redis_client).rows(today, today)
    assert (row.owner, row.totals.jobs) == ("ada", 1)
    for key in (f"eh:usage:{today}", f"eh:usage:{today}:ada"):
        assert 10 * DAY_SECONDS < redis_client.ttl(key) <= 11 * DAY_SECONDS


def test_usage_of_owners_is_a_bounded_number_of_metrics(client: FlaskClient, run: Run, redis_client: redis.Redis) -> None:
    run("ada")
    redis_client.hset("eh:usage:totals", mapping={f"o{number}": "1 1" for number in range(99)})
    for owner in ("zoe", "yan", "ada"):
        run(owner)
    metrics = client.get("/metrics").text
    assert 'enginehouse_usage_prompt_tokens_total{owner="ada"} 20.0' in metrics
    assert 'enginehouse_usage_gpu_seconds_total{owner="(other)"} 3.0' in metrics
    assert 'owner="zoe"' not in metrics
