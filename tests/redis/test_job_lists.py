"""Lists, counts, requests and actions of an owner's jobs over HTTP, the account, and the index behind them, on a real Redis."""

from collections.abc import Mapping
from typing import Any

import pytest
import redis
from flask.testing import FlaskClient

from api.app import create_app
from shared.documents.data_state import KEY, DataState
from shared.documents.store import Documents
from shared.errors import EngineFault
from shared.ids import JOB, new_id
from shared.jobs.job_filter import JobFilter
from shared.jobs.job_index import JobIndex
from shared.jobs.models import Job, Status
from shared.jobs.queries import MAX_SCANNED
from shared.jobs.submission import Submission
from shared.owners.store import ApiKeys
from shared.settings import Settings
from testing.job_index_check import find_index_errors
from tests.conftest import JobSystem

QUEUE, MODEL = "gpu.gemma-3-270m", "gemma-3-270m"
DAY_MS = 86_400_000


@pytest.fixture
def system(redis_client: redis.Redis, settings: Settings) -> JobSystem:
    """Without the test's clock: calls over HTTP use that of Redis."""
    return JobSystem(redis_client, settings, lambda queue, count: None)


@pytest.fixture
def http(settings: Settings) -> FlaskClient:
    return create_app(settings).test_client()


def submit(system: JobSystem, owner: str = "local", **more: Any) -> str:
    values: dict[str, Any] = {"kind": "generate", "queue": QUEUE, "model": MODEL, "spec": {"prompt": "hello"}, **more}
    return system.submitter.submit_job(Submission(owner=owner, **values)).id


def end_next(system: JobSystem, queue: str = QUEUE, *, failed: bool = False) -> str:
    job = system.transitions.claim(queue, "w", new_id("clm"))
    assert isinstance(job, Job)
    error = EngineFault("The engine is gone.").as_json() if failed else None
    result = None if failed else {"text": "x", "finish_reason": "stop", "usage": {}}
    status = Status.FAILED if failed else Status.COMPLETED
    assert system.transitions.finish((job.id, job.attempt), status, error=error, result=result) == "ok"
    return job.id


def listed(http: FlaskClient, path: str = "/jobs", limit: int = 3, **query: Any) -> list[str]:
    """The ids on all pages."""
    ids, after = [], None
    while True:
        answer = http.get(path, query_string={**query, "limit": limit, **({"after": after} if after else {})})
        assert answer.status_code == 200, answer.text
        ids += [job["id"] for job in answer.json["data"]]
        after = answer.json["next"]
        if after is None:
            return ids


def counts(http: FlaskClient, **query: Any) -> dict[str, Any]:
    answer = http.get("/jobs/counts", query_string=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json)


def act(http: FlaskClient, action: str, **more: Any) -> dict[str, Any]:
    answer = http.post("/jobs/actions", json={"action": action, **more})
    assert answer.status_code == 200, answer.text
    return dict(answer.json)


def newest_first(*ids: str) -> list[str]:
    return sorted(ids, reverse=True)


@pytest.fixture
def jobs(system: JobSystem, settings: Settings) -> Mapping[str, str]:
    """A job of each sort, and some of another owner."""
    documents = Documents(system.client, settings)
    for owner in ("local", "bob"):
        documents.ensure_collection(owner, "handbook", "hash")
    handbook = documents.find_collection("local", "handbook").id
    batch = system.submitter.open_batch("local", spec={}, metadata={"team": "red"}).id
    made = {
        "batch": batch,
        "failed": submit(system),
        "completed": submit(system, metadata={"order": "17"}),
        "cited": submit(system, queue="io", spec={"message": "When is it open?", "collection": handbook}),
        "ingest": submit(
            system,
            kind="ingest",
            queue="cpu",
            model="",
            parent=batch,
            spec={"name": "Opening Hours.pdf", "collection_id": handbook},
        ),
        "search": submit(system, kind="search", queue="io", model="", spec={"query": "hours", "collection_id": handbook}),
        "old": submit(system, id=new_id(JOB, now_ms=system_time(system) - DAY_MS)),
    }
    other = documents.find_collection("bob", "handbook").id
    submit(system, "bob", kind="search", queue="io", model="", spec={"query": "hours", "collection_id": other})
    assert end_next(system, failed=True) == made["failed"]
    assert end_next(system) == made["completed"]
    return made


def system_time(system: JobSystem) -> int:
    seconds, micros = system.client.time()  # type: ignore[misc]
    return int(seconds) * 1000 + int(micros) // 1000


