"""Concurrency keys: a limit on how many of an owner's jobs with the same key run at once."""

import io
import json
from dataclasses import replace

import pytest
import redis
from flask.testing import FlaskClient

from api.app import create_app
from shared.jobs.models import Job, Status
from shared.jobs.submission import Submission
from shared.openai.endpoints import ENDPOINTS, plan_request
from shared.openai.request_plan import PlanContext
from shared.openai.requests import RerankRequest
from shared.openai.reranking import plan_rerank
from shared.settings import Settings
from tests.conftest import JobSystem

QUEUE = "gpu.gemma-3-270m"


def submit(
    system: JobSystem, key: str = "crm", limit: int = 1, *, owner: str = "ada", priority: int = 5, queue: str = QUEUE
) -> str:
    submission = Submission(
        kind="generate", queue=queue, spec={}, owner=owner, priority=priority, concurrency_key=key, concurrency_limit=limit
    )
    return system.submitter.submit_job(submission).id


def claim(system: JobSystem, queue: str = QUEUE) -> Job | None:
    claim.count += 1  # type: ignore[attr-defined]
    return system.transitions.claim(queue, "w", f"t{claim.count}")  # type: ignore[attr-defined]


claim.count = 0  # type: ignore[attr-defined]


def claimed(system: JobSystem, queue: str = QUEUE) -> list[str]:
    """Claim until nothing is left."""
    jobs: list[str] = []
    while job := claim(system, queue):
        jobs.append(job.id)
    return jobs


def end(system: JobSystem, job: str) -> None:
    assert system.transitions.finish((job, 1), Status.COMPLETED, result={}) == "ok"


def waiting(system: JobSystem, job: str) -> str:
    found = system.queries.get_job(job)
    assert found is not None
    return found.waiting


def test_jobs_beyond_the_limit_wait_without_holding_up_others(system: JobSystem, wakeups: list[tuple[str, int]]) -> None:
    limited = [submit(system, limit=2) for _ in range(5)]
    others = [submit(system, key=""), submit(system, key="erp"), submit(system, owner="bob")]
    assert set(claimed(system)) == {*limited[:2], *others}
    assert [waiting(system, job) for job in limited[2:]] == ["concurrency"] * 3
    # The next one is woken in the very step that ends one.
    wakeups.clear()
    end(system, limited[1])
    assert wakeups == [(QUEUE, 1)]
    assert claimed(system) == [limited[2]]
    end(system, limited[0])
    end(system, limited[2])
    assert claimed(system) == limited[3:]
    for job in (*limited[3:], *others):
        end(system, job)
    assert list(system.client.scan_iter("eh:concurrency:*")) == []


def test_more_urgent_jobs_go_first_and_each_keeps_to_its_own_limit(system: JobSystem) -> None:
    first, later, urgent, wide = submit(system), submit(system), submit(system, priority=2), submit(system, limit=3, priority=8)
    # The limit of a job counts all running jobs of its key, in every queue.
    assert claimed(system) == [urgent, wide]
    elsewhere = submit(system, queue="cpu", limit=2)
    assert claimed(system, "cpu") == []
    end(system, urgent)
    assert claimed(system) == []
    end(system, wide)
    assert claimed(system) == [first]
    end(system, first)
    assert claimed(system) == [later]
    assert claimed(system, "cpu") == [elsewhere]


def test_a_job_whose_worker_dies_or_that_waits_for_a_retry_holds_no_slot(system: JobSystem) -> None:
    first, second, third = (submit(system) for _ in range(3))
    assert claimed(system) == [first]
    assert system.maintenance.mark_worker_dead("w") == [first]
    # The lost job is older than those that wait, and so is first again.
    assert claimed(system) == [first]
    assert system.transitions.retry((first, 2), 0, {"code": "engine_fault", "message": "x"}) == "ok"
    assert claimed(system) == [second]
    assert system.clock is not None
    system.clock.advance(3)
    system.maintenance.reap()
    assert claimed(system) == []
    assert [waiting(system, job) for job in (first, third)] == ["concurrency"] * 2


@pytest.mark.parametrize("how", ["cancelled", "expired"])
def test_a_turn_that_is_not_used_goes_to_the_next(system: JobSystem, how: str) -> None:
    running, second, third = (submit(system) for _ in range(3))
    assert claimed(system) == [running]
    end(system, running)
    assert (waiting(system, second), waiting(system, third)) == ("worker", "concurrency")
    if how == "cancelled":
        system.transitions.cancel(second, "ada")
    else:
        system.client.hset(f"eh:job:{second}", "expires_at", 1)
        assert claimed(system) == []
        system.maintenance.reap()
        found = system.queries.get_job(second)
        assert found is not None
        assert found.status == "expired"
    assert claimed(system) == [third]


