"""Administration over HTTP, on a real Redis: jobs of all owners, queues, workers, pauses and drains."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import redis
from flask.testing import FlaskClient

from api.app import create_app
from shared.errors import EngineFault
from shared.jobs.job_index import BATCH
from shared.jobs.model_assignments import ModelAssignments
from shared.jobs.models import Job, Status
from shared.jobs.submission import Submission
from shared.jobs.worker_registry import Worker, WorkerRegistry
from shared.owners.store import ApiKeys
from shared.settings import Settings
from tests.conftest import JobSystem
from workers.runtime.worker_runtime import describe_process

QUEUE = "gpu.gemma-3-270m"
MODEL = "gemma-3-270m"


@pytest.fixture
def system(redis_client: redis.Redis, settings: Settings, wakeups: list[tuple[str, int]]) -> JobSystem:
    """Without the test's clock: calls over HTTP use that of Redis."""
    return JobSystem(redis_client, settings, lambda queue, count: wakeups.append((queue, count)))


@pytest.fixture
def http(settings: Settings) -> FlaskClient:
    return create_app(settings).test_client()


@pytest.fixture
def worker(redis_client: redis.Redis) -> Worker:
    """A gpu worker that has loaded the model."""
    described = describe_process("gpu0@host", pool="gpu", queues=(QUEUE,), slots=2, model=MODEL)
    ModelAssignments(redis_client).register("gpu0@host", MODEL, loadable_models=[MODEL])
    WorkerRegistry(redis_client).heartbeat(described)
    return described


def submit(system: JobSystem, owner: str = "ada", **more: Any) -> str:
    values: dict[str, Any] = {"kind": "generate", "queue": QUEUE, "model": MODEL, "spec": {"prompt": "hello"}, **more}
    return system.submitter.submit_job(Submission(owner=owner, **values)).id


def claim(system: JobSystem, worker: str = "gpu0@host/1", token: str = "t", queue: str = QUEUE) -> Job | str | None:
    return system.transitions.claim_for_slot(queue, worker, token, slots=2, reserved=0)


def fail_next(system: JobSystem, number: int) -> None:
    job = claim(system, token=f"f{number}")
    assert isinstance(job, Job)
    assert system.transitions.finish((job.id, 1), Status.FAILED, error=EngineFault("gone").as_json()) == "ok"


def listed(http: FlaskClient, **query: Any) -> list[str]:
    ids, after = [], None
    while True:
        answer = http.get("/admin/jobs", query_string={**query, "limit": 7, **({"after": after} if after else {})})
        assert answer.status_code == 200, answer.text
        ids += [job["id"] for job in answer.json["data"]]
        after = answer.json["next"]
        if after is None:
            return ids