def test_jobs_are_found_and_counted_by_what_they_are(system: JobSystem, http: FlaskClient, jobs: Mapping[str, str]) -> None:
    day_ago = system_time(system) / 1000 - 3600
    expected: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        ({}, tuple(jobs)),
        ({"status": "failed"}, ("failed",)),
        ({"status": ["failed", "completed"]}, ("failed", "completed")),
        ({"status": "queued", "kind": "generate"}, ("cited", "old")),
        ({"kind": "search"}, ("search",)),
        ({"model": MODEL}, ("failed", "completed", "cited", "old")),
        ({"model": "none"}, ()),
        ({"collection": "handbook"}, ("cited", "ingest", "search")),
        ({"collection": "handbook", "kind": "generate"}, ("cited",)),
        ({"batch": jobs["batch"]}, ("ingest",)),
        ({"batch": jobs["batch"], "collection": "handbook", "status": "queued"}, ("ingest",)),
        ({"batch": new_id(JOB)}, ()),
        ({"q": "HOURS"}, ("ingest", "search")),
        ({"q": "hours", "kind": "search"}, ("search",)),
        ({"metadata.order": "17"}, ("completed",)),
        ({"metadata.order": "18"}, ()),
        ({"until": day_ago}, ("old",)),
        ({"since": day_ago, "kind": "generate"}, ("failed", "completed", "cited")),
        ({"since": day_ago, "until": day_ago}, ()),
    ]
    for query, names in expected:
        assert listed(http, **query) == newest_first(*(jobs[name] for name in names)), query
        found = counts(http, **query)
        assert (found["total"], found["complete"]) == (len(names), True), query
        assert sum(found["status"].values()) == sum(found["kind"].values()) == len(names)
    assert counts(http)["status"] == {"queued": 4, "in_progress": 1, "failed": 1, "completed": 1}
    assert counts(http, collection="handbook")["kind"] == {"generate": 1, "ingest": 1, "search": 1}
    assert counts(http)["model"] == {MODEL: 4}


def test_administrators_find_jobs_of_all_owners_in_the_same_ways(http: FlaskClient, jobs: Mapping[str, str]) -> None:
    assert listed(http, "/admin/jobs", status=["failed", "completed"]) == newest_first(jobs["failed"], jobs["completed"])
    assert len(listed(http, "/admin/jobs", q="hours")) == 3
    assert len(listed(http, "/admin/jobs", collection="handbook", owner="bob")) == 1
    refused = http.get("/admin/jobs", query_string={"collection": "handbook"})
    assert (refused.status_code, refused.json["error"]["param"]) == (422, "collection")
    answer = http.post("/admin/jobs/cancel", json={"filter": {"status": ["queued"], "batch": jobs["batch"]}})
    assert answer.json["done"] == 1


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"status": "no"}, 422),
        ({"kind": "no"}, 422),
        ({"batch": "x"}, 422),
        ({"q": ""}, 422),
        ({"q": "x" * 121}, 422),
        ({"since": "yesterday"}, 422),
        ({"until": "-1"}, 422),
        ({"view": "no"}, 422),
        ({"after": "x"}, 422),
        ({f"metadata.{name}": "x" for name in "abcde"}, 422),
        ({"metadata.": "x"}, 422),
        ({"collection": "none"}, 404),
    ],
)
def test_a_bad_filter_is_named(redis_client: redis.Redis, http: FlaskClient, query: dict[str, str], status: int) -> None:
    answer = http.get("/jobs", query_string=query)
    assert answer.status_code == status, answer.text
    assert answer.json["error"]["param"] == next(iter(query)).split(".")[0]


def test_a_search_through_many_jobs_goes_on_where_it_stopped(system: JobSystem, http: FlaskClient) -> None:
    wanted = submit(system, spec={"prompt": "the needle"})
    for _ in range(0, MAX_SCANNED + 200, 100):
        system.submitter.submit_jobs(
            [Submission(owner="local", kind="generate", queue=QUEUE, model=MODEL, spec={"prompt": "hay"}) for _ in range(100)]
        )
    first = http.get("/jobs", query_string={"q": "needle"}).json
    assert (first["data"], first["has_more"]) == ([], True)
    assert http.get("/jobs", query_string={"q": "needle", "after": first["next"]}).json["data"][0]["id"] == wanted
    assert counts(http, q="needle") == {
        "object": "job_counts",
        "status": {},
        "kind": {},
        "model": {},
        "total": 0,
        "complete": False,
    }
    # What the index knows needs no search.
    failed = end_next(system, failed=True)
    assert failed == wanted
    assert [job["id"] for job in http.get("/jobs", query_string={"status": "failed"}).json["data"]] == [wanted]
    assert counts(http)["status"] == {"queued": MAX_SCANNED + 200, "failed": 1}


