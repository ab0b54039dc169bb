"""The records of collections and documents: dedupe, the fence, lists, and what deleting leaves (nothing)."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from shared.documents.record import Collection, Document
from shared.documents.store import Documents
from shared.errors import InvalidValue, NotFound
from shared.ids import DOCUMENT, new_id

MODEL = "all-minilm"


@pytest.fixture
def documents(redis_client: "redis.Redis") -> Documents:
    return Documents(redis_client)


@pytest.fixture
def collection(documents: Documents) -> Collection:
    return documents.ensure_collection("ada", "papers", MODEL)


def register(documents: Documents, collection: Collection, sha256: str, job_id: str = "job_1") -> tuple[Document, bool]:
    return documents.register(
        collection,
        document_id=new_id(DOCUMENT),
        name="../../отчёт.pdf",
        size=3,
        sha256=sha256,
        media_type="application/pdf",
        job_id=job_id,
    )


def test_a_collection_is_made_once_and_belongs_to_its_owner(documents: Documents, collection: Collection) -> None:
    assert documents.ensure_collection("ada", "papers", "another-model") == collection
    assert documents.ensure_collection("bob", "papers", MODEL).id != collection.id
    assert documents.list_collections("ada") == [collection]
    with pytest.raises(NotFound):
        documents.find_collection("eve", "papers")


@pytest.mark.parametrize("name", ["", "-a", "a/b", "a" * 64, "a\n", "é", "..", "a b"])
def test_a_bad_collection_name_is_refused(documents: Documents, name: str) -> None:
    with pytest.raises(InvalidValue):
        documents.ensure_collection("ada", name, MODEL)


def test_the_clients_file_name_is_kept_as_it_came(documents: Documents, collection: Collection) -> None:
    document, created = register(documents, collection, "a" * 64)
    assert created
    assert documents.get("ada", document.id).name == "../../отчёт.pdf"
    with pytest.raises(NotFound):
        documents.get("eve", document.id)


def test_the_same_bytes_sent_by_many_at_once_are_one_document(documents: Documents, collection: Collection) -> None:
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: register(documents, collection, "b" * 64), range(64)))
    assert len({document.id for document, _ in answers}) == 1
    assert sum(created for _, created in answers) == 1
    assert documents.count_documents(collection.id) == 1


def test_a_document_that_ended_other_than_ready_may_be_uploaded_anew(documents: Documents, collection: Collection) -> None:
    first, _ = register(documents, collection, "c" * 64)
    documents.finish(first.id, "job_1", 1, "encrypted", reason="It needs a password.")
    second, created = register(documents, collection, "c" * 64)
    assert created
    assert documents.get("ada", first.id).status == "encrypted"
    documents.remove(first.id, collection.id)
    documents.finish(second.id, "job_1", 1, "ready", pages=2, chunks=5)
    assert register(documents, collection, "c" * 64)[0].id == second.id, "removing the first must not free the second's bytes"


def test_a_stale_attempt_changes_nothing(documents: Documents, collection: Collection) -> None:
    document, _ = register(documents, collection, "d" * 64)
    assert documents.set_stage(document.id, "job_1", 1, "parsing", pages=9, pages_done=4) == "ok"
    assert documents.set_stage(document.id, "job_1", 2, "parsing", pages_done=0) == "ok"
    assert documents.set_stage(document.id, "job_1", 1, "embedding", pages_done=9) == "stale"
    assert documents.finish(document.id, "job_1", 1, "failed", reason="late") == "stale"
    assert documents.finish(document.id, "job_2", 9, "failed", reason="another job") == "stale"
    found = documents.get("ada", document.id)
    assert (found.status, found.pages, found.pages_done, found.reason) == ("parsing", 9, 0, "")


def test_only_ready_documents_are_named_for_search(documents: Documents, collection: Collection) -> None:
    document, _ = register(documents, collection, "f" * 64)
    under_way, _ = register(documents, collection, "e" * 64)
    documents.finish(document.id, "job_1", 1, "ready", pages=1, chunks=1)
    asked = [document.id, document.id, under_way.id, new_id(DOCUMENT)]
    assert documents.ready_names(asked) == {document.id: "../../отчёт.pdf"}


def test_lists_page_newest_first_and_survive_removal(documents: Documents, collection: Collection) -> None:
    made = [register(documents, collection, f"{number:064}")[0].id for number in range(7)]
    page, more = documents.list_documents(collection.id, limit=3)
    assert more
    seen = [document.id for document in page]
    documents.remove(seen[-1], collection.id)
    rest, more = documents.list_documents(collection.id, limit=10, after=seen[-1])
    assert not more
    assert seen + [document.id for document in rest] == sorted(made, reverse=True)


def test_deleting_leaves_no_key(documents: Documents, collection: Collection, redis_client: "redis.Redis") -> None:
    for number in range(5):
        register(documents, collection, f"{number:064}")
    assert documents.drop_collection(collection)
    with pytest.raises(NotFound):
        register(documents, collection, "9" * 64)
    for document_id in documents.document_ids(collection.id, batch=2):
        assert documents.remove(document_id, collection.id)
        assert documents.set_stage(document_id, "job_1", 1, "parsing") == "gone"
    assert redis_client.keys("*") == []
