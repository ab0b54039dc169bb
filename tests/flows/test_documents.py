"""Documents through the HTTP API: upload, search, citation and deletion."""

from pathlib import Path
from typing import Any

import pytest

from shared.redis_connection import connect
from testing.stack import Stack
from testing.waiting import wait_until
from tests.sample_pdfs import sample_pdfs


@pytest.fixture(scope="module")
def pdfs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return sample_pdfs(tmp_path_factory.mktemp("pdfs"))


def upload(stack: Stack, collection: str, *files: tuple[str, bytes]) -> list[dict[str, Any]]:
    parts = [("file", file) for file in files]
    answer = stack.client.post(f"/collections/{collection}/documents", files=parts)
    assert answer.status_code in (200, 202), answer.text
    return list(answer.json()["data"])


def settled(stack: Stack, document: dict[str, Any]) -> dict[str, Any]:
    stack.ended(document["job"])
    return dict(stack.client.get(f"/documents/{document['id']}").json())


def test_passages_of_a_pdf_have_their_page(stack: Stack, pdfs: list[Path]) -> None:
    smallest = min(pdfs, key=lambda path: path.stat().st_size)
    [document] = upload(stack, "pdfs", (smallest.name, smallest.read_bytes()))
    view = settled(stack, document)
    assert (view["status"], view["name"]) == ("ready", smallest.name)
    assert view["pages"] == view["pages_done"] > 0
    hits = stack.post("/collections/pdfs/search", {"query": "What does a city bike cost per day?", "top_k": 2}).json()["data"]
    assert len(hits) == 2
    assert all(hit["document"] == smallest.name and 1 <= hit["page"] <= view["pages"] for hit in hits)
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)


def test_an_answer_cites_its_passages(stack: Stack) -> None:
    [document] = upload(stack, "facts", ("ducks.txt", b"The capital of the ducks is Pondicherry-on-Mud."))
    assert settled(stack, document)["status"] == "ready"
    job = stack.generate("What is the capital of the ducks?", collection="facts")
    view = stack.ended(job["id"])
    [citation] = view["result"]["citations"]
    assert (citation["document"], citation["page"], citation["document_id"]) == ("ducks.txt", 1, document["id"])
    assert "Pondicherry-on-Mud" in citation["quote"][citation["start"] : citation["end"]]
    assert [attempt["outcome"] for attempt in view["attempts"]] == ["handed_over", "completed"]
    assert view["context_used"] is True


def test_a_moved_document_keeps_its_id_its_pages_and_its_citations(stack: Stack) -> None:
    [document] = upload(stack, "attic", ("geese.txt", b"The geese live in Honkville."))
    assert settled(stack, document)["status"] == "ready"
    cited = stack.ended(stack.generate("Where do the geese live?", collection="attic")["id"])["result"]["citations"][0]
    path = f"/documents/{document['id']}"
    assert stack.client.post(f"{path}/move", json={"collection": "cellar"}).json()["error"]["param"] == "collection"
    stack.post("/collections", {"name": "cellar"})
    job = stack.post(f"{path}/move?wait=30", {"collection": "cellar"}).json()
    assert (job["status"], job["result"]["document_id"]) == ("completed", document["id"])
    moved = stack.client.get(path).json()
    assert (moved["collection"], moved["status"], moved["created_at"]) == ("cellar", "ready", document["created_at"])
    assert stack.client.get(f"{path}/file").content == b"The geese live in Honkville."
    text = stack.client.get(f"{path}/pages/{cited['page']}/text").json()["text"]
    assert cited["quote"] in text
    for mode in ("vector", "keyword"):
        assert stack.post("/collections/attic/search", {"query": "geese", "mode": mode}).json()["data"] == []
        [hit] = stack.post("/collections/cellar/search", {"query": "geese", "mode": mode}).json()["data"]
        assert hit["document_id"] == document["id"]
    assert stack.client.delete("/collections/attic?permanent=true").status_code == 200
    assert stack.client.get(path).json()["status"] == "ready"


def test_many_files_in_one_request_get_a_job_each(stack: Stack) -> None:
    documents = upload(stack, "many", *((f"{n}.txt", f"file number {n}".encode()) for n in range(4)))
    assert len({document["job"] for document in documents}) == 4
    assert [settled(stack, document)["status"] for document in documents] == ["ready"] * 4
    listed = stack.client.get("/collections/many/documents").json()
    assert [document["name"] for document in listed["data"]] == ["3.txt", "2.txt", "1.txt", "0.txt"]


def test_the_same_bytes_are_the_same_document(stack: Stack) -> None:
    [first] = upload(stack, "twice", ("a.txt", b"the same"))
    [second] = upload(stack, "twice", ("b.txt", b"the same"))
    assert second["id"] == first["id"]
    assert settled(stack, first)["status"] == "ready"


@pytest.mark.parametrize(
    ("name", "content", "end"),
    [
        ("empty.txt", b"", "empty"),
        ("program.bin", b"\x7fELF\x02\x01\x01" + bytes(200), "unsupported"),
        ("broken.pdf", b"%PDF-1.7\nnothing more", "failed"),
    ],
)
def test_an_unreadable_document_ends_with_a_status_and_a_reason(stack: Stack, name: str, content: bytes, end: str) -> None:
    [document] = upload(stack, "odd", (name, content))
    job = stack.ended(document["job"])
    assert job["status"] == "failed"
    view = settled(stack, document)
    assert view["status"] == end
    assert view["reason"] == job["error"]["message"]


