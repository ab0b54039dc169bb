"""Vector stores without workers: owners, bad input, what is written, expiry, and what survives a restart of the server."""

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient

from api.app import create_app
from shared.documents import keys
from shared.documents.collection_contents import CollectionContents
from shared.documents.descriptions import read_description
from shared.documents.files import DocumentFiles
from shared.documents.store import Documents
from shared.owners.store import ApiKeys
from shared.redis_connection import PREFIX
from shared.settings import Settings
from tests.conftest import JobSystem
from workers.io.collection_expiry import CollectionExpiry
from workers.io.file_search import describe_search

MODEL = "gemma-3-270m"
Headers = Mapping[str, str]
NO_HEADERS: Headers = {}
NO_STORE = "vs_01m84stetzyr7esggznw5rdjds"


@pytest.fixture
def system(redis_client: redis.Redis, settings: Settings) -> JobSystem:
    """Services with the clock of Redis, which the application has too."""
    return JobSystem(redis_client, settings, lambda queue, count: None)


@pytest.fixture
def app(settings: Settings, system: JobSystem) -> Flask:
    system.client.hset(PREFIX + "models", MODEL, "1")
    return create_app(replace(settings, max_collections=3, max_documents=4))


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def documents(redis_client: redis.Redis, settings: Settings) -> Documents:
    return Documents(redis_client, settings)


def put_file(client: FlaskClient, name: str = "a.txt", data: bytes = b"text", headers: Headers = NO_HEADERS) -> str:
    form = {"file": (io.BytesIO(data), name), "purpose": "assistants"}
    return str(client.post("/v1/files", data=form, headers=headers).json["id"])  # type: ignore[index]


def make_store(client: FlaskClient, body: dict[str, Any] | None = None, headers: Headers = NO_HEADERS) -> str:
    answer = client.post("/v1/vector_stores", json=body or {}, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json["id"])  # type: ignore[index]


