"""Document store: deduplication, fencing, versions, lists, and deletion that leaves no key."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from shared.documents.files import DocumentFiles
from shared.documents.models import Collection, Document
from shared.documents.store import Documents
from shared.errors import Conflict, InvalidValue, NameTaken, NotFound, QuotaExceeded
from shared.ids import DOCUMENT, new_id
from shared.settings import Settings

MODEL = "all-minilm"


@pytest.fixture
def documents(redis_client: "redis.Redis", settings: Settings) -> Documents:
    return Documents(redis_client, settings)


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


def test_a_collection_is_created_once_and_belongs_to_its_owner(documents: Documents, collection: Collection) -> None:
    assert documents.ensure_collection("ada", "papers", "another-model") == collection
    assert documents.ensure_collection("bob", "papers", MODEL).id != collection.id
    assert documents.list_collections("ada") == [collection]
    with pytest.raises(NotFound):
        documents.find_collection("eve", "papers")


@pytest.mark.parametrize("name", ["", "-a", "a/b", "a" * 64, "a\n", "é", "..", "a b"])
def test_an_invalid_collection_name_is_rejected(documents: Documents, name: str) -> None:
    with pytest.raises(InvalidValue):
        documents.ensure_collection("ada", name, MODEL)


def test_the_clients_file_name_is_kept_unchanged(documents: Documents, collection: Collection) -> None:
    document, created = register(documents, collection, "a" * 64)
    assert created
    assert documents.get("ada", document.id).name == "../../отчёт.pdf"
    with pytest.raises(NotFound):
        documents.get("eve", document.id)


def test_concurrent_uploads_of_the_same_bytes_create_one_document(documents: Documents, collection: Collection) -> None:
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: register(documents, collection, "b" * 64), range(64)))
    assert len({document.id for document, _ in answers}) == 1
    assert sum(created for _, created in answers) == 1
    assert documents.count_documents(collection.id) == 1


def test_a_document_that_did_not_become_ready_may_be_uploaded_again(documents: Documents, collection: Collection) -> None:
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


def test_only_ready_documents_have_names_for_search(documents: Documents, collection: Collection) -> None:
    document, _ = register(documents, collection, "f" * 64)
    under_way, _ = register(documents, collection, "e" * 64)
    documents.finish(document.id, "job_1", 1, "ready", pages=1, chunks=1)
    ids = [document.id, document.id, under_way.id, new_id(DOCUMENT)]
    assert documents.ready_names(ids) == {document.id: "../../отчёт.pdf"}


def test_lists_page_newest_first_and_survive_removal(documents: Documents, collection: Collection) -> None:
    created = [register(documents, collection, f"{number:064}")[0].id for number in range(7)]
    page, following = documents.list_documents(collection.id, limit=3)
    seen = [document.id for document in page]
    assert following == seen[-1]
    documents.remove(seen[-1], collection.id)
    rest, following = documents.list_documents(collection.id, limit=10, after=following)
    assert following is None
    assert seen + [document.id for document in rest] == sorted(created, reverse=True)


def test_deletion_leaves_no_key(documents: Documents, collection: Collection, redis_client: "redis.Redis") -> None:
    for number in range(5):
        register(documents, collection, f"{number:064}")
    assert documents.drop_collection(collection)
    with pytest.raises(NotFound):
        register(documents, collection, "9" * 64)
    for document_id in documents.document_ids(collection.id, batch=2):
        assert documents.remove(document_id, collection.id)
        assert documents.set_stage(document_id, "job_1", 1, "parsing") == "gone"
    assert redis_client.keys("*") == ["eh:data"], "the count of changes stays"


def test_documents_are_counted_and_listed_by_status(timed: Documents, redis_client: "redis.Redis") -> None:
    collection = timed.ensure_collection("ada", "counted", MODEL)
    ids = [enter(timed, collection, f"{number}.txt", f"{number:064}").id for number in range(6)]
    timed.finish(ids[0], "job_1", 1, "ready", pages=1, chunks=1)
    timed.finish(ids[1], "job_1", 1, "encrypted", reason="It needs a password.")
    timed.set_stage(ids[2], "job_1", 1, "parsing")
    timed.finish(ids[3], "job_1", 1, "failed")
    timed.delete_later(timed.get("ada", ids[4]))
    expected = {"uploaded": 1, "parsing": 1, "ready": 1, "encrypted": 1, "failed": 1}
    assert timed.count_by_status(collection) == expected
    page, following = timed.list_with_status(collection, ["failed", "encrypted", "parsing"], limit=2)
    assert ([document.id for document in page], following) == ([ids[3], ids[2]], ids[2])
    page, following = timed.list_with_status(collection, ["failed", "encrypted", "parsing"], limit=2, after=following)
    assert ([document.id for document in page], following) == ([ids[1]], None)
    # An older Enginehouse has written neither these lists nor the mark that they exist.
    redis_client.delete(*redis_client.keys(f"eh:collection:{collection.id}:status:*"))
    redis_client.hdel(f"eh:collection:{collection.id}", "statuses_indexed")
    assert timed.count_by_status(timed.collection_by_id(collection.id)) == expected
    timed.restore(timed.get("ada", ids[4], hidden=True))
    assert timed.count_by_status(timed.collection_by_id(collection.id)) == {**expected, "uploaded": 2}
    for document_id in ids:
        timed.remove(document_id, collection.id)
    assert timed.count_by_status(collection) == {}


def test_counts_are_mended_after_an_older_process_changed_statuses(documents: Documents, redis_client: "redis.Redis") -> None:
    """A rolling upgrade has such processes: they write a status, but not the lists by status."""
    collection = documents.ensure_collection("ada", "counted", MODEL)
    ids = [enter(documents, collection, f"{number}.txt", f"{number:064}").id for number in range(4)]
    assert documents.miscounted_documents(collection) == []
    redis_client.hset(f"eh:document:{ids[0]}", "status", "ready")
    redis_client.delete(f"eh:document:{ids[1]}")
    redis_client.zrem(f"eh:collection:{collection.id}:documents", ids[1])
    redis_client.hset(f"eh:document:{ids[2]}", "delete_at", "1")
    assert documents.count_by_status(collection) == {"uploaded": 4}
    assert documents.miscounted_documents(collection) == sorted(ids[:3])
    documents.recount(collection)
    assert documents.count_by_status(collection) == {"uploaded": 1, "ready": 1}
    assert documents.miscounted_documents(collection) == []


def test_a_renamed_document_is_found_by_its_new_name_alone(documents: Documents, collection: Collection) -> None:
    document, other = enter(documents, collection, "a.txt", "1" * 64), enter(documents, collection, "b.txt", "2" * 64)
    with pytest.raises(Conflict, match="is being read"):
        documents.rename(document, "c.txt")
    for each in (document, other):
        documents.finish(each.id, "job_1", 1, "ready", pages=1, chunks=1)
    with pytest.raises(NameTaken) as taken:
        documents.rename(document, "b.txt")
    assert taken.value.details["document"] == other.id
    with pytest.raises(InvalidValue, match=r"name: .* at most 4,096 characters"):
        documents.rename(document, "x" * 5000)
    documents.remove(other.id, collection.id)
    for _ in range(2):
        renamed = documents.rename(document, "b.txt")
        assert (renamed.name, renamed.version, renamed.status) == ("b.txt", 1, "ready")
    current = documents.find_current(collection.id, "b.txt")
    assert current is not None
    assert current.id == document.id
    assert documents.find_current(collection.id, "a.txt") is None
    assert enter(documents, collection, "a.txt", "3" * 64).replaces == ""
    assert enter(documents, collection, "b.txt", "4" * 64).replaces == document.id


def test_a_document_is_moved_by_one_job_and_never_over_another(documents: Documents, collection: Collection) -> None:
    target = documents.ensure_collection("ada", "archive", MODEL)
    document = enter(documents, collection, "a.txt", "1" * 64)
    where = {"source": collection.id, "target": target.id}
    assert documents.move(document.id, "job_2", 1, **where)[0] == "in_progress"
    documents.finish(document.id, "job_1", 1, "ready", pages=1, chunks=1)
    rival = enter(documents, target, "a.txt", "2" * 64)
    assert documents.move(document.id, "job_2", 1, **where) == ("taken", rival.id)
    documents.remove(rival.id, target.id)
    rival = enter(documents, target, "b.txt", "1" * 64)
    assert documents.move(document.id, "job_2", 1, **where) == ("taken", rival.id)
    documents.remove(rival.id, target.id)
    for attempt in (1, 2):
        assert documents.move(document.id, "job_2", attempt, **where) == ("moved", "")
    moved = documents.get("ada", document.id)
    assert (moved.collection, moved.collection_id, moved.status, moved.job_id) == ("archive", target.id, "uploaded", "job_2")
    assert (list(documents.document_ids(collection.id)), list(documents.document_ids(target.id))) == ([], [document.id])
    assert documents.count_by_status(collection) == {}
    assert documents.count_by_status(target) == {"uploaded": 1}
    assert documents.move(document.id, "job_3", 1, **where)[0] == "elsewhere"
    assert documents.finish(document.id, "job_2", 2, "ready", pages=1, chunks=1) == "ok"
    assert documents.ready_names([document.id], collection.id) == {}
    assert documents.ready_names([document.id], target.id) == {document.id: "a.txt"}
    assert enter(documents, collection, "a.txt", "1" * 64).id != document.id
    # A delete job that was submitted before the move deletes it where it is.
    assert documents.remove(document.id, collection.id)
    assert list(documents.document_ids(target.id)) == []
    documents.drop_collection(target)
    assert documents.move(document.id, "job_4", 1, **where)[0] == "gone"


def enter(documents: Documents, collection: Collection, name: str, sha256: str) -> Document:
    return documents.register(
        collection,
        document_id=new_id(DOCUMENT),
        name=name,
        size=3,
        sha256=sha256,
        media_type="text/plain",
        job_id="job_1",
    )[0]


def test_a_new_version_replaces_the_old_one_atomically(documents: Documents, collection: Collection) -> None:
    old = enter(documents, collection, "plan.txt", "1" * 64)
    assert documents.finish(old.id, "job_1", 1, "ready") == "ok"
    new = enter(documents, collection, "plan.txt", "2" * 64)
    assert (old.version, new.version) == (1, 2)
    both = [old.id, new.id]
    assert set(documents.ready_names(both)) == {old.id}, "searches find the old version until the new one is ready"
    for _ in range(2):  # a command is repeated if its reply was lost
        assert documents.finish(new.id, "job_1", 1, "ready") == "ok"
        assert set(documents.ready_names(both)) == {new.id}
    assert documents.get("ada", new.id).replaces == old.id
    assert documents.get("ada", old.id).status == "replaced"


def test_an_older_version_that_becomes_ready_late_is_never_searched(documents: Documents, collection: Collection) -> None:
    older, newer = (enter(documents, collection, "plan.txt", digit * 64) for digit in "12")
    assert documents.finish(newer.id, "job_1", 1, "ready") == "ok"
    for _ in range(2):
        assert documents.finish(older.id, "job_1", 1, "ready") == "replaced"
    assert set(documents.ready_names([older.id, newer.id])) == {newer.id}
    assert newer.id in documents.get("ada", older.id).reason


def test_a_return_to_earlier_content_is_a_new_version(documents: Documents, collection: Collection) -> None:
    first = enter(documents, collection, "plan.txt", "1" * 64)
    documents.finish(first.id, "job_1", 1, "ready")
    assert enter(documents, collection, "plan.txt", "1" * 64).id == first.id
    enter(documents, collection, "plan.txt", "2" * 64)
    again = enter(documents, collection, "plan.txt", "1" * 64)
    assert (again.id == first.id, again.version) == (False, 3)


def test_the_same_name_in_another_collection_is_not_a_version(documents: Documents, collection: Collection) -> None:
    first = enter(documents, collection, "plan.txt", "1" * 64)
    second = enter(documents, documents.ensure_collection("ada", "others", MODEL), "plan.txt", "2" * 64)
    for document in (first, second):
        documents.finish(document.id, "job_1", 1, "ready")
    assert set(documents.ready_names([first.id, second.id])) == {first.id, second.id}


def test_a_deleted_version_may_be_followed_by_another(documents: Documents, collection: Collection) -> None:
    first = enter(documents, collection, "plan.txt", "1" * 64)
    documents.finish(first.id, "job_1", 1, "ready")
    documents.remove(first.id, collection.id)
    second = enter(documents, collection, "plan.txt", "1" * 64)
    assert documents.finish(second.id, "job_1", 1, "ready") == "ok"
    assert documents.get("ada", second.id).replaces == ""


def test_registering_an_existing_id_changes_nothing(documents: Documents, collection: Collection) -> None:
    fields = {"name": "a", "size": 1, "sha256": "1" * 64, "media_type": "text/plain", "job_id": "job_1"}
    document_id = new_id(DOCUMENT)
    documents.register(collection, document_id=document_id, **fields)  # type: ignore[arg-type]
    documents.finish(document_id, "job_1", 1, "failed", reason="broken")
    again, _ = documents.register(collection, document_id=document_id, **fields)  # type: ignore[arg-type]
    assert (again.id, again.status) == (document_id, "failed")


def test_a_password_is_never_stored_in_plain_text_and_deleted_completely(
    documents: Documents, redis_client: "redis.Redis", tmp_path: Path
) -> None:
    files, document_id = DocumentFiles(tmp_path), new_id(DOCUMENT)
    passwords = documents.passwords(files, 60)
    passwords.keep(document_id, "sésame")
    assert passwords.look_up(document_id) == "sésame"
    [key] = redis_client.keys("*password")
    pad = files.path(document_id, "pad")
    assert "sésame".encode() not in bytes.fromhex(str(redis_client.get(key))) + pad.read_bytes()
    assert 0 < redis_client.ttl(key) <= 60
    passwords.forget(document_id)
    assert passwords.look_up(document_id) == ""
    assert redis_client.keys("*") == []
    assert not pad.exists()


class Clock:
    """Milliseconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timed(redis_client: "redis.Redis", settings: Settings, clock: Clock) -> Documents:
    return Documents(redis_client, settings, clock=clock)


