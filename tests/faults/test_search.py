"""Faults 38 and 39 on the index as it is searched and made anew: the server that has the vectors dies, or hangs."""

import pytest

from tests.faults.rig.house import TEXT, House
from tests.faults.rig.pausing import pause
from tests.faults.rig.processes import kill, stopped
from tests.faults.test_documents import HOUSE, text
from tests.waiting import wait_until

__all__ = ["HOUSE"]

pytestmark = pytest.mark.slow_fault


def reindex(house: House, collection: str) -> str:
    answer = house.client.post(f"/collections/{collection}/reindex", json={"chunk_tokens": 40})
    assert answer.status_code == 202, answer.text
    job = str(answer.json()["id"])
    house.ledger.accepted(job)
    return job


def found(house: House, collection: str) -> set[str]:
    answer = house.client.post(f"/collections/{collection}/search", json={"query": TEXT, "top_k": 100})
    assert answer.status_code == 200, answer.text
    return {hit["document_id"] for hit in answer.json()["data"]}


@pytest.mark.parametrize("fault", ["killed", "hangs"])
def test_38_39_an_index_in_trouble_while_it_is_made_anew(house: House, fault: str) -> None:
    name = f"anew-{fault}"
    uploads = [house.upload(name, f"{n}.txt", text(f"{fault} {n}", 40)) for n in range(4)]
    for _, job in uploads:
        house.ended(job, 60)
    documents = {document for document, _ in uploads}
    job = reindex(house, name)
    wait_until(lambda: house.job(job).phase == "reindexing", "the reindex is under way", seconds=30)
    if fault == "killed":
        kill(house.pid("chroma"))
    else:
        with stopped([house.pid("chroma")]):
            answer = house.client.post(f"/collections/{name}/search", json={"query": TEXT}, headers={"Prefer": "wait=2"})
            assert answer.status_code == 202, answer.text
            house.ledger.accepted(answer.json()["id"], ends=("completed", "failed"))
            words = house.client.post(f"/collections/{name}/search", json={"query": TEXT, "mode": "keyword"})
            assert words.status_code == 200, "words are found without the vectors"
            pause(5)
    assert house.ended(job, 120).status == "completed"
    assert found(house, name) == documents
    for document in documents:
        chunks = house.client.get(f"/documents/{document}").json()["chunks"]
        listed = house.client.get(f"/documents/{document}/chunks", params={"limit": 100}).json()["data"]
        assert [chunk["position"] for chunk in listed] == list(range(chunks))


def test_38_a_worker_killed_while_it_makes_an_index_anew_goes_on_where_it_was(house: House) -> None:
    uploads = [house.upload("worker", f"{n}.txt", text(f"worker {n}", 40)) for n in range(4)]
    for _, job in uploads:
        house.ended(job, 60)
    job = reindex(house, "worker")
    wait_until(lambda: house.job(job).phase == "reindexing", "the reindex is under way", seconds=30)
    kill(int(house.job(job).worker.rpartition("/")[2]))
    assert found(house, "worker") == {document for document, _ in uploads}
    assert house.ended(job, 60).status == "completed"
    assert found(house, "worker") == {document for document, _ in uploads}
    assert house.client.get("/collections/worker").json()["reindex_job"] is None
