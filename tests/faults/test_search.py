"""Search and reindex while the vector server dies, hangs, or has a full disk."""

import json
from pathlib import Path

import pytest

from testing.fault_rig.disks import full
from testing.fault_rig.duration import hold_fault
from testing.fault_rig.fault_stack import TEXT, FaultStack
from testing.fault_rig.processes import kill, suspended
from testing.waiting import wait_until
from tests.faults.test_documents import STACK_OPTIONS, text
from workers.index.vector_store import VectorStore

__all__ = ["STACK_OPTIONS"]

pytestmark = pytest.mark.slow_fault


def ingest_library(stack: FaultStack, collection: str) -> set[str]:
    """Ingest four documents. Returns their ids."""
    uploads = [stack.upload_file(collection, f"{n}.txt", text(f"{collection} {n}", 40)) for n in range(4)]
    for _, job in uploads:
        stack.wait_for_end(job)
    return {document for document, _ in uploads}


def reindex(stack: FaultStack, collection: str, *, ends: str = "completed") -> str:
    answer = stack.client.post(f"/collections/{collection}/reindex", json={"chunk_tokens": 40})
    assert answer.status_code == 202, answer.text
    job = str(answer.json()["id"])
    stack.ledger.record_accepted(job, ends=(ends,))
    return job


def start_reindex(stack: FaultStack, collection: str, *, ends: str = "completed") -> str:
    job = reindex(stack, collection, ends=ends)
    wait_until(lambda: stack.read_job(job).phase == "reindexing", "the reindex is running")
    return job


def search_documents(stack: FaultStack, collection: str) -> set[str]:
    answer = stack.client.post(f"/collections/{collection}/search", json={"query": TEXT, "top_k": 100})
    assert answer.status_code == 200, answer.text
    return {hit["document_id"] for hit in answer.json()["data"]}


def check_index_complete(stack: FaultStack, collection: str, documents: set[str]) -> None:
    """Check that text and vectors have every chunk of every document once, and that no other index is left."""
    assert search_documents(stack, collection) == documents
    vectors = VectorStore(json.loads((stack.server.data / "state.json").read_text())["chroma"])
    view = stack.client.get(f"/collections/{collection}").json()
    assert view["reindex_job"] is None
    [index] = vectors.list_indexes(view["id"])
    expected = {}
    for document in documents:
        expected[document] = stack.client.get(f"/documents/{document}").json()["chunks"]
        listed = stack.client.get(f"/documents/{document}/chunks", params={"limit": 100}).json()["data"]
        assert [chunk["position"] for chunk in listed] == list(range(expected[document]))
    assert vectors.count_by_document(index) == expected


@pytest.mark.parametrize("fault", ["killed", "hangs"])
def test_a_failing_index_during_a_reindex(stack: FaultStack, fault: str) -> None:
    name = f"reindex-{fault}"
    documents = ingest_library(stack, name)
    job = start_reindex(stack, name)
    if fault == "killed":
        for _ in range(2):
            kill(stack.pid_of("chroma"))
            words = stack.client.post(f"/collections/{name}/search", json={"query": TEXT, "mode": "keyword"})
            assert words.status_code == 200, "keyword search needs no vectors"
            assert search_documents(stack, name) == documents, "the old index answers again"
    else:
        with suspended([stack.pid_of("chroma")]):
            answer = stack.client.post(f"/collections/{name}/search", json={"query": TEXT}, headers={"Prefer": "wait=2"})
            assert answer.status_code == 202, answer.text
            stack.ledger.record_accepted(answer.json()["id"], ends=("completed", "failed"))
            words = stack.client.post(f"/collections/{name}/search", json={"query": TEXT, "mode": "keyword"})
            assert words.status_code == 200, "keyword search needs no vectors"
            hold_fault(5)
    assert stack.wait_for_end(job, 200).status == "completed"  # its retries wait longer each time
    check_index_complete(stack, name, documents)


def test_a_reindex_on_a_full_disk_fails_and_can_be_repeated(
    stack_with_a_small_index: tuple[FaultStack, Path],
) -> None:
    stack, folder = stack_with_a_small_index
    documents = ingest_library(stack, "full")
    before = stack.client.get("/collections/full").json()
    job = start_reindex(stack, "full", ends="failed")
    with full(folder):
        record = stack.wait_for_end(job)
        assert record.error is not None
        assert record.error["code"] == "index_unavailable", record.error
        assert "disk is full" in record.error["message"], record.error
        assert search_documents(stack, "full") == documents, "the old index still answers"
    after = stack.client.get("/collections/full").json()
    assert {**after, "reindex_job": None} == {**before, "reindex_job": None}
    assert stack.wait_for_end(reindex(stack, "full")).status == "completed"
    check_index_complete(stack, "full", documents)
    stack.check_invariants()


def test_a_reindex_continues_after_its_worker_was_killed(stack: FaultStack) -> None:
    documents = ingest_library(stack, "worker")
    job = start_reindex(stack, "worker")
    kill(int(stack.read_job(job).worker.rpartition("/")[2]))
    assert search_documents(stack, "worker") == documents
    assert stack.wait_for_end(job).status == "completed"
    check_index_complete(stack, "worker", documents)
