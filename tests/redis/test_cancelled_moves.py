"""A move that ends before the document is indexed returns it to its collection, or says why it cannot."""

from collections.abc import Callable

import pytest

from shared.documents.models import Collection, Document
from shared.documents.store import Documents
from shared.errors import JobFailure
from shared.ids import DOCUMENT, new_id
from shared.jobs.models import Job, Status
from shared.jobs.submission import Submission
from tests.conftest import JobSystem

MODEL = "all-minilm"
LEASE = 30


class Shelves:
    """Two collections, and a document that is moved from one to the other."""

    def __init__(self, system: JobSystem) -> None:
        self.system = system
        self.documents = Documents(system.client, system.settings)
        self.source = self.documents.ensure_collection("ada", "desk", MODEL)
        self.target = self.documents.ensure_collection("ada", "archive", MODEL)

    def add(self, collection: Collection, name: str, sha256: str) -> Document:
        entered, _ = self.documents.register(
            collection,
            document_id=new_id(DOCUMENT),
            name=name,
            size=3,
            sha256=sha256 * 64,
            media_type="text/plain",
            job_id="job_1",
        )
        self.documents.finish(entered.id, "job_1", 1, "ready", reason="1 page has no text.", pages=2, chunks=3)
        return self.documents.get("ada", entered.id)

    def begin_move(self, document: Document) -> Job:
        """Claim a job that moves the document, and move its record."""
        self.system.submitter.submit_job(Submission(kind="ingest", queue="cpu", spec={}, owner="ada", document=document.id))
        job = self.system.transitions.claim("cpu", "w1", new_id("claim"))
        assert isinstance(job, Job)
        outcome = self.documents.move(document.id, job.id, job.attempt, source=self.source.id, target=self.target.id)
        assert outcome == ("moved", "")
        return job

    def cancel(self, job: Job) -> None:
        assert self.system.transitions.finish((job.id, job.attempt), Status.CANCELLED) == "ok"


@pytest.fixture
def shelves(system: JobSystem) -> Shelves:
    return Shelves(system)


@pytest.mark.parametrize("status", [Status.CANCELLED, Status.FAILED])
def test_the_document_is_where_and_as_it_was(shelves: Shelves, status: Status) -> None:
    document = shelves.add(shelves.source, "a.txt", "1")
    documents, before = shelves.documents, document.as_json()
    job = shelves.begin_move(document)
    documents.set_stage(document.id, job.id, 1, "embedding")
    error = JobFailure("The worker has no such model.").as_json() if status is Status.FAILED else None
    assert shelves.system.transitions.finish((job.id, 1), status, error=error) == "ok"
    returned = documents.get("ada", document.id)
    assert {**returned.as_json(), "updated_at": before["updated_at"]} == before
    assert (documents.count_by_status(shelves.source), documents.count_by_status(shelves.target)) == ({"ready": 1}, {})
    assert list(documents.document_ids(shelves.target.id)) == []
    assert documents.find_current(shelves.source.id, "a.txt") is not None
    assert documents.set_stage(document.id, job.id, 1, "indexing") == "stale", "a late write of the attempt"
    assert documents.miscounted_documents(shelves.source) == documents.miscounted_documents(shelves.target) == []
    assert shelves.add(shelves.target, "a.txt", "1").id != document.id, "the other collection has forgotten it"
    assert shelves.add(shelves.source, "b.txt", "1").id == document.id, "and its own knows its bytes"


def test_a_move_can_be_retried_after_it_was_cancelled(shelves: Shelves) -> None:
    document = shelves.add(shelves.source, "a.txt", "1")
    shelves.cancel(shelves.begin_move(document))
    job = shelves.begin_move(document)
    assert shelves.documents.finish(document.id, job.id, 1, "ready", pages=2, chunks=3) == "ok"
    shelves.cancel(job)
    moved = shelves.documents.get("ada", document.id)
    assert (moved.collection, moved.status) == ("archive", "ready"), "the move was complete"


def rebuild(shelves: Shelves) -> None:
    shelves.documents.begin_reindex(shelves.source.id, "next", "job_9")


def delete_source(shelves: Shelves) -> None:
    shelves.documents.delete_collection_later(shelves.source)


def upload_namesake(shelves: Shelves) -> None:
    shelves.add(shelves.source, "a.txt", "2")


@pytest.mark.parametrize(
    ("obstacle", "reason"),
    [(rebuild, "reindexed without it"), (delete_source, "was deleted"), (upload_namesake, "has its name or its bytes")],
)
def test_a_document_that_cannot_return_says_why(shelves: Shelves, obstacle: Callable[[Shelves], None], reason: str) -> None:
    document = shelves.add(shelves.source, "a.txt", "1")
    job = shelves.begin_move(document)
    obstacle(shelves)
    shelves.cancel(job)
    kept = shelves.documents.get("ada", document.id)
    assert (kept.collection, kept.status) == ("archive", "failed")
    assert reason in kept.reason
    assert "retry the job" in kept.reason
