"""Calls of ``/v1/files`` without workers: forms, limits, pages, expiry, and what remains on the disk."""

import io
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient

from api.app import create_app
from shared.disk_space import DiskSpace
from shared.openai.files import FileStore
from shared.owners.store import ApiKeys
from shared.settings import Settings
from workers.io.file_maintenance import FileMaintenance


@pytest.fixture
def app(settings: Settings, redis_client: redis.Redis) -> Flask:
    return create_app(replace(settings, max_stored_bytes=1000, max_upload_bytes=2000))


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def upload(client: FlaskClient, content: bytes = b"{}\n", name: str = "in.jsonl", **options: Any) -> Any:
    fields = {"purpose": "batch", **options}
    headers = fields.pop("headers", None)
    return client.post("/v1/files", data={"file": (io.BytesIO(content), name), **fields}, headers=headers)


def on_disk(settings: Settings) -> list[str]:
    return sorted(path.name for path in settings.files_dir.iterdir()) if settings.files_dir.exists() else []


def test_a_file_can_be_read_and_deleted(client: FlaskClient, settings: Settings, redis_client: redis.Redis) -> None:
    content = os.urandom(700)
    file = upload(client, content, "naïve name.jsonl").get_json()
    assert file | {"id": "", "created_at": 0, "expires_at": 0} == {
        "id": "",
        "object": "file",
        "bytes": 700,
        "created_at": 0,
        "expires_at": 0,
        "filename": "naïve name.jsonl",
        "purpose": "batch",
        "status": "processed",
        "status_details": None,
    }
    assert file["expires_at"] - file["created_at"] == 30 * 24 * 3600
    assert client.get(f"/v1/files/{file['id']}").get_json() == file
    answer = client.get(f"/v1/files/{file['id']}/content")
    assert (answer.data, answer.content_length) == (content, 700)
    assert "na%C3%AFve%20name.jsonl" in answer.headers["Content-Disposition"]
    assert client.delete(f"/v1/files/{file['id']}").get_json() == {"id": file["id"], "object": "file", "deleted": True}
    for call in (f"/v1/files/{file['id']}", f"/v1/files/{file['id']}/content"):
        assert client.get(call).get_json()["error"]["code"] == "file_not_found"
    assert on_disk(settings) == []
    assert redis_client.exists("eh:owner:local:stored", "eh:owner:local:files") == 0


BAD_FORMS: Mapping[str, tuple[dict[str, Any], str]] = {
    "no file": ({}, "file"),
    "text for a file": ({"file": "x", "purpose": "batch"}, "file"),
    "no purpose": ({"file": (io.BytesIO(b"x"), "a")}, "purpose"),
    "unknown purpose": ({"file": (io.BytesIO(b"x"), "a"), "purpose": "batch_output"}, "purpose"),
    "two files": ({"file": [(io.BytesIO(b"x"), "a"), (io.BytesIO(b"x"), "b")], "purpose": "batch"}, "file"),
    "long name": ({"file": (io.BytesIO(b"x"), "a" * 256), "purpose": "batch"}, "file"),
    "anchor": ({"file": (io.BytesIO(b"x"), "a"), "purpose": "batch", "expires_after[anchor]": "now"}, "expires_after.anchor"),
    "no seconds": (
        {"file": (io.BytesIO(b"x"), "a"), "purpose": "batch", "expires_after[anchor]": "created_at"},
        "expires_after.seconds",
    ),
    "few seconds": (
        {"file": (io.BytesIO(b"x"), "a"), "purpose": "batch", "expires_after[seconds]": "5"},
        "expires_after.seconds",
    ),
    "no number": ({"file": (io.BytesIO(b"x"), "a"), "purpose": "batch", "expires_after[seconds]": "1h"}, "expires_after.seconds"),
}


@pytest.mark.parametrize("case", BAD_FORMS)
def test_bad_forms_are_refused_by_field_and_leave_nothing(case: str, client: FlaskClient, settings: Settings) -> None:
    form, param = BAD_FORMS[case]
    answer = client.post("/v1/files", data=form, content_type="multipart/form-data")
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (400, param), answer.get_json()
    assert on_disk(settings) == []


def test_a_body_that_is_no_form_or_is_cut_leaves_nothing(client: FlaskClient, settings: Settings) -> None:
    assert client.post("/v1/files", json={"purpose": "batch"}).status_code == 400
    boundary = "multipart/form-data; boundary=b"
    cut = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf of it'
    assert client.post("/v1/files", data=cut, content_type=boundary).status_code == 400
    assert on_disk(settings) == []