def ready(documents: Documents, collection: Collection, sha256: str) -> Document:
    document, created = register(documents, collection, sha256)
    assert created
    documents.finish(document.id, "job_1", 1, "ready", pages=1, chunks=1)
    return documents.get("ada", document.id)


def test_a_deleted_document_is_hidden_counted_and_restored(timed: Documents, clock: Clock, redis_client: "redis.Redis") -> None:
    collection = timed.ensure_collection("ada", "papers", MODEL)
    document = ready(timed, collection, "a" * 64)
    until = timed.delete_later(document)
    assert until == clock.now + 60_000
    clock.now += 1000
    assert timed.delete_later(document) == until, "a repeated call does not prolong the time"
    with pytest.raises(NotFound):
        timed.get("ada", document.id)
    assert timed.get("ada", document.id, hidden=True) == document
    assert timed.list_documents(collection.id, limit=5) == ([], None)
    assert timed.count_documents(collection.id) == 0
    assert timed.ready_names([document.id]) == {}
    assert not timed.has_ready_document(collection.id)
    assert list(timed.document_ids(collection.id)) == [document.id], "a reindex and a deletion of the collection still see it"
    assert redis_client.hgetall("eh:owner:ada:stored") == {"documents": "1", "bytes": "3"}, "the limits count it until it is gone"
    clock.now = until - 1
    timed.restore(document)
    timed.restore(document)
    assert timed.get("ada", document.id) == document
    assert timed.ready_names([document.id]) == {document.id: document.name}
    assert timed.count_documents(collection.id) == 1
    assert register(timed, collection, "a" * 64)[0].id == document.id, "its bytes are known again"
    clock.now += 3_600_000
    assert timed.due_deletions(10, again_seconds=60) == []


