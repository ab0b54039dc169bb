"""What needs attention, how much of its limits an owner uses, and the state of operations in one request."""

from dataclasses import replace
from typing import Any

import pytest
import redis
from flask.testing import FlaskClient

from api.app import create_app
from api.schemas import responses
from shared.disk_space import DiskSpace
from shared.documents.index_health import report_problem
from shared.documents.store import Documents
from shared.errors import EngineFault
from shared.jobs.models import Status
from shared.jobs.owner_use import OwnerUse
from shared.jobs.pauses import Pauses
from shared.jobs.submission import Submission
from shared.jobs.usage import Usage
from shared.jobs.worker_registry import Worker, WorkerRegistry
from shared.owners.limits import OwnerLimits
from shared.owners.store import ApiKeys
from shared.rights import SEARCH
from shared.settings import OWNER_LIMITS, Settings
from shared.webhooks.endpoints import DISABLED_BY_OWNER, Endpoints
from tests.conftest import Clock, JobSystem
from workers.runtime.worker_runtime import describe_process

NOTHING = dict.fromkeys(OWNER_LIMITS, 0)


@pytest.fixture
def now(redis_client: redis.Redis, settings: Settings) -> JobSystem:
    """The services for jobs with the clock of Redis, which the API has too."""
    return JobSystem(redis_client, settings, lambda queue, count: None)


@pytest.fixture
def client(settings: Settings, redis_client: redis.Redis) -> FlaskClient:
    return create_app(settings).test_client()


def found(client: FlaskClient, **headers: str) -> dict[str, Any]:
    """What needs attention, by code."""
    answer = client.get("/attention", headers=headers)
    assert answer.status_code == 200, answer.text
    responses.AttentionList.model_validate(answer.get_json())
    return {entry["code"]: entry for entry in answer.get_json()["data"]}


def end_jobs(system: JobSystem, status: Any, number: int, owner: str = "local") -> None:
    for _ in range(number):
        job = system.submitter.submit_job(Submission(kind="search", queue="io", spec={}, owner=owner)).id
        claimed = system.transitions.claim("io", "w", f"token {job}")
        assert claimed is not None
        error = EngineFault("gone").as_json() if status is Status.FAILED else None
        system.transitions.finish((claimed.id, claimed.attempt), status, result=None if error else {}, error=error)


def test_nothing_needs_attention_on_a_quiet_server(client: FlaskClient) -> None:
    assert found(client) == {}


def test_jobs_that_fail_need_attention_until_others_succeed(client: FlaskClient, now: JobSystem) -> None:
    end_jobs(now, Status.COMPLETED, 2)
    end_jobs(now, Status.FAILED, 2)
    assert found(client) == {}
    end_jobs(now, Status.FAILED, 1)
    assert found(client)["jobs_failing"]["message"] == "Jobs fail: 3 of the 5 that ended lately."
    end_jobs(now, Status.COMPLETED, 2)
    assert found(client) == {}


def test_a_webhook_needs_attention_unless_its_owner_disabled_it(client: FlaskClient, redis_client: redis.Redis) -> None:
    endpoints = Endpoints(redis_client)
    gone = client.post("/webhooks", json={"url": "https://93.184.216.34/gone"}).get_json()["id"]
    off = client.post("/webhooks", json={"url": "https://93.184.216.34/off"}).get_json()["id"]
    assert found(client) == {}
    endpoints.change(off, "local", {"disabled": DISABLED_BY_OWNER})
    assert found(client) == {}
    endpoints.change(gone, "local", {"disabled": "the receiver returned 410"})
    assert found(client)["webhook_disabled"]["subject"] == {"object": "webhook", "id": gone}


def test_queues_dead_letters_and_the_disk_are_for_administrators(
    client: FlaskClient, now: JobSystem, redis_client: redis.Redis
) -> None:
    job = now.submitter.submit_job(Submission(kind="search", queue="io", spec={}, owner="ada")).id
    assert found(client)["queue_without_worker"]["subject"] == {"object": "queue", "id": "io"}
    WorkerRegistry(redis_client).heartbeat(describe_process("io@host", pool="io", queues=("io",), slots=1))
    assert found(client) == {}
    Pauses(redis_client).pause("worker", "io@host")
    assert found(client)["queue_drained"]["message"] == "All workers of the queue io, in which a job waits, are drained."
    Pauses(redis_client).pause("queue", "io")
    assert found(client)["queue_paused"]["message"] == "The queue io is paused while a job waits in it."
    services: Any = client.application.extensions["enginehouse"]
    client.application.extensions["enginehouse"] = replace(
        services, disk_space=DiskSpace(services.settings.data_dir, 10**18, largest_fraction=1)
    )
    assert {"disk_full", "queue_paused"} <= set(found(client))
    _, secret = ApiKeys(redis_client).create("laptop", owner="ada")
    assert found(client, Authorization=f"Bearer {secret}") == {}
    now.transitions.cancel(job, "ada")


