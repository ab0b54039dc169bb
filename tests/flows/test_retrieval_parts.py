"""Retrieval called directly, with a real Chroma server and text index: rerankers that work and one that cannot be loaded."""

from pathlib import Path

from shared.models.catalogue import Catalogue, ModelEntry
from tests.flows.shelf import FixedEmbedder, Shelf
from workers.cpu.chunking import Chunk
from workers.index.reranker import Rerankers
from workers.io.retrieval import Retrieval, Retriever
from workers.io.search import SearchQuery

TEXTS = ["boilers", "boilers want coal", "coal is black"]


def put_texts(shelf: Shelf) -> None:
    """Give the document of the shelf a chunk per text."""
    index, document = shelf.collection.index, shelf.document
    shelf.index.put_vectors(index, document, range(len(TEXTS)), [[1.0, float(n)] + [0.0] * 382 for n in range(len(TEXTS))])
    chunks = [Chunk(position, 1, 0, len(text), text) for position, text in enumerate(TEXTS)]
    shelf.index.put_document(index, shelf.attributes, chunks)


def retrieve(shelf: Shelf, *queries: str, reranker: str, threshold: float | None = None, top_k: int = 2) -> Retrieval:
    entries = (
        ModelEntry(name="overlap", url="overlap:", task="rerank"),
        ModelEntry(name="missing", url=str(Path(shelf.settings.data_dir) / "none"), task="rerank"),
    )
    retriever = Retriever(shelf.documents, FixedEmbedder(), shelf.index, Rerankers(Catalogue(entries)))  # type: ignore[arg-type]
    searches = [
        SearchQuery(query=query, mode="keyword", top_k=top_k, reranker=reranker, threshold=threshold, explain=True)
        for query in queries
    ]
    return retriever.retrieve(searches, [shelf.collection.id], raise_if_stopped=lambda: None)


def test_a_reranker_orders_all_candidates(shelf: Shelf) -> None:
    put_texts(shelf)
    found = retrieve(shelf, "coal for black boilers", reranker="overlap", top_k=1)
    assert [(passage.text, passage.rerank_score) for passage in found.passages] in (
        [("coal is black", 0.5)],
        [("boilers want coal", 0.5)],
    )
    assert (found.reranker, found.warnings) == ("overlap", [])
    # The threshold applies to the score of the reranker.
    found = retrieve(shelf, "coal for black boilers", reranker="overlap", threshold=0.3, top_k=3)
    assert sorted(passage.text for passage in found.passages) == ["boilers want coal", "coal is black"]
    assert found.explanation is not None
    assert found.explanation["removed"]["threshold"] == 1
    # Of several queries, each passage is judged for the one that found it best.
    found = retrieve(shelf, "black", "boilers", reranker="overlap", top_k=3)
    assert {passage.text: passage.rerank_score for passage in found.passages} == dict.fromkeys(TEXTS, 1.0)


def test_a_search_answers_although_its_reranker_cannot_be_loaded(shelf: Shelf) -> None:
    put_texts(shelf)
    plain = retrieve(shelf, "black coal", reranker="")
    found = retrieve(shelf, "black coal", reranker="missing")
    assert [passage.chunk_id for passage in found.passages] == [passage.chunk_id for passage in plain.passages]
    assert [passage.rerank_score for passage in found.passages] == [None] * 2
    [warning] = found.warnings
    assert "reranker is unavailable" in warning
    assert "missing" in warning
    assert found.explanation is not None
    assert found.explanation["rerank"]["applied"] is False