def test_a_summary_has_what_a_table_shows_and_a_client_that_knows_it_gets_304(
    system: JobSystem, http: FlaskClient, jobs: Mapping[str, str]
) -> None:
    for path in ("/jobs?view=summary&limit=100", "/jobs/counts"):
        answer = http.get(path)
        again = http.get(path, headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b"")
        submit(system)
        changed = http.get(path, headers={"If-None-Match": answer.headers["ETag"]})
        assert changed.status_code == 200
    summary = next(job for job in http.get("/jobs?view=summary").json["data"] if job["id"] == jobs["failed"])
    full = next(job for job in http.get("/jobs").json["data"] if job["id"] == jobs["failed"])
    assert summary.items() <= {**full, "retried_as": None}.items()
    assert summary["error"]["message"] == "The engine is gone."
    assert not {"result", "attempts", "urls", "metadata"} & summary.keys()


def test_a_job_shows_its_request_with_names_in_place_of_ids(
    system: JobSystem, http: FlaskClient, jobs: Mapping[str, str]
) -> None:
    def request(job: str) -> Any:
        answer = http.get(f"/jobs/{job}/request")
        assert answer.status_code == 200
        return answer.json["request"]

    assert request(jobs["failed"]) == {"model": MODEL, "prompt": "hello"}
    assert request(jobs["cited"]) == {"model": MODEL, "message": "When is it open?", "collection": "handbook"}
    assert request(jobs["ingest"]) == {"name": "Opening Hours.pdf", "collection": "handbook"}
    assert request(jobs["batch"]) is None
    retrieval = {"top_k": 3, "reranker": "overlap"}
    asked = submit(system, spec={"prompt": "x", "retrieval": retrieval, "rewrite": True})
    assert request(asked)["retrieval"] == {"top_k": 3, "rerank": "overlap"}
    assert request(asked)["rewrite"] is True
    other = submit(system, spec={"prompt": "x", "retrieval": {**retrieval, "reranker": ""}})
    assert (request(other)["retrieval"]["rerank"], request(other)["rewrite"]) == (False, False)
    system.client.delete(f"eh:job:{jobs['failed']}:input")
    assert request(jobs["failed"]) is None
    assert http.get(f"/jobs/{submit(system, 'bob')}/request").status_code == 404


def test_jobs_are_changed_by_their_ids(system: JobSystem, http: FlaskClient, jobs: Mapping[str, str]) -> None:
    foreign, unknown = submit(system, "bob"), new_id(JOB)
    ids = [jobs["old"], jobs["completed"], foreign, unknown, "nonsense", jobs["old"]]
    outcome = act(http, "cancel", ids=ids)
    assert (outcome["matched"], outcome["done"], outcome["next"]) == (2, 1, None)
    failures = {one["id"]: one["code"] for one in outcome["failed"]}
    missing = dict.fromkeys((foreign, unknown, "nonsense"), "job_not_found")
    assert failures == {**missing, jobs["completed"]: "job_ended"}
    assert all(one["message"] for one in outcome["failed"])
    assert system.queries.statuses([jobs["old"], foreign]) == [Status.CANCELLED, Status.QUEUED]
    assert system.queries.unended([jobs["old"], foreign, unknown]) == [False, True, False]
    assert system.queries.unended([]) == []

    assert act(http, "retry", ids=[jobs["failed"], jobs["completed"], jobs["old"], jobs["search"]])["done"] == 2
    again = act(http, "retry", ids=[jobs["failed"], jobs["completed"], jobs["search"]])
    assert [one["code"] for one in again["failed"]] == ["already_retried", "job_completed", "job_not_ended"]
    assert act(http, "delete", ids=[jobs["failed"], jobs["search"], foreign])["done"] == 1
    assert system.queries.get_job(jobs["failed"]) is None