def test_a_deleted_collection_is_hidden_and_restored_as_it_was(timed: Documents, clock: Clock) -> None:
    collection = timed.ensure_collection("ada", "papers", MODEL)
    document, _ = register(timed, collection, "a" * 64)
    until = timed.delete_collection_later(collection)
    assert until == clock.now + 60_000
    clock.now += 1000
    assert timed.delete_collection_later(collection) == until, "a repeated call does not prolong the time"
    assert timed.list_collections("ada") == []
    for find in (
        lambda: timed.find_collection("ada", "papers"),
        lambda: timed.collection_by_id(collection.id),
        lambda: timed.get("ada", document.id),
        lambda: timed.find_deleted_collection("bob", "papers"),
    ):
        with pytest.raises(NotFound):
            find()
    hidden = timed.find_deleted_collection("ada", "papers")
    assert hidden == timed.collection_by_id(collection.id, hidden=True)
    assert list(timed.every_collection()) == [hidden], "maintenance still sees it"
    assert timed.finish(document.id, "job_1", 1, "ready", pages=1, chunks=1) == "ok", "its documents are read on"
    timed.restore_collection(hidden)
    timed.restore_collection(hidden)
    assert timed.find_collection("ada", "papers") == collection
    assert list(timed.every_collection()) == [collection]
    assert timed.get("ada", document.id).status == "ready"
    with pytest.raises(NotFound):
        timed.find_deleted_collection("ada", "papers")
    clock.now += 3_600_000
    assert timed.due_collections(10, again_seconds=60) == []