def test_a_deleted_document_is_gone_from_search(stack: Stack) -> None:
    [document] = upload(stack, "gone", ("secret.txt", b"The secret word is abracadabra."))
    settled(stack, document)
    path = f"/documents/{document['id']}"
    answer = stack.client.delete(path).json()
    assert (answer["id"], answer["deleted"]) == (document["id"], True)
    assert answer["restorable_until"] > document["created_at"]
    assert stack.client.get(path).status_code == 404
    assert stack.post("/collections/gone/search", {"query": "secret word"}).json()["data"] == []
    assert stack.client.post(f"{path}/restore").json()["status"] == "ready"
    [hit] = stack.post("/collections/gone/search", {"query": "secret word"}).json()["data"]
    assert hit["document_id"] == document["id"]
    assert stack.client.delete(f"{path}?permanent=true").json() == {"id": document["id"], "object": "document", "deleted": True}
    assert stack.client.post(f"{path}/restore").status_code == 404
    assert not list(stack.data.glob(f"documents/{document['id']}*"))


def test_a_deleted_document_that_was_reindexed_is_found_after_it_is_restored(stack: Stack) -> None:
    [document] = upload(stack, "reindexed-without", ("secret.txt", b"The secret word is abracadabra."))
    settled(stack, document)
    stack.client.delete(f"/documents/{document['id']}")
    job = stack.post("/collections/reindexed-without/reindex", {"chunk_tokens": 50}).json()
    assert stack.ended(job["id"])["status"] == "completed"
    assert stack.post("/collections/reindexed-without/search", {"query": "secret word"}).json()["data"] == []
    assert stack.client.post(f"/documents/{document['id']}/restore").status_code == 200
    for mode in ("vector", "keyword"):
        [hit] = stack.post("/collections/reindexed-without/search", {"query": "secret word", "mode": mode}).json()["data"]
        assert hit["document_id"] == document["id"]


def test_a_deleted_document_loses_its_data_after_a_minute(stack: Stack) -> None:
    [document] = upload(stack, "expiring", ("secret.txt", b"The secret word is abracadabra."))
    settled(stack, document)
    assert stack.client.delete(f"/documents/{document['id']}").status_code == 200
    # Nobody waits for the minute here: its end is set to now.
    redis_client = connect(stack.redis_url())
    redis_client.zadd("eh:document:deleted", {document["id"]: 1})
    wait_until(lambda: not list(stack.data.glob(f"documents/{document['id']}*")), "the folder of the document is deleted")
    wait_until(lambda: not redis_client.exists(f"eh:document:{document['id']}", "eh:document:deleted"), "its record is deleted")
    assert stack.post("/collections/expiring/search", {"query": "secret word"}).json()["data"] == []


def test_a_deleted_collection_is_gone(stack: Stack) -> None:
    [document] = upload(stack, "dropped", ("a.txt", b"some text"))
    settled(stack, document)
    answer = stack.client.delete("/collections/dropped?permanent=true").json()
    assert (answer["object"], answer["deleted"]) == ("collection", True)
    assert stack.client.get("/collections/dropped").status_code == 404
    assert stack.client.get(f"/documents/{document['id']}").status_code == 404
    assert stack.client.post("/collections/dropped/restore").status_code == 404
    assert not list(stack.data.glob(f"documents/{document['id']}*"))


def test_a_deleted_collection_is_restored_with_its_documents(stack: Stack) -> None:
    [document] = upload(stack, "trashed", ("secret.txt", b"The secret word is abracadabra."))
    settled(stack, document)
    answer = stack.client.delete("/collections/trashed").json()
    assert answer["deleted"] is True
    assert answer["restorable_until"] > document["created_at"]
    for path in ("/collections/trashed", f"/documents/{document['id']}", f"/documents/{document['id']}/file"):
        assert stack.client.get(path).status_code == 404, path
    assert stack.post("/collections/trashed/search", {"query": "secret"}).status_code == 404
    assert "trashed" not in [each["name"] for each in stack.client.get("/collections").json()["data"]]
    # Its name is free, and taken while another collection has it.
    [other] = upload(stack, "trashed", ("new.txt", b"Nothing secret."))
    settled(stack, other)
    refused = stack.client.post("/collections/trashed/restore")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "name_taken")
    assert stack.client.delete("/collections/trashed?permanent=true").status_code == 200
    restored = stack.client.post("/collections/trashed/restore").json()
    assert (restored["id"], restored["documents"]) == (answer["id"], 1)
    [hit] = stack.post("/collections/trashed/search", {"query": "secret word"}).json()["data"]
    assert hit["document_id"] == document["id"]


def test_a_deleted_collection_loses_its_data_after_a_minute(stack: Stack) -> None:
    [document] = upload(stack, "overdue", ("secret.txt", b"The secret word is abracadabra."))
    settled(stack, document)
    collection = stack.client.delete("/collections/overdue").json()["id"]
    # Nobody waits for the minute here: its end is set to now.
    redis_client = connect(stack.redis_url())
    redis_client.zadd("eh:collection:deleted", {collection: 1})
    wait_until(lambda: not list(stack.data.glob(f"documents/{document['id']}*")), "the folder of its document is deleted")
    wait_until(lambda: not list(redis_client.scan_iter(f"eh:collection:{collection}*")), "its records are deleted")
    assert stack.client.post("/collections/overdue/restore").status_code == 404


def test_the_tutorial_upload_goes_to_the_default_collection(stack: Stack) -> None:
    answer = stack.client.post("/upload", files={"file": ("guide.txt", b"Guides lead the way.")}, headers={"Prefer": "wait=60"})
    assert answer.status_code == 200
    assert answer.json()["document"]["status"] == "ready"
    asked = stack.post("/generate", {"text": "Who leads the way?", "use_rag": True}).json()
    assert asked["context_used"] is True
