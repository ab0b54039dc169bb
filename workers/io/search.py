"""Finds the chunks of a collection that answer a query, of documents that are ready: by vectors, by words, or by both.

Knows nothing of prompts or of what the chunks are for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from shared.documents.filters import Condition, parse_filter
from shared.documents.models import Collection
from shared.documents.store import Documents
from shared.documents.text_index import IndexedChunk, TextIndex
from workers.index.embedder import EmbedderSource, check_revision
from workers.index.vector_store import VectorStore
from workers.rag_prompt import Passage

Mode = Literal["vector", "keyword", "hybrid"]

# Of reciprocal rank fusion: the constant of the paper that brought it, and how deep each of the two lists is read.
RANK_CONSTANT = 60
DEPTH = 50

MOST_PLACES = 50_000
"""Of chunks that meet a filter, told to the vector index by name. When there are more, most meet it, and those that do not are
dropped afterwards."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is looked for, and how. ``threshold`` is the least score of a hit; ``neighbours`` how many chunks before and
    after each hit come with it."""

    query: str
    mode: Mode = "hybrid"
    top_k: int = 5
    condition: Condition | None = None
    threshold: float | None = None
    neighbours: int = 0

    @classmethod
    def from_spec(cls, query: str, spec: Mapping[str, Any]) -> Self:
        """From the fields of a job, which the API has checked."""
        given = spec.get("filter")
        return cls(
            query=query,
            mode=spec.get("mode", "hybrid"),
            top_k=spec["top_k"],
            condition=None if given is None else parse_filter(given),
            threshold=spec.get("threshold"),
            neighbours=spec.get("neighbours", 0),
        )


def search(
    question: Question,
    collection: Collection,
    *,
    documents: Documents,
    embedders: EmbedderSource,
    vectors: VectorStore,
    texts: TextIndex,
) -> list[Passage]:
    """The best passages, best first; fewer than ``top_k`` when the collection has no more that meet the question's terms.

    The score is a cosine for ``vector``, BM25 for ``keyword``; for ``hybrid`` the sum of reciprocal ranks, so scaled that it
    is 1 for what is first by vector and by words. Raises IndexUnavailable, and EmbeddingModelMismatch when the collection was
    indexed with an embedding model that this process does not have.
    """
    return _Search(question, collection, documents, embedders, vectors, texts).run()


class _Search:
    def __init__(
        self,
        question: Question,
        collection: Collection,
        documents: Documents,
        embedders: EmbedderSource,
        vectors: VectorStore,
        texts: TextIndex,
    ) -> None:
        self._question = question
        self._collection = collection
        self._documents = documents
        self._embedders = embedders
        self._vectors = vectors
        self._texts = texts
        self._names: dict[str, str] = {}

    def run(self) -> list[Passage]:
        question = self._question
        if question.mode == "vector":
            found = self._by_vector(question.top_k)
        elif question.mode == "keyword":
            found = self._by_words(question.top_k)
        else:
            depth = max(DEPTH, question.top_k)
            found = _fused(self._by_vector(depth), self._by_words(depth))
        least = question.threshold
        chosen = [entry for entry in found if least is None or entry.score >= least][: question.top_k]
        return [self._passage(entry) for entry in chosen]

    def _by_vector(self, wanted: int) -> list[IndexedChunk]:
        embedder = self._embedders.for_model(self._collection.embedding_model)
        check_revision(embedder, self._collection.name, self._collection.embedding_revision)
        [vector] = embedder.encode([self._question.query])
        index, condition = self._collection.index, self._question.condition
        within = None if condition is None else self._texts.matching_chunks(index, condition, MOST_PLACES)

        def ask(limit: int) -> tuple[list[IndexedChunk], bool]:
            hits = self._vectors.nearest_chunks(index, vector, limit, within)
            # Tested again where the places were too many to tell, and harmless where they were not.
            kept = self._texts.load_chunks(index, (hit.chunk_ref for hit in hits), condition)
            return [replace(kept[hit.chunk_ref], score=hit.score) for hit in hits if hit.chunk_ref in kept], len(hits) < limit

        return self._visible(ask, wanted)

    def _by_words(self, wanted: int) -> list[IndexedChunk]:
        index, question = self._collection.index, self._question

        def ask(limit: int) -> tuple[list[IndexedChunk], bool]:
            found = self._texts.search_text(index, question.query, limit, question.condition)
            return found, len(found) < limit

        return self._visible(ask, wanted)

    def _visible(self, ask: Callable[[int], tuple[list[IndexedChunk], bool]], wanted: int) -> list[IndexedChunk]:
        """The best of ready documents. Chunks of others (under way, replaced, just deleted) are in the index too."""
        limit = wanted + 8
        while True:
            found, was_all = ask(limit)
            self._names |= self._documents.ready_names({entry.document_id for entry in found} - self._names.keys())
            visible = [entry for entry in found if entry.document_id in self._names]
            if len(visible) >= wanted or was_all:
                return visible[:wanted]
            limit *= 4

    def _passage(self, entry: IndexedChunk) -> Passage:
        around: Sequence[IndexedChunk] = ()
        if self._question.neighbours:
            first, last = entry.position - self._question.neighbours, entry.position + self._question.neighbours
            around = self._texts.document_chunks(self._collection.index, entry.document_id, first=first, last=last)
        return Passage(
            document_id=entry.document_id,
            document=self._names[entry.document_id],
            position=entry.position,
            page=entry.page,
            start=entry.start,
            end=entry.end,
            headings=entry.headings,
            text=entry.text,
            score=entry.score,
            neighbours=tuple(
                {
                    "position": other.position,
                    "page": other.page,
                    "start": other.start,
                    "end": other.end,
                    "headings": list(other.headings),
                    "text": other.text,
                }
                for other in around
                if other.position != entry.position
            ),
        )


def _fused(*lists: Sequence[IndexedChunk]) -> list[IndexedChunk]:
    """Reciprocal rank fusion (Cormack, Clarke and Büttcher, 2009)."""
    scores: dict[tuple[str, int], float] = {}
    entries: dict[tuple[str, int], IndexedChunk] = {}
    for ranked in lists:
        for rank, entry in enumerate(ranked, 1):
            scores[entry.chunk_ref] = scores.get(entry.chunk_ref, 0.0) + (RANK_CONSTANT + 1) / (RANK_CONSTANT + rank) / len(lists)
            entries.setdefault(entry.chunk_ref, entry)
    # Sorting is stable, so of equals the one that a vector found comes first.
    best = sorted(scores, key=lambda place: -scores[place])
    return [replace(entries[place], score=scores[place]) for place in best]