def test_jobs_are_changed_by_a_filter_part_by_part(system: JobSystem, http: FlaskClient, jobs: Mapping[str, str]) -> None:
    more = [submit(system, model="parrot") for _ in range(5)]
    foreign = submit(system, "bob", model="parrot")
    wanted = {"model": "parrot", "status": ["queued", "in_progress"]}
    first = act(http, "cancel", filter=wanted, limit=3)
    assert (first["matched"], first["done"]) == (3, 3)
    second = act(http, "cancel", filter=wanted, limit=3, after=first["next"])
    assert (second["done"], second["next"]) == (2, None)
    assert set(system.queries.statuses(more)) == {Status.CANCELLED}
    assert system.queries.statuses([foreign]) == [Status.QUEUED]
    assert act(http, "retry", filter={"model": "parrot"})["done"] == 5
    assert act(http, "cancel", filter={"model": "parrot"})["done"] == 5
    assert act(http, "delete", filter={"collection": "handbook", "since": 0})["failed"][0]["code"] == "job_not_ended"
    ended = act(http, "delete", filter={})
    assert (ended["done"], system.queries.get_job(foreign) is not None) == (12, True)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"action": "cancel"},
        {"action": "stop", "ids": ["x"]},
        {"action": "cancel", "ids": []},
        {"action": "cancel", "ids": ["x"] * 1001},
        {"action": "cancel", "ids": ["x" * 81]},
        {"action": "cancel", "ids": [1]},
        {"action": "cancel", "ids": ["x"], "filter": {}},
        {"action": "cancel", "ids": ["x"], "after": "job_01m84stetzyr7esggznw5rdjds"},
        {"action": "cancel", "filter": {"status": "no"}},
        {"action": "cancel", "filter": {"status": ["queued", "no"]}},
        {"action": "cancel", "filter": {"owner": "bob"}},
        {"action": "cancel", "filter": {"batch": "x"}},
        {"action": "cancel", "filter": {}, "limit": 1001},
        {"action": "cancel", "filter": {}, "after": "x"},
        {"action": "cancel", "filter": {"metadata": dict.fromkeys("abcde", "x")}},
    ],
)
def test_a_bad_action_is_refused(redis_client: redis.Redis, http: FlaskClient, body: dict[str, Any]) -> None:
    answer = http.post("/jobs/actions", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json["error"]["message"]


def test_the_account_of_a_caller(redis_client: redis.Redis, http: FlaskClient, settings: Settings) -> None:
    alone = http.get("/me").json
    assert (alone["owner"], alone["admin"], alone["key"]) == ("local", True, None)
    assert alone["limits"]["queued_jobs"] == settings.max_queued_per_owner
    key, secret = ApiKeys(redis_client).create("laptop", owner="ada")
    redis_client.hset("eh:owner:ada:limits", "queued_jobs", 7)
    account = http.get("/me", headers={"Authorization": f"Bearer {secret}"}).json
    assert (account["owner"], account["admin"], account["key"]) == (
        "ada",
        False,
        {"id": key.id, "name": "laptop", "expires_at": None, "limits": {}},
    )
    assert account["limits"]["queued_jobs"] == 7
    assert http.get("/me").status_code == 401


def test_jobs_of_an_earlier_version_enter_the_index(
    system: JobSystem, settings: Settings, jobs: Mapping[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """The migration runs while jobs do, in several processes, and again."""
    client = system.client
    document = submit(system, kind="ingest", queue="cpu", spec={}, document="doc_1")
    client.hset("eh:document:doc_1", "collection_id", "col_of_document")
    running = system.transitions.claim("io", "w", "t")
    assert running is not None
    for key in client.scan_iter("eh:jobs:group*"):
        client.delete(key)
    for job in (*jobs.values(), document):
        client.hdel(f"eh:job:{job}", "collection")
    client.hset(KEY, mapping={"id": "a", "version": 1})
    # A transition of a job that is not in the index yet.
    assert system.transitions.finish((running.id, running.attempt), Status.COMPLETED, result={}) == "ok"
    index = JobIndex(client)
    state = DataState(client, settings, index_jobs=index.add_missing)
    state.note_changes()
    assert client.hget(KEY, "version") == "2"
    assert "jobs are in the index now" in caplog.text
    assert find_index_errors(client) == []
    assert client.hget(f"eh:job:{document}", "collection") == "col_of_document"
    assert index.count(JobFilter(owner="local", collection="col_of_document")).total == 1
    handbook = Documents(client, settings).find_collection("local", "handbook").id
    assert index.count(JobFilter(owner="local", collection=handbook)).kind == {"generate": 1, "ingest": 1, "search": 1}
    assert index.add_missing() == 0
    client.delete("eh:document:doc_1")


def test_a_status_that_an_older_worker_wrote_does_not_stay_in_the_index(system: JobSystem, http: FlaskClient) -> None:
    job = submit(system)
    system.client.hset(f"eh:job:{job}", "status", "in_progress")
    assert listed(http, status="queued") == [], "a list never shows another status than it was asked for"
    system.client.hset(f"eh:job:{job}", "status", "completed")
    assert act(http, "delete", ids=[job])["done"] == 1
    system.maintenance.reap()
    assert counts(http)["total"] == 0
    for key in system.client.scan_iter("eh:queue*"):
        system.client.delete(key)