def test_a_cancelled_job_no_longer_waits(system: JobSystem) -> None:
    jobs = [submit(system) for _ in range(3)]
    assert claimed(system) == [jobs[0]]
    assert system.transitions.cancel(jobs[1], "ada") == ("cancelled", "cancelled")
    end(system, jobs[0])
    assert claimed(system) == [jobs[2]]


def test_a_running_job_without_a_record_is_noticed(system: JobSystem) -> None:
    running, waits = submit(system), submit(system)
    assert claimed(system) == [running]
    [key] = system.client.scan_iter("eh:concurrency:*:running")
    system.client.sadd(key, "job_removed_by_hand")
    end(system, running)
    assert system.clock is not None
    system.clock.advance(29)
    system.maintenance.reap()
    assert claimed(system) == []
    system.clock.advance(2)
    system.maintenance.reap()
    assert claimed(system) == [waits]


@pytest.mark.parametrize("parked_after", [0, 5])
def test_one_round_of_maintenance_queues_a_parked_job_once(
    system: JobSystem, wakeups: list[tuple[str, int]], parked_after: int
) -> None:
    running, waits = submit(system), submit(system)
    assert claim(system) is not None
    assert system.clock is not None
    system.clock.advance(parked_after)
    assert claim(system) is None
    wakeups.clear()
    system.clock.advance(120)
    # The lease of the first has lapsed, which wakes the second, whose own check of the key is due as well.
    assert system.maintenance.reap()[1] == [running]
    assert wakeups == [(QUEUE, 2)]
    assert set(claimed(system)) == {running}
    assert waiting(system, waits) == "concurrency"


def test_one_claim_parks_some_jobs_and_lets_the_worker_come_again(system: JobSystem, wakeups: list[tuple[str, int]]) -> None:
    rows = [Submission(kind="generate", queue=QUEUE, spec={}, owner="ada", concurrency_key="crm", priority=3) for _ in range(450)]
    system.submitter.submit_jobs(rows)
    last = submit(system, key="")
    assert claim(system) is not None
    wakeups.clear()
    found = [claim(system) for _ in range(3)]
    assert [job and job.id for job in found] == [None, None, last]
    assert wakeups == [(QUEUE, 1), (QUEUE, 1)]


@pytest.fixture
def client(settings: Settings, redis_client: redis.Redis) -> FlaskClient:
    redis_client.hset("eh:models", "gemma-3-270m", "1")
    return create_app(settings).test_client()


def test_the_key_is_shown_and_kept_by_a_retry(client: FlaskClient, settings: Settings, redis_client: redis.Redis) -> None:
    system = JobSystem(redis_client, settings, lambda queue, count: None)
    body = {"prompt": "x", "concurrency_key": "crm"}
    first = client.post("/generate", json=body).get_json()
    assert (first["concurrency_key"], first["concurrency_limit"]) == ("crm", 1)
    second = client.post("/generate", json={**body, "concurrency_limit": 1}).get_json()
    assert claimed(system) == [first["id"]]
    assert client.get(f"/jobs/{second['id']}").get_json()["waiting_for"] == "concurrency_limit"
    assert system.transitions.finish((first["id"], 1), Status.FAILED, error={"code": "x", "message": "x"}) == "ok"
    again = client.post(f"/jobs/{first['id']}/retry").get_json()
    assert again["concurrency_key"] == "crm"
    form = {"file": (io.BytesIO(b"x"), "x.txt"), "concurrency_key": "index", "concurrency_limit": "3"}
    job = client.post("/upload", data=form).get_json()["job"]
    assert (job["concurrency_key"], job["concurrency_limit"]) == ("index", 3)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"concurrency_limit": 2}, "concurrency_limit"),
        ({"concurrency_key": "k", "concurrency_limit": 0}, "concurrency_limit"),
        ({"concurrency_key": "k", "concurrency_limit": 10_001}, "concurrency_limit"),
        ({"concurrency_key": "k" * 129}, "concurrency_key"),
    ],
)
def test_a_malformed_key_or_limit_names_its_field(client: FlaskClient, fields: dict[str, object], param: str) -> None:
    refused = client.post("/generate", json={"prompt": "x", **fields})
    assert (refused.status_code, refused.get_json()["error"]["param"]) == (422, param)
    form = {"file": (io.BytesIO(b"x"), "x.txt"), **{name: str(value) for name, value in fields.items()}}
    refused = client.post("/upload", data=form)
    assert (refused.status_code, refused.get_json()["error"]["param"]) == (422, param)
    urls = {"urls": ["https://example.org/a.txt"], **fields}
    refused = client.post("/collections/c/documents", json=urls)
    assert (refused.status_code, refused.get_json()["error"]["param"]) == (422, param)
    refused = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}], **fields})
    assert (refused.status_code, refused.get_json()["error"]["param"]) == (400, param)


