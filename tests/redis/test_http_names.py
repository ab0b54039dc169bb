"""Names of documents over HTTP: kept whole and byte by byte, and replaced only as the client allows, with a word about it."""

import io
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from shared.documents.models import Document
from shared.settings import Settings
from tests.conftest import JobSystem


@pytest.fixture
def client(settings: Settings, system: JobSystem) -> FlaskClient:
    return create_app(settings).test_client()


def upload(client: FlaskClient, disposition: bytes, content: bytes = b"words", path: str = "/upload") -> TestResponse:
    """Upload one file with these parameters of its Content-Disposition."""
    part = b'--b\r\nContent-Disposition: form-data; name="file"; ' + disposition + b"\r\n\r\n" + content + b"\r\n--b--\r\n"
    return client.post(path, data=part, content_type="multipart/form-data; boundary=b")


def send(client: FlaskClient, *files: tuple[str, bytes], **form: str) -> dict[str, Any]:
    parts = {"file": [(io.BytesIO(content), name) for name, content in files], **form}
    answer = client.post("/collections/papers/documents", data=parts)
    assert answer.status_code in (200, 202), answer.get_data()
    content: dict[str, Any] = answer.get_json()
    return content


def make_ready(client: FlaskClient, document_id: str) -> Document:
    documents = client.application.extensions["enginehouse"].documents
    document: Document = documents.get("local", document_id)
    assert documents.finish(document.id, document.job_id, 1, "ready", pages=1, chunks=1) == "ok"
    ready: Document = documents.get("local", document_id)
    return ready


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        (b'filename="caf\xc3\xa9.txt"', "café.txt"),
        (b'filename="caf\xe9.txt"', r"caf\xe9.txt"),
        (b'filename="2024/\xff\xfe/a.txt"', r"2024/\xff\xfe/a.txt"),
        (b"filename=\xe9.txt", r"\xe9.txt"),
        (b"filename*=UTF-8''caf%C3%A9%20x.txt", "café x.txt"),
        (b"filename*=UTF-8''caf%E9.txt", r"caf\xe9.txt"),
        (b"filename*=iso-8859-1'fr'caf%E9.txt", "café.txt"),
        (b"filename*=shift_jis''%83f.txt", r"\x83f.txt"),
        (b"filename*=UTF-8''true.txt; filename=\"fallback.txt\"", "true.txt"),
        (b"filename=\"fallback.txt\"; filename*=UTF-8''true.txt", "true.txt"),
        (b"filename*0*=UTF-8''in%20; filename*1*=parts.txt", "in parts.txt"),
        (b'filename="a\\"b%22c\\\\d.txt"', 'a"b"c\\d.txt'),
        (b'filename="C:\\2023\\r.txt"', r"C:\2023\r.txt"),
        (b"filename=\"x; filename*=UTF-8''y.txt\"", "x; filename*=UTF-8''y.txt"),
        (b'filename="\xed\xa0\x80.txt"', r"\xed\xa0\x80.txt"),
        (b'filename="' + b"d/" * 2046 + b'name"', "d/" * 2046 + "name"),
    ],
)
def test_every_byte_of_a_name_is_kept(client: FlaskClient, disposition: bytes, name: str) -> None:
    answer = upload(client, disposition)
    assert answer.status_code == 202, answer.get_data()
    assert answer.get_json()["document"]["name"] == name


def test_a_name_that_is_too_long_is_rejected_and_not_cut(client: FlaskClient, settings: Settings) -> None:
    answer = upload(client, b'filename="' + b"x" * 4097 + b'"')
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (422, "file")
    assert "4,096" in answer.get_json()["error"]["message"]
    assert not list(settings.documents_dir.glob("*"))


@pytest.mark.parametrize(
    "content_type", ["multipart/form-data; boundary=c", "multipart/form-data", "multipart/form-data; boundary=é"]
)
def test_a_form_that_cannot_be_read_says_so(client: FlaskClient, content_type: str) -> None:
    answer = client.post("/upload", data=b"--b\r\n", content_type=content_type)
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (400, "malformed_body")