def act(http: FlaskClient, action: str, wanted: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    answer = http.post(f"/admin/jobs/{action}", json={"filter": wanted, **more})
    assert answer.status_code == 200, answer.text
    return dict(answer.json)


def queue_of(http: FlaskClient, name: str = QUEUE) -> dict[str, Any]:
    [found] = [queue for queue in http.get("/admin/queues").json["data"] if queue["queue"] == name]
    return dict(found)


def test_jobs_of_all_owners_are_listed_newest_first_on_complete_pages(system: JobSystem, http: FlaskClient) -> None:
    jobs = [submit(system, owner) for _ in range(BATCH + 10) for owner in ("ada", "bob")]
    jobs += [submit(system, "eve") for _ in range(5)]
    newest_first = sorted(jobs, reverse=True)
    assert listed(http) == newest_first
    assert listed(http, owner="eve") == newest_first[:5] == sorted(jobs[-5:], reverse=True)
    answer = http.get("/admin/jobs", query_string={"limit": 1}).json["data"][0]
    assert (answer["owner"], answer["queue"], "result" in answer) == ("eve", QUEUE, False)


def test_jobs_are_found_by_what_they_are(system: JobSystem, http: FlaskClient) -> None:
    ingest = submit(system, kind="ingest", queue="cpu", model="")
    waiting, old = submit(system, "bob"), submit(system, "eve")
    system.client.hincrby(f"eh:job:{old}", "created_at", -3_600_000)
    fail_next(system, 1)
    failed = listed(http, status="failed")
    assert len(failed) == 1
    assert listed(http, kind="ingest") == listed(http, queue="cpu") == [ingest]
    assert listed(http, owner="bob") == [waiting]
    assert listed(http, model=MODEL) == sorted([waiting, old], reverse=True)
    assert listed(http, older_than=1800) == [old]
    assert set(listed(http, newer_than=1800)) == {ingest, waiting}
    for query in ({"status": "no"}, {"older_than": "x"}, {"owner": ""}, {"after": "x"}):
        assert http.get("/admin/jobs", query_string=query).status_code == 422, query


def test_a_filter_cancels_what_it_counted(system: JobSystem, http: FlaskClient) -> None:
    mine = [submit(system) for _ in range(12)]
    other = submit(system, "bob")
    running = claim(system)
    assert isinstance(running, Job)
    wanted = {"owner": "ada", "queue": QUEUE}
    assert act(http, "cancel", wanted, dry_run=True)["matched"] == 12
    assert {system.queries.get_job(job).cancel_requested_at for job in mine} == {None}  # type: ignore[union-attr]
    after, done = None, 0
    while True:
        part = act(http, "cancel", wanted, limit=5, **({"after": after} if after else {}))
        assert part["matched"] <= 5
        done, after = done + part["done"], part["next"]
        if after is None:
            break
    assert done == 12
    statuses = [system.queries.get_job(job).status for job in mine]  # type: ignore[union-attr]
    assert statuses.count(Status.CANCELLED) == 11
    assert system.transitions.renew("w", [(running.id, 1)]) == ["cancel"]
    assert system.queries.get_job(other).status is Status.QUEUED  # type: ignore[union-attr]
    again = act(http, "cancel", wanted)
    assert (again["done"], again["refused"]) == (1, {"job_ended": 11})


def test_a_filter_retries_failed_jobs_once_and_deletes_ended_ones(system: JobSystem, http: FlaskClient) -> None:
    jobs = [submit(system) for _ in range(3)]
    for number in range(2):
        fail_next(system, number)
    assert act(http, "retry", {"status": "failed"})["done"] == 2
    assert act(http, "retry", {"status": "failed"})["refused"] == {"already_retried": 2}
    assert len(listed(http)) == 5
    assert act(http, "delete", {"owner": "ada"})["refused"] == {"job_not_ended": 3}
    assert len(listed(http)) == 3
    assert act(http, "cancel", {"job": jobs[2]})["done"] == 1


@pytest.mark.parametrize(
    "body", [{"filter": {}}, {}, {"filter": {"status": "no"}}, {"filter": {"job": "x"}}, {"filter": {"prompt": "x"}}]
)
def test_an_action_needs_a_filter(http: FlaskClient, redis_client: redis.Redis, body: dict[str, Any]) -> None:
    assert http.post("/admin/jobs/delete", json=body).status_code == 422


def test_only_administrators_see_other_owners(redis_client: redis.Redis, http: FlaskClient, worker: Worker) -> None:
    _, secret = ApiKeys(redis_client).create("ada")
    _, root = ApiKeys(redis_client).create("root", admin=True)
    calls = [
        ("get", "/admin/jobs", None),
        ("post", "/admin/jobs/cancel", {"filter": {"owner": "bob"}}),
        ("get", "/admin/queues", None),
        ("put", f"/admin/queues/{QUEUE}", {"paused": False}),
        ("get", "/admin/workers", None),
        ("put", "/admin/workers/gpu0@host", {"drained": False}),
    ]
    for method, path, body in calls:
        for key, status in ((secret, 403), (root, 200)):
            answer = getattr(http, method)(path, json=body, headers={"Authorization": f"Bearer {key}"})
            assert answer.status_code == status, (method, path, answer.text)


def test_a_queue_says_who_waits_and_why(system: JobSystem, http: FlaskClient, worker: Worker) -> None:
    submit(system, "ada")
    old = submit(system, "bob", priority=1)
    assert old
    queue = queue_of(http)
    assert (queue["model"], queue["waiting"], queue["workers"], queue["slots"]) == (MODEL, 2, 1, 2)
    assert [(owner["owner"], owner["waiting"], owner["waiting_for"]) for owner in queue["owners"]] == [
        ("ada", 1, "worker"),
        ("bob", 1, "fair_share"),
    ]
    assert 0 <= queue["oldest_seconds"] < 60
    submit(system, queue="gpu.nowhere", model="nowhere")
    assert queue_of(http, "gpu.nowhere")["waiting_for"] == "worker"


def test_nothing_is_claimed_from_a_paused_queue_until_it_is_resumed(
    system: JobSystem, http: FlaskClient, worker: Worker, wakeups: list[tuple[str, int]]
) -> None:
    job = submit(system)
    assert http.put(f"/admin/queues/{QUEUE}", json={"paused": True}).json["paused_at"]
    assert claim(system) is None
    wakeups.clear()
    assert system.maintenance.send_missing_wakeups(1) == {}, "it would send them again and again"
    assert (queue_of(http)["waiting_for"], http.get(f"/jobs/{job}").status_code) == ("paused", 404)
    submit(system, "local")
    [mine] = http.get("/jobs").json["data"]
    assert mine["waiting_for"] == "paused"
    assert http.put(f"/admin/queues/{QUEUE}", json={"paused": False}).json["paused_at"] is None
    assert system.maintenance.send_missing_wakeups(1) == {QUEUE: 2}
    assert isinstance(claim(system, token="t2"), Job)
    assert http.put("/admin/queues/gpu.none", json={"paused": True}).status_code == 404
    assert http.put("/admin/queues/cpu", json={"paused": True, "unload": True}).status_code == 422


def test_a_paused_model_is_unloaded_and_not_loaded_again(system: JobSystem, http: FlaskClient, worker: Worker) -> None:
    assignments, registry = ModelAssignments(system.client), WorkerRegistry(system.client)
    assert http.put(f"/admin/queues/{QUEUE}", json={"paused": True, "unload": True}).status_code == 200
    assert assignments.list_all()[0].desired_model == ""
    registry.heartbeat(replace(worker, model="", phase="unloaded", queues=()))
    submit(system)
    assert system.maintenance.schedule_models(patience_ms=0) == ({}, [])
    assert "model" not in str(http.get("/health/ready").json["waiting_for"])
    http.put(f"/admin/queues/{QUEUE}", json={"paused": False})
    assert system.maintenance.schedule_models(patience_ms=0) == ({MODEL: "gpu0@host"}, [])


def test_a_drained_worker_claims_nothing_and_its_model_is_loaded_elsewhere(
    system: JobSystem, http: FlaskClient, worker: Worker
) -> None:
    submit(system)
    submit(system)
    [entry] = http.put("/admin/workers/gpu0@host", json={"drained": True}).json["data"]
    assert (entry["name"], bool(entry["drained_at"])) == ("gpu0@host", True)
    assert claim(system) == "drained"
    assert isinstance(claim(system, "gpu1@host/1", "other"), Job)
    ModelAssignments(system.client).register("gpu1@host", "", loadable_models=[MODEL])
    other = describe_process("gpu1@host", pool="gpu", queues=(), slots=1, phase="unloaded")
    WorkerRegistry(system.client).heartbeat(other)
    assert system.maintenance.schedule_models(patience_ms=0) == ({MODEL: "gpu1@host"}, [])
    [entry] = http.put("/admin/workers/gpu0@host", json={"drained": False}).json["data"]
    assert entry["drained_at"] is None
    assert isinstance(claim(system, token="again"), Job)
    assert http.put("/admin/workers/none@host", json={"drained": True}).status_code == 404


def test_the_running_jobs_of_a_worker_are_counted_at_once(system: JobSystem, http: FlaskClient, worker: Worker) -> None:
    """An operator stops a drained worker that runs nothing. A job claimed just before the drain was missing until the next heartbeat."""
    WorkerRegistry(system.client).heartbeat(worker)
    submit(system)
    assert isinstance(claim(system, worker.id), Job)
    [entry] = http.put(f"/admin/workers/{worker.name}", json={"drained": True}).json["data"]
    assert (entry["running"], worker.running) == (1, 0)


def test_workers_say_what_they_are_and_since_when(system: JobSystem, http: FlaskClient, worker: Worker) -> None:
    WorkerRegistry(system.client).heartbeat(worker)
    [entry] = http.get("/admin/workers").json["data"]
    assert (entry["name"], entry["pool"], entry["model"], entry["slots"], entry["queues"]) == (
        "gpu0@host",
        "gpu",
        MODEL,
        2,
        [QUEUE],
    )
    assert 0 < entry["since"] <= entry["seen_at"]
    assert "version" in entry