def test_limits_of_file_owner_and_disk(client: FlaskClient, app: Flask, settings: Settings, monkeypatch: Any) -> None:
    large = upload(client, b"x" * 2001)
    assert (large.status_code, large.get_json()["error"]["code"]) == (413, "body_too_large")
    first = upload(client, b"x" * 600).get_json()
    refused = upload(client, b"x" * 401).get_json()["error"]
    assert (refused["code"], refused["quota"], refused["limit"]) == ("quota_exceeded", "stored_bytes", 1000)
    document = {"file": (io.BytesIO(b"x" * 401), "a.txt")}
    assert client.post("/collections/c/documents", data=document).get_json()["error"]["quota"] == "stored_bytes"
    assert on_disk(settings) == [first["id"]]
    client.delete(f"/v1/files/{first['id']}")
    assert upload(client, b"x" * 900).status_code == 200
    monkeypatch.setattr(DiskSpace, "_measure", lambda self: 1)
    full = upload(client)
    assert (full.status_code, full.get_json()["error"]["code"]) == (503, "disk_full")
    assert len(on_disk(settings)) == 1


def test_a_file_whose_bytes_are_gone_says_so(client: FlaskClient, settings: Settings) -> None:
    file = upload(client).get_json()["id"]
    (settings.files_dir / file).unlink()
    answer = client.get(f"/v1/files/{file}/content")
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (404, "file_not_found")
    assert client.delete(f"/v1/files/{file}").status_code == 200


def test_pages_are_in_order_and_filtered(client: FlaskClient) -> None:
    ids = [upload(client, purpose=purpose).get_json()["id"] for purpose in ("batch", "user_data", "batch", "batch", "evals")]

    def page(query: str) -> tuple[list[int], bool]:
        listed = client.get(f"/v1/files?{query}").get_json()
        found = [file["id"] for file in listed["data"]]
        assert (listed["first_id"], listed["last_id"]) == ((found[0], found[-1]) if found else (None, None))
        return [ids.index(id) for id in found], listed["has_more"]

    assert page("") == ([4, 3, 2, 1, 0], False)
    assert page("limit=2") == ([4, 3], True)
    assert page(f"limit=2&after={ids[3]}") == ([2, 1], True)
    assert page(f"limit=3&after={ids[0]}&order=asc") == ([1, 2, 3], True)
    assert page("purpose=batch&order=asc") == ([0, 2, 3], False)
    for query in ("limit=0", "limit=x", "after=x", "order=up", "purpose=x"):
        answer = client.get(f"/v1/files?{query}")
        assert (answer.status_code, answer.get_json()["error"]["param"]) == (400, query.partition("=")[0])


def test_files_of_other_owners_do_not_exist(app: Flask, redis_client: redis.Redis) -> None:
    keys = ApiKeys(redis_client)
    ada, bob = ({"Authorization": f"Bearer {keys.create(name, owner=name)[1]}"} for name in ("ada", "bob"))
    client = app.test_client()
    file = upload(client, headers=ada).get_json()["id"]
    for answer in (
        client.get(f"/v1/files/{file}", headers=bob),
        client.get(f"/v1/files/{file}/content", headers=bob),
        client.delete(f"/v1/files/{file}", headers=bob),
        client.post("/v1/batches", json=batch_of(file), headers=bob),
    ):
        assert (answer.status_code, answer.get_json()["error"]["code"]) == (404, "file_not_found")
    assert client.get("/v1/files", headers=bob).get_json()["data"] == []
    assert client.get(f"/v1/files/{file}", headers=ada).status_code == 200


def batch_of(file: str) -> dict[str, str]:
    return {"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"}


def test_files_expire(client: FlaskClient, app: Flask, settings: Settings, redis_client: redis.Redis) -> None:
    kept = upload(client, purpose="user_data").get_json()
    assert kept["expires_at"] is None
    fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    file = upload(client, **fields).get_json()
    assert file["expires_at"] - file["created_at"] == 3600
    redis_client.hset(f"eh:file:{file['id']}", "expires_at", 1)
    redis_client.zadd("eh:files:expiring", {file["id"]: 1})
    assert client.get(f"/v1/files/{file['id']}").status_code == 404
    assert [entry["id"] for entry in client.get("/v1/files").get_json()["data"]] == [kept["id"]]
    FileMaintenance(redis_client, settings).run_once(1e9)
    assert on_disk(settings) == [kept["id"]]


def test_a_crash_leaves_a_draft_that_is_recorded_or_removed(
    client: FlaskClient, settings: Settings, redis_client: redis.Redis, tmp_path: Path
) -> None:
    file = upload(client, b"content").get_json()["id"]
    path = settings.files_dir / file
    # As if the process had died between the record and the new name.
    path.rename(path.with_name(f".{file}"))
    assert client.get(f"/v1/files/{file}/content").data == b"content"
    store = FileStore(redis_client, settings, DiskSpace(settings.data_dir, 0))
    stale, fresh = store.new_draft(), store.new_draft()
    os.utime(stale.path, (0, 0))
    store.remove_stale_drafts()
    assert sorted(on_disk(settings)) == sorted([file, fresh.path.name])
    for draft in (stale, fresh):
        draft.discard()