def test_a_deleted_collection_is_due_until_it_is_dropped(timed: Documents, clock: Clock, redis_client: "redis.Redis") -> None:
    collection = timed.ensure_collection("ada", "papers", MODEL)
    clock.now = timed.delete_collection_later(collection)
    with pytest.raises(NotFound, match="60 s"):
        timed.restore_collection(collection)
    assert timed.due_collections(10, again_seconds=60) == [(collection.id, "ada")]
    assert timed.due_collections(10, again_seconds=60) == []
    clock.now += 60_000
    assert timed.due_collections(10, again_seconds=60) == [(collection.id, "ada")], "its job was lost"
    assert timed.drop_collection(collection)
    clock.now += 60_000
    assert timed.due_collections(10, again_seconds=60) == []
    assert list(redis_client.scan_iter()) == []


def test_a_deleted_collection_gives_way_to_one_with_its_name(timed: Documents, redis_client: "redis.Redis") -> None:
    first = timed.ensure_collection("ada", "papers", MODEL)
    timed.delete_collection_later(first)
    second = timed.ensure_collection("ada", "papers", MODEL)
    assert second.id != first.id
    with pytest.raises(Conflict, match="papers") as refused:
        timed.restore_collection(first)
    assert (refused.value.code, refused.value.details["collection"]) == ("name_taken", second.id)
    timed.delete_collection_later(second)
    assert timed.find_deleted_collection("ada", "papers").id == second.id, "of two with one name, the last can be restored"
    redis_client.hset("eh:owner:ada:limits", "collections", 1)
    timed.ensure_collection("ada", "letters", MODEL)
    with pytest.raises(QuotaExceeded):
        timed.restore_collection(second)
    redis_client.delete("eh:owner:ada:limits")
    timed.restore_collection(second)
    assert timed.find_collection("ada", "papers").id == second.id


