"""Vector stores with OpenAI's own client: stores, files, batches and searches, which are collections, documents and native searches."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import openai
import pytest
from openai.types import VectorStore

from testing.stack import Stack
from testing.waiting import wait_until

TEXTS = {
    "opening.txt": b"The archive is open on weekdays from nine to five.",
    "tea.txt": b"The reading room serves tea at four.",
    "boiler.txt": b"The boiler in the cellar was repaired.",
}


@pytest.fixture
def store(client: openai.OpenAI) -> Iterator[VectorStore]:
    store = client.vector_stores.create(name="Minutes of the archive", metadata={"team": "archive"})
    yield store
    if any(listed.id == store.id for listed in client.vector_stores.list(limit=100)):
        client.vector_stores.delete(store.id)


def put_file(client: openai.OpenAI, name: str, data: bytes | None = None) -> str:
    return client.files.create(file=(name, TEXTS[name] if data is None else data), purpose="assistants").id


def fields(entry: Any) -> dict[str, Any]:
    """A model of the client with its extra fields, checked by its own type."""
    type(entry).model_validate_json(entry.model_dump_json(), strict=True)
    return dict(entry.model_dump())


def test_a_store_is_a_collection(v1_stack: Stack, client: openai.OpenAI, store: VectorStore) -> None:
    assert fields(store)["metadata"] == {"team": "archive"}
    assert (store.name, store.status, store.usage_bytes, store.file_counts.total) == ("Minutes of the archive", "completed", 0, 0)
    changed = client.vector_stores.update(store.id, name="New", expires_after={"anchor": "last_active_at", "days": 2})
    assert changed.expires_at is not None
    assert changed.expires_after is not None
    assert changed.expires_at == changed.last_active_at + 2 * 86400  # type: ignore[operator]
    assert (changed.name, changed.metadata) == ("New", {"team": "archive"})
    assert client.vector_stores.update(store.id, expires_after=None).expires_after is None
    # A name that a collection can have is its name, unless another one has it.
    named = [client.vector_stores.create(name="vector-minutes") for _ in range(2)]
    try:
        assert [each.name for each in named] == ["vector-minutes"] * 2
        assert [fields(each)["collection"] for each in named] == ["vector-minutes", named[1].id]
        assert v1_stack.client.get("/collections/vector-minutes").json()["id"] == f"col_{named[0].id.removeprefix('vs_')}"
    finally:
        for each in named:
            assert client.vector_stores.delete(each.id).deleted
    assert v1_stack.client.get("/collections/vector-minutes").status_code == 404


def test_documents_of_the_native_api_are_files(v1_stack: Stack, client: openai.OpenAI) -> None:
    files = {"file": ("boiler.txt", TEXTS["boiler.txt"])}
    upload = v1_stack.client.post("/collections/native/documents", files=files)
    [document] = upload.json()["data"]
    v1_stack.ended(upload.json()["batch"]["id"])
    [store] = [each for each in client.vector_stores.list(limit=100) if each.name == "native"]
    assert (store.file_counts.completed, store.usage_bytes) == (1, len(TEXTS["boiler.txt"]))
    [file] = client.vector_stores.files.list(store.id)
    assert file.id == f"file-{document['id'].removeprefix('doc_')}"
    assert client.vector_stores.files.retrieve(file.id, vector_store_id=store.id).status == "completed"
    [hit] = client.vector_stores.search(store.id, query="boiler", max_num_results=1)
    assert (hit.file_id, hit.filename) == (file.id, "boiler.txt")
    assert v1_stack.client.delete(f"/documents/{document['id']}").status_code == 200
    assert client.vector_stores.retrieve(store.id).file_counts.total == 0
    assert v1_stack.client.delete("/collections/native").status_code == 200
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.retrieve(store.id)


def test_files_are_put_searched_changed_and_removed(client: openai.OpenAI, store: VectorStore) -> None:
    ids = {name: put_file(client, name) for name in TEXTS}
    files = client.vector_stores.files
    for year, (name, id) in enumerate(ids.items(), 2024):
        file = files.create_and_poll(id, vector_store_id=store.id, attributes={"year": year, "draft": False, "name": name})
        assert (file.id, file.status, file.usage_bytes, file.last_error) == (id, "completed", len(TEXTS[name]), None)
        assert fields(file)["attributes"] == {"year": year, "draft": False, "name": name}
    # The same file again is the same document.
    assert files.create(store.id, file_id=ids["tea.txt"]).status == "completed"
    assert client.vector_stores.retrieve(store.id).file_counts.completed == 3
    assert [part.text for part in files.content(ids["tea.txt"], vector_store_id=store.id)] == [TEXTS["tea.txt"].decode()]

    def search(query: Any, **options: Any) -> list[str]:
        hits = list(client.vector_stores.search(store.id, query=query, **options))
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert all(hit.content[0].text == TEXTS[hit.filename].decode() for hit in hits)
        assert all(fields(hit)["page"] == 1 and fields(hit)["end_index"] == len(TEXTS[hit.filename]) for hit in hits)
        return [hit.filename for hit in hits]

    assert search("When is the archive open?", max_num_results=1) == ["opening.txt"]
    assert sorted(search(["tea", "boiler"], max_num_results=2)) == ["boiler.txt", "tea.txt"]
    assert search("tea", ranking_options={"score_threshold": 0.99, "ranker": "none"}) == ["tea.txt"]
    later = {"type": "gt", "key": "year", "value": 2024}
    assert sorted(search("the", filters=later)) == ["boiler.txt", "tea.txt"]
    both = {"type": "and", "filters": [later, {"type": "in", "key": "name", "value": ["tea.txt", "opening.txt"]}]}
    assert search("the", filters=both) == ["tea.txt"]
    # A filter finds new attributes at once.
    changed = files.update(ids["opening.txt"], vector_store_id=store.id, attributes={"year": 2030})
    assert changed.attributes == {"year": 2030}
    assert search("the", filters={"type": "eq", "key": "year", "value": 2030}) == ["opening.txt"]
    assert files.update(ids["opening.txt"], vector_store_id=store.id, attributes=None).attributes == {}

    assert files.delete(ids["opening.txt"], vector_store_id=store.id).deleted
    assert search("archive", filters={"type": "eq", "key": "year", "value": 2024}) == []
    assert client.files.retrieve(ids["opening.txt"]).bytes == len(TEXTS["opening.txt"])
    # A file that is deleted leaves all stores, as with OpenAI.
    client.files.delete(ids["tea.txt"])
    assert [file.id for file in files.list(store.id)] == [ids["boiler.txt"]]
    # It can be put back.
    assert files.create_and_poll(ids["opening.txt"], vector_store_id=store.id).status == "completed"


def test_files_with_one_name_or_with_the_same_bytes_are_two(client: openai.OpenAI, store: VectorStore) -> None:
    ids = [put_file(client, "tea.txt"), put_file(client, "tea.txt"), put_file(client, "tea.txt", b"Coffee is served at noon.")]
    batch = client.vector_stores.file_batches.create_and_poll(store.id, file_ids=ids)
    assert (batch.status, batch.file_counts.completed, batch.file_counts.total) == ("completed", 3, 3)
    hits = list(client.vector_stores.search(store.id, query="served"))
    assert (sorted(hit.file_id for hit in hits), {hit.filename for hit in hits}) == (sorted(ids), {"tea.txt"})
    # Deleting one leaves the others.
    client.vector_stores.files.delete(ids[0], vector_store_id=store.id)
    assert sorted(file.id for file in client.vector_stores.files.list(store.id)) == sorted(ids[1:])
    for id in ids:
        client.files.delete(id)


def test_file_batches_have_the_states_of_their_documents(v1_stack: Stack, client: openai.OpenAI, store: VectorStore) -> None:
    batches = client.vector_stores.file_batches
    good, bad = put_file(client, "opening.txt"), put_file(client, "empty.txt", b"  \n")
    files: Any = [{"file_id": good, "attributes": {"kind": "text"}}, {"file_id": bad}]
    batch = batches.poll(batches.create(store.id, files=files).id, vector_store_id=store.id)
    counts = batch.file_counts
    assert (batch.status, counts.completed, counts.failed, counts.total) == ("completed", 1, 1, 2)
    listed = {file.id: file for file in batches.list_files(batch.id, vector_store_id=store.id)}
    assert listed[good].attributes == {"kind": "text"}
    error = listed[bad].last_error
    assert error is not None
    assert (error.code, listed[bad].status) == ("invalid_file", "failed")
    assert [file.id for file in batches.list_files(batch.id, vector_store_id=store.id, filter="failed")] == [bad]
    assert v1_stack.job(fields(batch)["job_id"])["kind"] == "batch"
    assert batches.cancel(batch.id, vector_store_id=store.id).id == batch.id
    assert client.vector_stores.retrieve(store.id).file_counts.failed == 1
    for id in (good, bad):
        client.files.delete(id)


def test_lists_have_pages(client: openai.OpenAI, store: VectorStore) -> None:
    ids = [put_file(client, name) for name in TEXTS]
    batch = client.vector_stores.file_batches.create_and_poll(store.id, file_ids=ids)
    listings: list[Callable[..., Any]] = [
        partial(client.vector_stores.files.list, store.id),
        partial(client.vector_stores.file_batches.list_files, batch.id, vector_store_id=store.id),
    ]
    for pages in listings:
        assert [file.id for file in pages(limit=1, order="asc")] == ids
        assert [file.id for file in pages(limit=2)] == ids[::-1]
        assert [file.id for file in pages(before=ids[0], limit=1).data] == [ids[1]]
        assert [file.id for file in pages(filter="in_progress")] == []
    stores = [client.vector_stores.create().id for _ in range(2)]
    assert [each.id for each in client.vector_stores.list(limit=1, order="asc")][-2:] == stores
    assert [each.id for each in client.vector_stores.list(before=store.id, limit=100).data] == stores[::-1]
    for id in stores:
        client.vector_stores.delete(id)
    for id in ids:
        client.files.delete(id)


def test_a_store_made_of_files_is_chunked_as_asked(client: openai.OpenAI) -> None:
    text = " ".join(f"Sentence number {number} is about the archive." for number in range(60)).encode()
    file = put_file(client, "long.txt", text)
    strategy: Any = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 10}}
    store = client.vector_stores.create(name="x", file_ids=[file], chunking_strategy=strategy)
    assert store.file_counts.total == 1
    wait_until(lambda: client.vector_stores.retrieve(store.id).file_counts.completed == 1, "the file is completed")
    found = client.vector_stores.files.retrieve(file, vector_store_id=store.id)
    assert found.chunking_strategy is not None
    assert fields(found)["chunking_strategy"] == strategy
    assert len(list(client.vector_stores.search(store.id, query="archive", max_num_results=50))) > 4
    other: Any = {"type": "static", "static": {"max_chunk_size_tokens": 200, "chunk_overlap_tokens": 10}}
    with pytest.raises(openai.BadRequestError) as refused:
        client.vector_stores.files.create(store.id, file_id=put_file(client, "tea.txt"), chunking_strategy=other)
    assert refused.value.param == "chunking_strategy"
    client.vector_stores.delete(store.id)
