"""SearchIndex: every change reaches both halves, with a real Chroma server and SQLite files."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import redis

from shared.documents.filters import parse_filter
from shared.documents.models import Collection
from shared.documents.store import Documents
from shared.documents.text_index import DocumentAttributes, TextIndex
from shared.errors import IndexUnavailable
from shared.ids import DOCUMENT, JOB, new_id
from shared.settings import Settings
from testing.chroma_server import ChromaServer
from tests.flows.test_ingest_parts import MODEL, chroma
from workers.cpu.chunking import Chunk
from workers.index import vector_store
from workers.index.search_index import SearchIndex
from workers.index.vector_store import VectorStore

__all__ = ["chroma"]


@pytest.fixture
def documents(redis_client: "redis.Redis", settings: Settings) -> Documents:
    return Documents(redis_client, settings)


@pytest.fixture
def collection(documents: Documents) -> Collection:
    return documents.ensure_collection("ada", "papers", MODEL)


@pytest.fixture
def search_index(documents: Documents, settings: Settings, chroma: ChromaServer) -> SearchIndex:
    return SearchIndex.from_settings(documents, replace(settings, chroma_url=chroma.url))


def unit_vector(axis: int) -> list[float]:
    return [float(number == axis) for number in range(8)]


def put(search_index: SearchIndex, index: str, *texts: str, **metadata: Any) -> str:
    """Store a document with one chunk per text; the vector of the n-th chunk points along axis n."""
    document_id = new_id(DOCUMENT)
    search_index.put_vectors(index, document_id, range(len(texts)), [unit_vector(axis) for axis in range(len(texts))])
    attributes = DocumentAttributes(
        id=document_id, name="file.txt", media_type="text/plain", size=1, created_at=1.0, metadata=metadata
    )
    chunks = [Chunk(position, 1, 0, len(text), text) for position, text in enumerate(texts)]
    search_index.put_document(index, attributes, chunks)
    return document_id


def counts(search_index: SearchIndex, index: str) -> tuple[dict[str, int], dict[str, int]]:
    return search_index.text_counts(index), search_index.vector_counts(index)


def test_a_stored_document_is_found_by_words_and_by_vector(search_index: SearchIndex, collection: Collection) -> None:
    document_id = put(search_index, collection.index, "boilers", "valves")
    [by_text] = search_index.search_text(collection.index, "valves", 5).chunks
    best, *_ = search_index.search_vectors(collection.index, unit_vector(1), 5).chunks
    assert by_text.chunk_ref == best.chunk_ref == (document_id, 1)
    assert (best.text, round(best.score, 3)) == ("valves", 1.0)
    assert search_index.contains_document(collection.index, document_id)
    assert search_index.text_count(collection.index, document_id) == search_index.vector_count(collection.index, document_id) == 2
    assert [chunk.text for chunk in search_index.document_chunks(collection.index, document_id, first=1)] == ["valves"]


def test_filters_apply_to_vectors_too(search_index: SearchIndex, collection: Collection) -> None:
    put(search_index, collection.index, "old boilers", year=1804)
    recent = put(search_index, collection.index, "new boilers", year=1990)
    result = search_index.search_vectors(collection.index, unit_vector(0), 5, parse_filter({"metadata.year": {"gt": 1900}}))
    assert ([chunk.document_id for chunk in result.chunks], result.exhausted) == ([recent], True)


def test_filters_that_match_too_many_chunks_apply_after_the_vector_search(
    search_index: SearchIndex, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.index.search_index.MAX_FILTER_CHUNKS", 1)
    put(search_index, collection.index, "draft", year=1804)
    recent = {put(search_index, collection.index, f"boilers {number}", year=1990) for number in range(2)}
    result = search_index.search_vectors(collection.index, unit_vector(0), 3, parse_filter({"metadata.year": 1990}))
    assert ({chunk.document_id for chunk in result.chunks}, result.exhausted) == (recent, False)


def test_a_result_is_exhausted_only_below_its_limit(search_index: SearchIndex, collection: Collection) -> None:
    put(search_index, collection.index, "boiler one", "boiler two")
    for limit, exhausted in ((2, False), (3, True)):
        assert search_index.search_text(collection.index, "boiler", limit).exhausted is exhausted
        assert search_index.search_vectors(collection.index, unit_vector(0), limit).exhausted is exhausted


def test_surplus_vectors_of_an_earlier_attempt_are_removed(search_index: SearchIndex, collection: Collection) -> None:
    document_id = put(search_index, collection.index, "one", "two", "three")
    attributes = DocumentAttributes(id=document_id, name="x", media_type="text/plain", size=1, created_at=1.0, metadata={})
    search_index.put_document(collection.index, attributes, [Chunk(0, 1, 0, 3, "one")], stale_vectors_from=1)
    assert counts(search_index, collection.index) == ({document_id: 1}, {document_id: 1})


def test_a_removed_chunk_is_gone_from_both_halves(search_index: SearchIndex, collection: Collection) -> None:
    document_id = put(search_index, collection.index, "one", "two")
    for _ in range(2):  # removing twice changes nothing
        search_index.remove_from_collection(collection.id, document_id, position=0)
        assert counts(search_index, collection.index) == ({document_id: 1}, {document_id: 1})
    search_index.remove_from_collection(collection.id, document_id)
    assert counts(search_index, collection.index) == ({}, {})


def test_removal_reaches_the_index_that_a_reindex_is_building(
    search_index: SearchIndex, documents: Documents, collection: Collection
) -> None:
    next_index = f"{collection.id}.next"
    documents.begin_reindex(collection.id, next_index, new_id(JOB))
    document_id = put(search_index, collection.index, "one", "two")
    put_again = DocumentAttributes(id=document_id, name="x", media_type="text/plain", size=1, created_at=1.0, metadata={})
    search_index.put_vectors(next_index, document_id, [0], [unit_vector(0)])
    search_index.put_document(next_index, put_again, [Chunk(0, 1, 0, 7, "one two")])
    search_index.remove_from_collection(collection.id, document_id, position=0)
    assert counts(search_index, collection.index) == ({document_id: 1}, {document_id: 1})
    assert counts(search_index, next_index) == ({}, {}), "chunk positions differ there, so the whole document must go"


def test_removal_from_a_deleted_collection_drops_its_indexes(
    search_index: SearchIndex, documents: Documents, collection: Collection
) -> None:
    document_id = put(search_index, collection.index, "one")
    put(search_index, f"{collection.id}.next", "two")
    assert search_index.list_indexes(collection.id) == [collection.index, f"{collection.id}.next"]
    documents.drop_collection(collection)
    search_index.remove_from_collection(collection.id, document_id)
    assert search_index.list_indexes(collection.id) == []


def test_an_index_counts_if_only_one_half_has_it(search_index: SearchIndex, collection: Collection) -> None:
    document_id = put(search_index, collection.index, "one")
    search_index.drop_text(collection.index)
    assert counts(search_index, collection.index) == ({}, {document_id: 1})
    assert search_index.list_indexes(collection.id) == [collection.index]
    search_index.drop_index(collection.index)
    assert search_index.list_indexes(collection.id) == []


def test_only_the_vector_half_needs_the_chroma_server(documents: Documents, settings: Settings, collection: Collection) -> None:
    without_chroma = SearchIndex(documents, TextIndex(settings.text_index_dir), VectorStore("http://127.0.0.1:9"))
    assert without_chroma.search_text(collection.index, "boiler", 5).chunks == []
    with pytest.raises(IndexUnavailable):
        without_chroma.search_vectors(collection.index, unit_vector(0), 5)
    with pytest.raises(IndexUnavailable):
        without_chroma.list_indexes()


def test_no_vector_is_missed_if_others_are_deleted_while_all_are_read(
    search_index: SearchIndex, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_store, "VECTOR_PAGE", 2)
    ids = [new_id(DOCUMENT) for _ in range(6)]
    for axis, id in enumerate(ids):
        search_index.put_vectors(collection.id, id, [0], [unit_vector(axis)])
    found: dict[str, list[float]] = {}
    for refs, rows in search_index.read_vectors(collection.id):
        vectors = np.frombuffer(rows, "<f4").reshape(len(refs), -1).tolist()
        found |= {document: vector for (document, _), vector in zip(refs, vectors, strict=True)}
        if len(found) == 2:
            for document in found:
                search_index.remove_from_index(collection.id, document)
    assert found == {id: unit_vector(axis) for axis, id in enumerate(ids)}
    assert len(search_index.vector_counts(collection.id)) == 4