def test_a_deleted_document_is_due_until_it_is_removed(timed: Documents, clock: Clock, redis_client: "redis.Redis") -> None:
    collection = timed.ensure_collection("ada", "papers", MODEL)
    document = ready(timed, collection, "a" * 64)
    clock.now = timed.delete_later(document)
    with pytest.raises(NotFound, match="60 s"):
        timed.restore(document)
    assert timed.due_deletions(10, again_seconds=60) == [(document.id, collection.id, "ada")]
    assert timed.due_deletions(10, again_seconds=60) == []
    clock.now += 60_000
    assert timed.due_deletions(10, again_seconds=60) == [(document.id, collection.id, "ada")], "its job was lost"
    timed.remove(document.id, collection.id)
    clock.now += 60_000
    assert timed.due_deletions(10, again_seconds=60) == []
    assert sorted(redis_client.scan_iter()) == [
        f"eh:collection:{collection.id}",
        "eh:collections:ada",
        "eh:data",
        "eh:stats:notes",
    ]
    with pytest.raises(NotFound):
        timed.restore(document)


def test_a_deleted_document_gives_way_to_one_with_its_name(timed: Documents) -> None:
    collection = timed.ensure_collection("ada", "papers", MODEL)
    document = ready(timed, collection, "a" * 64)
    timed.delete_later(document)
    other = ready(timed, collection, "b" * 64)
    assert (other.version, other.replaces) == (1, "")
    with pytest.raises(Conflict, match=other.id) as refused:
        timed.restore(document)
    assert (refused.value.code, refused.value.details["document"]) == ("name_taken", other.id)
    timed.delete_later(other)
    timed.restore(document)
    with pytest.raises(Conflict, match=document.id):
        timed.restore(other)


def test_a_deleted_document_that_is_being_read_replaces_nothing(timed: Documents) -> None:
    collection = timed.ensure_collection("ada", "papers", MODEL)
    document, _ = register(timed, collection, "a" * 64)
    timed.delete_later(document)
    other = ready(timed, collection, "b" * 64)
    assert timed.finish(document.id, "job_1", 1, "ready", pages=1, chunks=1) == "stale"
    assert timed.get("ada", other.id).status == "ready"
    assert timed.finish(document.id, "job_1", 1, "failed", reason="cancelled") == "ok"
    timed.delete_later(other)
    timed.restore(document)
    assert timed.get("ada", document.id).status == "failed"
