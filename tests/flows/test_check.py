"""``enginehouse collections check`` finds differences between records, files and indexes, and fixes them."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from cli.admin.index_check import IndexCheck
from shared.documents.store import Documents
from shared.documents.text_index import DocumentAttributes, TextIndex
from shared.errors import NotFound
from shared.ids import COLLECTION, DOCUMENT, new_id
from shared.redis_connection import connect
from shared.settings import Settings
from testing.process_forks import run_command
from testing.stack import QUICK, Stack
from tests.flows.test_documents import settled, upload
from workers.cpu.chunking import Chunk
from workers.index.vector_store import VectorStore


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A separate stack, because a check covers everything in a stack."""
    stack = Stack(tmp_path_factory.mktemp("checked"), environment=QUICK)
    try:
        yield stack.start()
    finally:
        stack.kill()


def check(stack: Stack, *options: str) -> tuple[int, dict[str, str]]:
    """Exit status and kind of problem by id, prefixed with ``fixed`` if it was fixed."""
    command = ["collections", "check", "--json", "--data", str(stack.data), *options]
    done = run_command(command, environment=stack.environment)
    assert done.returncode in (0, 1), done.stderr
    problems = json.loads(done.stdout)
    return done.returncode, {problem["object"]: ("fixed " if problem["fixed"] else "") + problem["kind"] for problem in problems}


def test_every_difference_is_found_and_fixed(stack: Stack) -> None:
    documents = upload(stack, "checked", *((f"{n}.txt", f"Boilers of house {n}.".encode()) for n in range(5)))
    whole, wordless, vectorless, lost, failed = (settled(stack, document)["id"] for document in documents)
    [odd] = upload(stack, "checked", ("odd.bin", b"\x7fELF\x02\x01\x01" + bytes(200)))
    assert settled(stack, odd)["status"] == "unsupported"
    assert check(stack) == (0, {}), "a healthy stack has no problems"

    index = stack.client.get("/collections/checked").json()["id"]
    vectors = VectorStore(json.loads((stack.data / "state.json").read_text())["chroma"])
    texts = TextIndex(stack.data / "text-index")
    texts.remove_document(index, wordless)
    vectors.remove_vectors(index, vectorless)
    for name in ("pages.jsonl", "chunks.jsonl"):
        (stack.data / "documents" / lost / name).unlink()
    vectors.remove_vectors(index, lost)
    stranger, unused, fresh = new_id(DOCUMENT), new_id(DOCUMENT), new_id(DOCUMENT)
    about = DocumentAttributes(id=stranger, name="x", media_type="text/plain", size=1, created_at=1.0, metadata={})
    texts.put_document(index, about, [Chunk(0, 1, 0, 7, "boilers")])
    vectors.put_vectors(index, odd["id"], [0], [[1.0] + [0.0] * 383])
    half_made, unknown_index = f"{index}.{'0' * 26}", new_id(COLLECTION)
    texts.put_document(half_made, about, [])
    vectors.put_vectors(unknown_index, stranger, [0], [[1.0] + [0.0] * 383])
    for name in (unused, fresh):
        (stack.data / "documents" / name).mkdir()
    old = time.time() - 7200
    os.utime(stack.data / "documents" / unused, (old, old))

    expected = {
        wordless: "not_indexed",
        vectorless: "not_indexed",
        lost: "pages_lost",
        stranger: "orphaned",
        odd["id"]: "orphaned",
        half_made: "unused_index",
        unknown_index: "unused_index",
        unused: "unused_folder",
    }
    assert check(stack) == (1, expected)
    status, found = check(stack, "--fix")
    assert (status, found) == (1, {what: kind if what == lost else f"fixed {kind}" for what, kind in expected.items()})
    assert check(stack) == (1, {lost: "pages_lost"})
    assert (stack.data / "documents" / fresh).exists(), "it may belong to an upload in progress"
    assert not (stack.data / "documents" / unused).exists()
    for mode in ("vector", "keyword"):
        hits = stack.post("/collections/checked/search", {"query": "boilers", "mode": mode, "top_k": 50}).json()["data"]
        assert {hit["document_id"] for hit in hits} >= {whole, wordless, vectorless, failed}
    assert stack.client.delete(f"/documents/{lost}?permanent=true").status_code == 200
    assert check(stack) == (0, {})


def test_a_lost_or_damaged_index_is_rebuilt(stack: Stack) -> None:
    documents = [
        settled(stack, each)["id"] for each in upload(stack, "again", *((f"{n}.txt", f"Wheel {n}.".encode()) for n in range(3)))
    ]
    index = stack.client.get("/collections/again").json()["id"]
    Path(stack.data / "text-index" / f"{index}.db").write_bytes(b"no database" * 1000)
    VectorStore(json.loads((stack.data / "state.json").read_text())["chroma"]).drop_index(index)
    refused = stack.post("/collections/again/search", {"query": "wheel", "mode": "keyword"}, Prefer="wait=0")
    status, found = check(stack, "--fix")
    assert status == 0
    assert found == {index: "fixed damaged_index", **dict.fromkeys(documents, "fixed not_indexed")}
    if refused.status_code == 202:
        stack.ended(refused.json()["id"])
    else:
        assert refused.json()["error"]["code"] == "index_unavailable"
    hits = stack.post("/collections/again/search", {"query": "wheel"}).json()["data"]
    assert {hit["document_id"] for hit in hits} == set(documents)


def test_a_collection_that_is_deleted_during_the_check_is_no_problem(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    [uploaded] = upload(stack, "passing", ("a.txt", b"Soon gone."))
    document = settled(stack, uploaded)["id"]
    index = stack.client.get("/collections/passing").json()["id"]
    chroma = json.loads((stack.data / "state.json").read_text())["chroma"]
    VectorStore(chroma).remove_vectors(index, document)

    def deleted(documents: Documents, collection_id: str, *, hidden: bool = False) -> Any:
        raise NotFound("The collection does not exist.")

    monkeypatch.setattr(Documents, "collection_by_id", deleted)
    check = IndexCheck(connect(stack.redis_url()), Settings(data_dir=stack.data, chroma_url=chroma))
    assert document not in [problem.object for problem in check.find_problems()]


def test_without_a_stack_the_check_fails_with_advice(stack: Stack, tmp_path: Path) -> None:
    done = run_command(["collections", "check", "--data", str(tmp_path)], environment=stack.environment)
    assert (done.returncode, "enginehouse up" in done.stderr) == (2, True)
    shutil.rmtree(tmp_path)