def test_every_call_of_v1_that_runs_jobs_takes_the_key(settings: Settings, redis_client: redis.Redis) -> None:
    redis_client.hset("eh:models", "gemma-3-270m", "1")
    file = settings.data_dir / "models.json"
    reranker = {"name": "overlap", "url": "overlap:", "task": "rerank"}
    file.write_text(json.dumps([*json.loads(settings.models_file.read_text()), reranker]))
    services = create_app(replace(settings, models_file=file)).extensions["enginehouse"]
    inputs: dict[str, dict[str, object]] = {
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}], "n": 2},
        "/v1/completions": {"prompt": ["x", "y"]},
        "/v1/embeddings": {"input": "x"},
        "/v1/responses": {"input": "x"},
    }
    assert set(inputs) == set(ENDPOINTS)
    context = PlanContext(models=services.models, owner="ada")
    key = {"concurrency_key": "crm", "concurrency_limit": 3}
    plans = {url: plan_request(url, {**body, **key}, context) for url, body in inputs.items()}
    request, _ = RerankRequest.from_body({"query": "x", "documents": ["x"], **key})
    plans["/v1/rerank"] = plan_rerank(request, context)
    for url, plan in plans.items():
        assert {(job.concurrency_key, job.concurrency_limit) for job in plan.submissions} == {("crm", 3)}, url
    assert context.ignored_params == []
    # A client that repeats a request, now without the key, still gets the answer of the first one.
    repeated = plan_request("/v1/embeddings", inputs["/v1/embeddings"], context)
    assert repeated.content == plans["/v1/embeddings"].content


def test_a_response_in_the_background_waits_for_its_key(
    client: FlaskClient, settings: Settings, redis_client: redis.Redis
) -> None:
    system = JobSystem(redis_client, settings, lambda queue, count: None)
    body = {"input": "x", "background": True, "concurrency_key": "crm"}
    first, second = (client.post("/v1/responses", json=body).get_json()["id"].replace("resp", "job") for _ in range(2))
    assert claimed(system) == [first]
    shown = client.get(f"/jobs/{second}").get_json()
    assert (shown["concurrency_key"], shown["waiting_for"]) == ("crm", "concurrency_limit")


def test_files_of_vector_stores_are_read_with_the_key(client: FlaskClient) -> None:
    key = {"concurrency_key": "read", "concurrency_limit": 2}
    files = []
    for text in (b"a", b"b", b"c"):
        form = {"file": (io.BytesIO(text), f"{text.decode()}.txt"), "purpose": "assistants"}
        files.append(client.post("/v1/files", data=form).get_json()["id"])
    store = client.post("/v1/vector_stores", json={"file_ids": files[:1], **key}).get_json()["id"]
    client.post(f"/v1/vector_stores/{store}/files", json={"file_id": files[1], **key})
    client.post(f"/v1/vector_stores/{store}/file_batches", json={"file_ids": files[2:], **key})
    jobs = client.get("/jobs?kind=ingest").get_json()["data"]
    assert [(job["concurrency_key"], job["concurrency_limit"]) for job in jobs] == [("read", 2)] * 3
    refused = client.post(f"/v1/vector_stores/{store}/file_batches", json={"file_ids": files, "concurrency_limit": 2})
    assert (refused.status_code, refused.get_json()["error"]["param"]) == (400, "concurrency_limit")


def test_collections_are_reindexed_and_documents_moved_with_the_key(
    client: FlaskClient,
) -> None:
    form = {"file": (io.BytesIO(b"x"), "x.txt")}
    [uploaded] = client.post("/collections/old/documents", data=form).get_json()["data"]
    client.post("/collections", json={"name": "new"})
    client.post("/collections", json={"name": "new"})
    assert client.post(f"/jobs/{uploaded['job']}/cancel").status_code == 200
    key = {"concurrency_key": "index", "concurrency_limit": 2}
    paths = {"/collections/old/reindex": {}, f"/documents/{uploaded['id']}/move": {"collection": "new"}}
    for path, body in paths.items():
        job = client.post(path, json={**body, **key}).get_json()
        assert (job["concurrency_key"], job["concurrency_limit"]) == ("index", 2), path
        refused = client.post(path, json={**body, "concurrency_limit": 2})
        assert (refused.status_code, refused.get_json()["error"]["param"]) == (422, "concurrency_limit"), path


def test_urls_are_fetched_with_the_key(client: FlaskClient) -> None:
    body = {"urls": ["https://example.org/a.txt"], "concurrency_key": "site", "concurrency_limit": 2}
    [fetch] = client.post("/collections/c/documents", json=body).get_json()["fetches"]
    job = client.get(f"/jobs/{fetch['job']}").get_json()
    assert (job["concurrency_key"], job["concurrency_limit"]) == ("site", 2)
