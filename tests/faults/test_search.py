"""Faults 38 to 40 on the index as it is searched and made anew: the server that has the vectors dies, hangs, has a full disk."""

import json
from pathlib import Path

import pytest

from testing.fault_rig.disks import full
from testing.fault_rig.fault_stack import TEXT, FaultStack
from testing.fault_rig.pausing import pause
from testing.fault_rig.processes import kill, stopped
from testing.waiting import wait_until
from tests.faults.test_documents import HOUSE, text
from workers.index.vector_store import VectorStore

__all__ = ["HOUSE"]

pytestmark = pytest.mark.slow_fault


def library(house: FaultStack, collection: str) -> set[str]:
    """Documents that are ready."""
    uploads = [house.upload(collection, f"{n}.txt", text(f"{collection} {n}", 40)) for n in range(4)]
    for _, job in uploads:
        house.ended(job, 60)
    return {document for document, _ in uploads}


def reindex(house: FaultStack, collection: str, *, ends: str = "completed") -> str:
    answer = house.client.post(f"/collections/{collection}/reindex", json={"chunk_tokens": 40})
    assert answer.status_code == 202, answer.text
    job = str(answer.json()["id"])
    house.ledger.accepted(job, ends=(ends,))
    return job


def reindex_under_way(house: FaultStack, collection: str, *, ends: str = "completed") -> str:
    job = reindex(house, collection, ends=ends)
    wait_until(lambda: house.job(job).phase == "reindexing", "the reindex is under way", seconds=30)
    return job


def found(house: FaultStack, collection: str) -> set[str]:
    answer = house.client.post(f"/collections/{collection}/search", json={"query": TEXT, "top_k": 100})
    assert answer.status_code == 200, answer.text
    return {hit["document_id"] for hit in answer.json()["data"]}


def check_whole(house: FaultStack, collection: str, documents: set[str]) -> None:
    """Every chunk of every document is there once, in text and in vectors, and of no other index is anything left."""
    assert found(house, collection) == documents
    vectors = VectorStore(json.loads((house.stack.data / "state.json").read_text())["chroma"])
    view = house.client.get(f"/collections/{collection}").json()
    assert view["reindex_job"] is None
    [index] = vectors.list_indexes(view["id"])
    expected = {}
    for document in documents:
        expected[document] = house.client.get(f"/documents/{document}").json()["chunks"]
        listed = house.client.get(f"/documents/{document}/chunks", params={"limit": 100}).json()["data"]
        assert [chunk["position"] for chunk in listed] == list(range(expected[document]))
    assert vectors.count_by_document(index) == expected


@pytest.mark.parametrize("fault", ["killed", "hangs"])
def test_38_39_an_index_in_trouble_while_it_is_made_anew(house: FaultStack, fault: str) -> None:
    name = f"anew-{fault}"
    documents = library(house, name)
    job = reindex_under_way(house, name)
    if fault == "killed":
        for _ in range(2):
            kill(house.pid("chroma"))
            words = house.client.post(f"/collections/{name}/search", json={"query": TEXT, "mode": "keyword"})
            assert words.status_code == 200, "words are found without the vectors"
            assert found(house, name) == documents, "what answered before answers again"
    else:
        with stopped([house.pid("chroma")]):
            answer = house.client.post(f"/collections/{name}/search", json={"query": TEXT}, headers={"Prefer": "wait=2"})
            assert answer.status_code == 202, answer.text
            house.ledger.accepted(answer.json()["id"], ends=("completed", "failed"))
            words = house.client.post(f"/collections/{name}/search", json={"query": TEXT, "mode": "keyword"})
            assert words.status_code == 200, "words are found without the vectors"
            pause(5)
    assert house.ended(job, 120).status == "completed"
    check_whole(house, name, documents)


def test_40_an_index_made_anew_on_a_disk_that_is_full_fails_and_can_be_asked_again(
    house_with_a_small_index: tuple[FaultStack, Path],
) -> None:
    house, folder = house_with_a_small_index
    documents = library(house, "full")
    before = house.client.get("/collections/full").json()
    job = reindex_under_way(house, "full", ends="failed")
    with full(folder):
        record = house.ended(job, 60)
        assert record.error is not None
        assert record.error["code"] == "index_unavailable", record.error
        assert "disk is full" in record.error["message"], record.error
        assert found(house, "full") == documents, "the old index goes on answering"
    after = house.client.get("/collections/full").json()
    assert {**after, "reindex_job": None} == {**before, "reindex_job": None}
    assert house.ended(reindex(house, "full"), 60).status == "completed"
    check_whole(house, "full", documents)
    house.check()


def test_38_a_worker_killed_while_it_makes_an_index_anew_goes_on_where_it_was(house: FaultStack) -> None:
    documents = library(house, "worker")
    job = reindex_under_way(house, "worker")
    kill(int(house.job(job).worker.rpartition("/")[2]))
    assert found(house, "worker") == documents
    assert house.ended(job, 60).status == "completed"
    check_whole(house, "worker", documents)