def test_another_owners_store_does_not_exist(client: FlaskClient, redis_client: redis.Redis) -> None:
    ada, bob = ({"Authorization": f"Bearer {ApiKeys(redis_client).create(name)[1]}"} for name in ("ada", "bob"))
    store, file = make_store(client, headers=ada), put_file(client, headers=ada)
    added = client.post(f"/v1/vector_stores/{store}/files", json={"file_id": file}, headers=ada)
    assert added.status_code == 200, added.text
    batch = client.post(f"/v1/vector_stores/{store}/file_batches", json={"file_ids": [file]}, headers=ada).json
    assert batch is not None
    root = f"/v1/vector_stores/{store}"
    paths = ("", f"/files/{file}", "/files", f"/file_batches/{batch['id']}", f"/file_batches/{batch['id']}/files")
    for path in paths:
        assert client.get(root + path, headers=ada).status_code == 200, path
        assert client.get(root + path, headers=bob).status_code == 404, path
    for path, body in (
        ("", {}),
        ("/search", {"query": "x"}),
        ("/files", {"file_id": file}),
        (f"/files/{file}", {"attributes": {}}),
    ):
        assert client.post(root + path, json=body, headers=bob).status_code == 404, path
    for path in ("", f"/files/{file}"):
        assert client.delete(root + path, headers=bob).status_code == 404, path
    assert client.get("/v1/vector_stores", headers=bob).json["data"] == []  # type: ignore[index]
    # Nor can a file of another owner be put into a store, nor its store be searched.
    own = make_store(client, headers=bob)
    assert client.post(f"/v1/vector_stores/{own}/files", json={"file_id": file}, headers=bob).json["error"]["param"] == "file_id"  # type: ignore[index]
    tools = [{"type": "file_search", "vector_store_ids": [own, store]}]
    refused = client.post("/v1/responses", json={"input": "x", "tools": tools}, headers=bob)
    assert (refused.status_code, refused.json["error"]["param"]) == (404, "tools[0].vector_store_ids[1]")  # type: ignore[index]


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("", {"name": "x" * 257}, "name"),
    ("", {"metadata": {"a": 1}}, "metadata.a"),
    ("", {"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
    ("", {"expires_after": {"anchor": "created_at", "days": 1}}, "expires_after.anchor"),
    ("", {"expires_after": {"anchor": "last_active_at", "days": 366}}, "expires_after.days"),
    ("", {"chunking_strategy": {"type": "static"}}, "chunking_strategy"),
    ("", {"file_ids": ["file-x"]}, "file_ids[0]"),
    ("", {"file_ids": ["x"] * 501}, "file_ids"),
    ("/search", {}, "query"),
    ("/search", {"query": ""}, "query"),
    ("/search", {"query": ["a", 1]}, "query[1]"),
    ("/search", {"query": "a", "max_num_results": 51}, "max_num_results"),
    ("/search", {"query": "a", "rewrite_query": True}, "rewrite_query"),
    ("/search", {"query": "a", "filters": {"type": "and", "filters": []}}, "filters"),
    ("/search", {"query": "a", "filters": {"type": "eq", "key": "year", "value": {}}}, "filters"),
    ("/search", {"query": "a", "filters": {"type": "in", "key": "year", "value": 1}}, "filters"),
    ("/files", {}, "file_id"),
    ("/files", {"file_id": "file-01m84svpew31wcd91z2271xy1f"}, "file_id"),
    ("/files", {"file_id": "x", "attributes": {"a": [1]}}, "attributes.a"),
    ("/file_batches", {}, "file_ids"),
    ("/file_batches", {"file_ids": ["a"], "files": [{"file_id": "a"}]}, "file_ids"),
    ("/file_batches", {"files": [{}]}, "files[0].file_id"),
    ("/file_batches", {"file_ids": ["a"] * 2001}, "file_ids"),
]


@pytest.mark.parametrize(("path", "body", "param"), BAD)
def test_bad_input_is_named_and_writes_nothing(
    client: FlaskClient, redis_client: redis.Redis, path: str, body: dict[str, Any], param: str
) -> None:
    store = make_store(client)
    before = set(redis_client.scan_iter())
    answer = client.post(f"/v1/vector_stores/{store}{path}" if path else "/v1/vector_stores", json=body)
    assert answer.status_code in (400, 404), answer.text
    assert answer.json["error"]["param"] == param, answer.text  # type: ignore[index]
    if "file_ids" not in body or path:  # a store is made before its files
        assert set(redis_client.scan_iter()) == before


def test_lists_refuse_cursors_that_are_none(client: FlaskClient) -> None:
    store = make_store(client)
    for path in ("", f"/{store}/files"):
        for query, param in (("after=x", "after"), ("before=x", "before"), ("limit=0", "limit"), ("order=up", "order")):
            answer = client.get(f"/v1/vector_stores{path}?{query}")
            assert (answer.status_code, answer.json["error"]["param"]) == (400, param)  # type: ignore[index]
    for path in (f"/{NO_STORE}", f"/{store}/files/file-01m84svpew31wcd91z2271xy1f", f"/{store}/file_batches/vsfb_x", "/x"):
        assert client.get(f"/v1/vector_stores{path}").status_code == 404


def test_a_file_is_stored_once_and_known_after_a_restart(
    client: FlaskClient, settings: Settings, documents: Documents, redis_client: redis.Redis
) -> None:
    store, file = make_store(client, {"name": "Minutes (2026)", "description": "x"}), put_file(client)
    added = client.post(f"/v1/vector_stores/{store}/files", json={"file_id": file, "attributes": {"year": 2026}}).json
    assert added is not None
    files = DocumentFiles(settings.documents_dir)
    original = files.path(added["document_id"], "original")
    assert original.samefile(settings.files_dir / file)
    description = read_description(files, added["document_id"])
    assert description is not None
    assert (description.file_id, description.title, description.metadata) == (file, "Minutes (2026)", {"year": 2026})
    # Another server, as after a restart, and the same request again.
    other = create_app(settings).test_client()
    assert other.get(f"/v1/vector_stores/{store}/files/{file}").json == added
    assert other.post(f"/v1/vector_stores/{store}/files", json={"file_id": file}).json == added
    assert other.get(f"/v1/vector_stores/{store}").json["name"] == "Minutes (2026)"  # type: ignore[index]
    # A record that Redis has lost is made again from the folder, with its file.
    document = documents.get("local", added["document_id"])
    documents.remove(document.id, document.collection_id)
    assert redis_client.exists(keys.files(document.collection_id)) == 0
    documents.recover_document(document.id, description, collection=document.collection, job_id=document.job_id)
    contents = CollectionContents(redis_client, documents)
    assert [found.id for found in contents.documents_of_files(document.collection_id, [file])] == [document.id]
    assert contents.collections_with_file("local", file) == [(document.collection_id, document.id)]


def test_a_batch_that_is_refused_midway_is_closed(client: FlaskClient, system: JobSystem) -> None:
    store = make_store(client)
    ids = [put_file(client, f"{number}.txt", str(number).encode()) for number in range(5)]
    answer = client.post(f"/v1/vector_stores/{store}/file_batches", json={"file_ids": ids})
    assert (answer.status_code, answer.json["error"]["code"]) == (409, "quota_exceeded")  # type: ignore[index]
    assert system.client.exists(f"{PREFIX}owner:local:open_batches") == 0
    counts = client.get(f"/v1/vector_stores/{store}").json["file_counts"]  # type: ignore[index]
    assert (counts["in_progress"], counts["total"]) == (4, 4)


def test_a_cancelled_batch_has_cancelled_files(client: FlaskClient) -> None:
    store, file = make_store(client), put_file(client)
    batch = client.post(f"/v1/vector_stores/{store}/file_batches", json={"file_ids": [file]}).json
    assert batch is not None
    cancelled = client.post(f"/v1/vector_stores/{store}/file_batches/{batch['id']}/cancel").json
    assert cancelled is not None
    assert (cancelled["status"], cancelled["file_counts"]["cancelled"]) == ("cancelled", 1)
    assert client.get(f"/v1/vector_stores/{store}/files?filter=cancelled").json["data"][0]["id"] == file  # type: ignore[index]
    # Put into the store again, it is processed again.
    assert client.post(f"/v1/vector_stores/{store}/files", json={"file_id": file}).json["status"] == "in_progress"  # type: ignore[index]


def test_a_store_expires_after_its_last_use(
    client: FlaskClient, documents: Documents, system: JobSystem, redis_client: redis.Redis
) -> None:
    store = make_store(client, {"expires_after": {"anchor": "last_active_at", "days": 1}})
    collection_id = f"col_{store.removeprefix('vs_')}"
    CollectionExpiry(documents, system.submitter).run_once(1000.0)
    assert client.get(f"/v1/vector_stores/{store}").json["status"] == "completed"  # type: ignore[index]
    documents.configure(collection_id, last_active_at=documents.now_ms() - 2 * 86_400_000)
    assert client.get(f"/v1/vector_stores/{store}").json["status"] == "expired"  # type: ignore[index]
    answer = client.post(f"/v1/vector_stores/{store}/search", json={"query": "x"})
    assert (answer.status_code, answer.json["error"]["code"]) == (400, "vector_store_expired")  # type: ignore[index]
    CollectionExpiry(documents, system.submitter).run_once(1000.0)
    assert client.get(f"/v1/vector_stores/{store}").status_code == 404
    [job] = system.queries.list_jobs("local", limit=10)[0]
    assert job.kind == "delete"


def test_records_of_an_earlier_version_are_read(client: FlaskClient, documents: Documents) -> None:
    collection = documents.ensure_collection("local", "old", "hash")
    shown = client.get(f"/v1/vector_stores/vs_{collection.id.removeprefix('col_')}").json
    assert shown is not None
    assert (shown["name"], shown["metadata"], shown["expires_at"], shown["status"]) == ("old", {}, None, "completed")


def test_a_search_names_files_of_documents_that_are_gone(documents: Documents) -> None:
    place: dict[str, Any] = {"page": 1, "start": 0, "end": 2, "score": 1.0, "text": "ab"}
    hit: dict[str, Any] = {"document_id": "doc_01m84svpew31wcd91z2271xy1f", "document": "a.txt", **place}
    said, files = describe_search(["q"], [hit], documents, with_results=True)
    assert files[hit["document_id"]] == {"file_id": "file-01m84svpew31wcd91z2271xy1f", "filename": "a.txt"}
    assert said["results"][0]["attributes"] == {}
    assert json.loads(json.dumps(said)) == said
