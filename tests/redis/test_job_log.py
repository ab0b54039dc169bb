"""The log of a job over HTTP: what happened and when, for each kind of end, and never its texts."""

from typing import Any

import pytest
import redis
from flask.testing import FlaskClient

from api.app import create_app
from shared.documents.store import Documents
from shared.errors import EngineFault
from shared.ids import JOB, new_id
from shared.jobs.models import Job, Status
from shared.jobs.submission import Submission
from shared.jobs.transitions import Event
from shared.settings import Settings
from shared.webhooks.deliveries import Deliveries
from shared.work_context import LogLine, WorkContext, working_on
from tests.conftest import JobSystem

SECRET = "a secret prompt"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def system(redis_client: redis.Redis, settings: Settings) -> JobSystem:
    """Without the test's clock: calls over HTTP use the clock of Redis."""
    return JobSystem(redis_client, settings, lambda queue, count: None)


@pytest.fixture
def http(settings: Settings) -> FlaskClient:
    return create_app(settings).test_client()


def submit(system: JobSystem, **more: Any) -> str:
    values: dict[str, Any] = {"kind": "generate", "queue": "gpu.a", "model": "a", "spec": {"prompt": SECRET}, "owner": "local"}
    return system.submitter.submit_job(Submission(**{**values, **more})).id


def claim(system: JobSystem, queue: str = "gpu.a") -> Job:
    job = system.transitions.claim(queue, "gpu0@h/1", new_id("clm"))
    assert job is not None
    return job


def read(http: FlaskClient, job: str) -> dict[str, Any]:
    answer = http.get(f"/jobs/{job}/log")
    assert answer.status_code == 200, answer.text
    assert SECRET not in answer.text
    lines = answer.json["lines"]
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)
    return dict(answer.json)


def messages(log: dict[str, Any]) -> list[str]:
    return [line["message"] for line in log["lines"]]


def test_a_retried_job_that_fails(system: JobSystem, http: FlaskClient) -> None:
    traceparent = f"00-{TRACE}-00f067aa0ba902b7-01"
    with working_on(WorkContext(request_id="req_7", traceparent=traceparent)):
        id = submit(system)
    job = claim(system)
    assert (job.request_id, job.traceparent) == ("req_7", traceparent)
    system.transitions.append_events([Event(job=id, attempt=1, index=1, type="delta", data={"text": SECRET})])
    system.transitions.write_log("gpu0@h/1", [((job.id, 1), LogLine(job.created_at, "warning", "slow"))])
    system.transitions.retry((id, 1), 0, EngineFault("The engine is gone.").as_json())
    system.client.hset(f"eh:job:{id}", "not_before", 0)
    system.maintenance.reap()
    system.transitions.cancel(id, "local")
    log = read(http, id)
    assert (log["request_id"], log["trace_id"]) == ("req_7", TRACE)
    found = messages(log)
    assert found[0] == "submitted to gpu.a, priority 5"
    for expected in (
        "attempt 1 started on gpu0@h/1 from gpu.a",
        "attempt 1 ended: retried (engine_fault)",
        "its cancellation was requested",
    ):
        assert expected in found
    assert [message for message in found if message.startswith("queued again (engine_fault), not before ")]
    assert found[-1] == "cancelled"
    [kept] = [line for line in log["lines"] if line["worker"]]
    assert (kept["message"], kept["level"], kept["attempt"], kept["worker"]) == ("slow", "warning", 1, "gpu0@h/1")


def test_a_document_shows_its_phases(system: JobSystem, http: FlaskClient) -> None:
    id = submit(system, kind="ingest", queue="cpu", model="", spec={"name": "a.pdf"})
    claim(system, "cpu")
    progress = [("parsing", 1), ("parsing", 7), ("embedding", 0), ("embedding", 40)]
    system.transitions.append_events(
        [
            Event(
                job=id, attempt=1, index=index, type="progress", phase=phase,
                data={"phase": phase, "done": done, "total": 40, "unit": "pages"},
            )
            for index, (phase, done) in enumerate(progress, 1)
        ]
    )  # fmt: skip
    error = {"code": "failed", "message": "The disk is full.", "param": None, "type": "job_error"}
    system.transitions.finish((id, 1), Status.FAILED, error=error)
    log = read(http, id)
    assert [message for message in messages(log) if message.startswith("phase")] == [
        "phase parsing",
        "phase parsing: 7 of 40 pages",
        "phase embedding",
        "phase embedding: 40 of 40 pages",
    ]
    assert (log["lines"][-1]["message"], log["lines"][-1]["level"]) == ("failed: failed: The disk is full.", "error")


def test_deliveries_are_part_of_the_log(system: JobSystem, http: FlaskClient, redis_client: redis.Redis) -> None:
    webhook = {
        "url": "https://x.example/",
        "authority": "x.example:443",
        "endpoint": "",
        "secret": "",
        "events": ["job.cancelled"],
    }
    id = submit(system, webhook=webhook)
    system.transitions.cancel(id, "local")
    deliveries = Deliveries(redis_client)
    delivery = deliveries.claim("io@h/1", new_id("clm"), 30)
    assert delivery is not None
    deliveries.record_attempt(delivery.id, 1, "exhausted", status=500)
    [line] = [line for line in read(http, id)["lines"] if line["message"].startswith("webhook")]
    assert (line["message"], line["level"]) == (f"webhook job.cancelled ({delivery.id}), attempt 1: 500", "warning")


def test_the_lines_of_a_job_are_bounded_and_go_with_it(system: JobSystem, http: FlaskClient, redis_client: redis.Redis) -> None:
    id = submit(system)
    claim(system)
    lines = [((id, 1), LogLine(number, "info", f"line {number}")) for number in range(400)]
    system.transitions.write_log("gpu0@h/1", lines)
    assert redis_client.llen(f"eh:job:{id}:log") == 300
    system.transitions.finish((id, 1), Status.COMPLETED, result={"text": SECRET})
    assert "line 399" in messages(read(http, id))
    assert http.delete(f"/jobs/{id}").status_code == 200
    system.transitions.write_log("gpu0@h/1", lines[:1])
    assert redis_client.keys(f"eh:job:{id}*") == []


def test_only_the_owner_reads_a_log(system: JobSystem, http: FlaskClient) -> None:
    other = submit(system, owner="ada")
    for job in (other, new_id(JOB), "job_x"):
        answer = http.get(f"/jobs/{job}/log")
        assert (answer.status_code, answer.json["error"]["code"]) == (404, "job_not_found")


def test_a_request_gives_its_ids_to_its_jobs(http: FlaskClient, redis_client: redis.Redis, settings: Settings) -> None:
    Documents(redis_client, settings).ensure_collection("local", "papers", "all-minilm")
    headers = {"x-request-id": "from-me", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    answer = http.post("/collections/papers/reindex", json={}, headers=headers)
    assert answer.status_code == 202, answer.text
    log = read(http, answer.json["id"])
    assert (log["request_id"], log["trace_id"]) == ("from-me", TRACE)
    assert http.get("/jobs", headers={"traceparent": "nonsense"}).status_code == 200