def test_a_collection_to_reindex_and_a_limit_that_is_nearly_used(
    client: FlaskClient, redis_client: redis.Redis, settings: Settings
) -> None:
    documents = Documents(redis_client, settings)
    collection = documents.ensure_collection("local", "papers", "all-minilm")
    documents.ensure_collection("local", "letters", "all-minilm")
    OwnerLimits(redis_client).set_limits("local", {"collections": 3})
    assert found(client) == {}
    report_problem(redis_client, collection.id, "Its index is lost.")
    OwnerLimits(redis_client).set_limits("local", {"collections": 2})
    entries = found(client)
    assert entries["collection_to_reindex"]["subject"] == {"object": "collection", "id": "papers"}
    assert entries["limit_nearly_used"]["message"] == "100 % of the limit collections is used."
    assert "data_warning" in entries
    # A key that may only search sees neither webhooks nor the collections' state.
    _, secret = ApiKeys(redis_client).create("reader", owner="local", scopes=[SEARCH])
    assert set(found(client, Authorization=f"Bearer {secret}")) == {"limit_nearly_used"}


def test_the_use_of_limits_is_that_of_the_records(system: JobSystem, clock: Clock, settings: Settings) -> None:
    use = OwnerUse(system.client, clock=clock)
    assert set(use.read("ada", NOTHING)) == set(OWNER_LIMITS) - {
        *("requests_per_second", "streams", "waits"),
        *(name for name in OWNER_LIMITS if name.startswith("end_user_")),
    }
    assert not any(use.read("ada", NOTHING).values())

    def submit(tokens: int) -> str:
        submission = Submission(kind="generate", queue="q", spec={"prompt": "x"}, owner="ada", tokens=tokens)
        return system.submitter.submit_job(submission).id

    done = submit(10)
    claimed = system.transitions.claim("q", "w", "token")
    assert claimed is not None
    system.transitions.finish((done, 1), Status.COMPLETED, result={}, usage=Usage(prompt_tokens=7, completion_tokens=2))
    # Without a limit, tokens are those of the ledger; with one, those that count against it.
    read = use.read("ada", NOTHING)
    assert (read["tokens_per_day"], read["tokens_per_month"], read["tokens_per_minute"]) == (9, 9, 0)
    limits = NOTHING | {"tokens_per_minute": 600, "tokens_per_day": 1000}
    OwnerLimits(system.client).set_limits("ada", {"tokens_per_minute": 600, "tokens_per_day": 1000})
    waiting, running = submit(50), submit(50)
    read = use.read("ada", limits)
    assert (read["tokens_per_day"], read["tokens_per_minute"], read["queued_jobs"], read["running_jobs"]) == (109, 100, 2, 0)
    assert system.transitions.claim("q", "w", "other") is not None
    clock.advance(5)
    read = use.read("ada", limits)
    assert (read["tokens_per_minute"], read["queued_jobs"], read["running_jobs"], read["kept_jobs"]) == (50, 1, 1, 3)
    assert read["job_bytes"] == read["kept_bytes"] > 0
    collection = Documents(system.client, settings).ensure_collection("ada", "papers", "all-minilm")
    assert use.read("ada", limits, ("collections", "documents")) == {"collections": 1, "documents": 0}
    Documents(system.client, settings).drop_collection(collection)
    for job in (waiting, running):
        system.transitions.cancel(job, "ada")


def test_the_account_has_the_use_of_its_limits(client: FlaskClient) -> None:
    client.post("/collections", json={"name": "papers"})
    account = client.get("/me").get_json()
    responses.Account.model_validate(account)
    assert account["used"]["collections"] == 1
    assert set(account["used"]) < set(account["limits"])


def test_operations_in_one_request(client: FlaskClient, now: JobSystem, redis_client: redis.Redis) -> None:
    worker = Worker(id="io@h/1", name="io@h", pool="io", machine="m", pid=1, started=0.0, queues=("io",), slots=4)
    WorkerRegistry(redis_client).heartbeat(worker)
    job = now.submitter.submit_job(Submission(kind="search", queue="io", spec={}, owner="ada")).id
    overview = client.get("/admin/overview").get_json()
    responses.OperationsOverview.model_validate(overview)
    for name, path in (("queues", "queues"), ("gpus", "gpus"), ("dead_letters", "dead-letters")):
        listed = client.get(f"/admin/{path}").get_json()["data"]
        assert [list(entry) for entry in overview[name]] == [list(entry) for entry in listed]
    assert [(queue["queue"], queue["waiting"]) for queue in overview["queues"]] == [("io", 1)]
    assert [entry["name"] for entry in overview["workers"]] == ["io@h"]
    now.transitions.cancel(job, "ada")