def test_names_that_differ_beyond_255_characters_are_different_documents(client: FlaskClient) -> None:
    names = [f"{'folder/' * 40}{word}.txt" for word in ("alpha", "beta")]
    answers = [send(client, (name, name.encode()))["data"][0] for name in names]
    assert [(answer["name"], answer["version"], answer["replaces"]) for answer in answers] == [(name, 1, None) for name in names]


def test_an_upload_reports_what_it_replaces(client: FlaskClient) -> None:
    [first] = send(client, ("a.txt", b"one"))["data"]
    [second] = send(client, ("a.txt", b"two"))["data"]
    assert (second["version"], second["replaces"]) == (2, first["id"]), "one that is being processed will be replaced too"
    make_ready(client, first["id"])
    assert make_ready(client, second["id"]).replaces == first["id"]
    [third] = send(client, ("a.txt", b"three"))["data"]
    assert third["replaces"] == second["id"]
    documents = client.application.extensions["enginehouse"].documents
    documents.finish(third["id"], third["job"], 1, "failed", reason="broken")
    assert client.get(f"/documents/{third['id']}").get_json()["replaces"] is None, "it will never replace the other"
    assert client.get(f"/documents/{second['id']}").get_json()["replaces"] == first["id"]
    [fourth] = send(client, ("a.txt", b"four"))["data"]
    assert fourth["replaces"] == second["id"], "the ready one, and not the newest"


def test_an_upload_may_forbid_to_replace(client: FlaskClient) -> None:
    [first] = send(client, ("a.txt", b"one"))["data"]
    answer = send(client, ("a.txt", b"two"), ("b.txt", b"other"), replace="false")
    assert [document["name"] for document in answer["data"]] == ["b.txt"]
    assert answer["name_conflicts"] == [{"name": "a.txt", "document_id": first["id"]}]
    assert answer["batch"]["counts"]["total"] == 1
    assert send(client, ("a.txt", b"one"), replace="false")["data"][0]["id"] == first["id"], "the same bytes are no conflict"
    alone = send(client, ("a.txt", b"two"), replace="false")
    assert (alone["data"], alone["batch"]["status"]) == ([], "completed")

    documents = client.application.extensions["enginehouse"].documents
    documents.finish(first["id"], first["job"], 1, "failed", reason="broken")
    assert send(client, ("a.txt", b"two"), replace="false")["data"][0]["version"] == 2, (
        "one that cannot be searched does not block the name"
    )


def test_a_single_upload_may_forbid_to_replace(client: FlaskClient, settings: Settings) -> None:
    form = {"file": (io.BytesIO(b"one"), "a.txt")}
    document = client.post("/upload", data=form).get_json()["document"]
    answer = client.post("/upload", data={"file": (io.BytesIO(b"two"), "a.txt"), "replace": "false"})
    assert answer.status_code == 409
    assert {name: answer.get_json()["error"][name] for name in ("code", "name", "document")} == {
        "code": "name_taken",
        "name": "a.txt",
        "document": document["id"],
    }
    assert [folder.name for folder in settings.documents_dir.iterdir()] == [document["id"]]
    answer = client.post("/upload", data={"file": (io.BytesIO(b"two"), "a.txt"), "replace": "maybe"})
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (422, "replace")


@pytest.mark.parametrize("path", ["/upload", "/collections/default/documents"])
def test_an_option_of_an_upload_that_would_be_ignored_is_refused(client: FlaskClient, path: str) -> None:
    for query, field, expected in (
        ("?replace=false", "", "replace"),
        ("", "replaces", "replaces"),
        ("?password=x", "", "password"),
    ):
        data = {"file": (io.BytesIO(b"two"), "a.txt"), **({field: "false"} if field else {})}
        answer = client.post(path + query, data=data)
        assert (answer.status_code, answer.get_json()["error"]["param"]) == (422, expected)
    answer = client.post(path, data={"files": (io.BytesIO(b"two"), "a.txt")})
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (422, "files")
