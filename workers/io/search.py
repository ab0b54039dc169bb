"""Search: the chunks of ready documents that match a query, by vectors, by keywords, or by both."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from shared.documents.filters import Combination, Condition, parse_filter
from shared.documents.models import Collection
from shared.documents.store import Documents
from shared.documents.text_index import ChunkRef, IndexedChunk
from shared.errors import ReindexNeeded
from workers.index.embedder import EmbedderSource, check_revision
from workers.index.search_index import SearchIndex, SearchResult
from workers.rag_prompt import Passage

Mode = Literal["vector", "keyword", "hybrid"]

# Reciprocal rank fusion: the constant, which docs/retrieval.md compares with the 60 of the original paper, and how many entries of each
# ranking are fused.
RANK_CONSTANT = 10
FUSION_DEPTH = 50


@dataclass(frozen=True, kw_only=True)
class SearchQuery:
    """What to search for, and how. ``reranker`` is the model that ranks the candidates again; "" for none.

    Hits score at least ``threshold`` by the score that orders them; each comes with ``neighbours`` chunks on either side. With ``explain``,
    ranks and counts are reported.
    """

    query: str
    mode: Mode = "hybrid"
    top_k: int = 5
    condition: Condition | None = None
    threshold: float | None = None
    neighbours: int = 0
    reranker: str = ""
    explain: bool = False

    @classmethod
    def from_spec(cls, query: str, spec: Mapping[str, Any]) -> Self:
        """From the fields of a job, which the API has validated."""
        filter_json = spec.get("filter")
        return cls(
            query=query,
            mode=spec.get("mode", "hybrid"),
            top_k=spec["top_k"],
            condition=None if filter_json is None else parse_filter(filter_json),
            threshold=spec.get("threshold"),
            neighbours=spec.get("neighbours") or 0,
            reranker=spec.get("reranker") or "",
            explain=bool(spec.get("explain")),
        )


@dataclass(frozen=True, kw_only=True)
class SearchOutcome:
    """Passages, best first, and ``explanation``: how many chunks each step had and removed, if the query asks for it."""

    passages: list[Passage]
    explanation: dict[str, Any] | None = None


def search_passages(
    query: SearchQuery,
    collection: Collection,
    *,
    documents: Documents,
    embedders: EmbedderSource,
    search_index: SearchIndex,
) -> SearchOutcome:
    """The best passages, best first, without reranking; fewer than ``top_k`` if the collection has no more that match.

    The score is the cosine similarity for ``vector`` and BM25 for ``keyword``. For ``hybrid`` it is the sum of reciprocal
    ranks, scaled so that a chunk that is first in both rankings scores 1. Raises IndexUnavailable, and
    EmbeddingModelMismatch when the collection was indexed with an embedding model that this process does not have.
    """
    try:
        return _Searcher(query, collection, documents, embedders, search_index).search_passages()
    except ReindexNeeded as error:
        documents.note_index_problem(collection.id, error.message)
        raise


class _Searcher:
    """One search. ``_names`` caches the names of the ready documents found so far."""

    def __init__(
        self,
        query: SearchQuery,
        collection: Collection,
        documents: Documents,
        embedders: EmbedderSource,
        search_index: SearchIndex,
    ) -> None:
        self._query = query
        self._collection = collection
        self._documents = documents
        self._embedders = embedders
        self._search_index = search_index
        self._names: dict[str, str] = {}
        self._rankings: dict[str, list[IndexedChunk]] = {}
        self._hidden: set[ChunkRef] = set()
        self._similarities: dict[ChunkRef, float] = {}

    def search_passages(self) -> SearchOutcome:
        query = self._query
        depth = max(FUSION_DEPTH, query.top_k) if query.mode == "hybrid" else query.top_k
        if query.mode != "keyword":
            self._rankings["vector"] = self._by_vector(depth)
        if query.mode != "vector":
            self._rankings["keyword"] = self._by_keyword(depth)
        self._similarities = {chunk.chunk_ref: chunk.score for chunk in self._rankings.get("vector", ())}
        rankings = list(self._rankings.values())
        ranked = rankings[0] if len(rankings) == 1 else _fuse_rankings(*rankings)
        minimum = query.threshold
        hits = [chunk for chunk in ranked if minimum is None or chunk.score >= minimum][: query.top_k]
        passages = [self._passage(chunk) for chunk in hits]
        return SearchOutcome(passages=passages, explanation=self._explanation(ranked) if query.explain else None)

    def _explanation(self, ranked: Sequence[IndexedChunk]) -> dict[str, Any]:
        """What each step of the search had and removed, in chunks."""
        query, index = self._query, self._collection.index
        total = self._search_index.count_matching(index)
        condition, parts = query.condition, []
        if condition is not None:
            is_and = isinstance(condition, Combination) and condition.word == "and"
            for part in condition.parts if isinstance(condition, Combination) and is_and else (condition,):
                removed = total - self._search_index.count_matching(index, part)
                parts.append({"condition": _name_condition(part), "removed": removed})
        minimum = query.threshold
        return {
            "mode": query.mode,
            "chunks": total,
            "lists": {name: len(ranking) for name, ranking in self._rankings.items()},
            "candidates": len(ranked),
            "filter": parts,
            "removed": {
                "filter": 0 if condition is None else total - self._search_index.count_matching(index, condition),
                "not_ready": len(self._hidden),
                "threshold": 0 if minimum is None else sum(chunk.score < minimum for chunk in ranked),
            },
        }

    def _ranks(self, chunk: IndexedChunk) -> dict[str, Any]:
        """The place and score of a chunk in each list; None where it is not in the list."""
        places: dict[str, Any] = {"vector": None, "keyword": None}
        for name, ranking in self._rankings.items():
            for rank, other in enumerate(ranking, 1):
                if other.chunk_ref == chunk.chunk_ref:
                    places[name] = {"rank": rank, "score": other.score}
        return {**places, "fused": chunk.score if len(self._rankings) > 1 else None}

    def _by_vector(self, count: int) -> list[IndexedChunk]:
        embedder = self._embedders.for_model(self._collection.embedding_model)
        check_revision(embedder, self._collection.name, self._collection.embedding_revision)
        [vector] = embedder.embed_texts([self._query.query], role="query")
        index, condition = self._collection.index, self._query.condition
        return self._ready_chunks(lambda limit: self._search_index.search_vectors(index, vector, limit, condition), count)

    def _by_keyword(self, count: int) -> list[IndexedChunk]:
        index, query = self._collection.index, self._query
        return self._ready_chunks(lambda limit: self._search_index.search_text(index, query.query, limit, query.condition), count)

    def _ready_chunks(self, find: Callable[[int], SearchResult], count: int) -> list[IndexedChunk]:
        """The best ``count`` chunks of ready documents. The index also has chunks of documents that are under way,
        replaced or just deleted, so the limit grows until enough chunks are visible."""
        limit = count + 8
        while True:
            result = find(limit)
            if not result.chunks:  # a missing index looks like one in which nothing matches
                self._search_index.require_index(self._collection)
            unknown = {chunk.document_id for chunk in result.chunks} - self._names.keys()
            # The index of a collection may still have chunks of a document that was moved to another one.
            self._names |= self._documents.ready_names(unknown, self._collection.id)
            visible = [chunk for chunk in result.chunks if chunk.document_id in self._names]
            self._hidden |= {chunk.chunk_ref for chunk in result.chunks if chunk.document_id not in self._names}
            if len(visible) >= count or result.exhausted:
                return visible[:count]
            limit *= 4

    def _passage(self, chunk: IndexedChunk) -> Passage:
        neighbours: Sequence[IndexedChunk] = ()
        if self._query.neighbours:
            first, last = chunk.position - self._query.neighbours, chunk.position + self._query.neighbours
            neighbours = self._search_index.document_chunks(self._collection.index, chunk.document_id, first=first, last=last)
        return Passage(
            document_id=chunk.document_id,
            document=self._names[chunk.document_id],
            position=chunk.position,
            page=chunk.page,
            start=chunk.start,
            end=chunk.end,
            headings=chunk.headings,
            text=chunk.text,
            score=chunk.score,
            confidence=chunk.confidence,
            similarity=self._similarities.get(chunk.chunk_ref),
            explain=self._ranks(chunk) if self._query.explain else None,
            neighbours=tuple(
                {
                    "position": other.position,
                    "page": other.page,
                    "start": other.start,
                    "end": other.end,
                    "headings": list(other.headings),
                    "text": other.text,
                }
                for other in neighbours
                if other.position != chunk.position
            ),
        )


def _name_condition(condition: Condition) -> str:
    return condition.word if isinstance(condition, Combination) else f"{condition.field} {condition.operator}"


def _fuse_rankings(*rankings: Sequence[IndexedChunk]) -> list[IndexedChunk]:
    """Reciprocal rank fusion (Cormack, Clarke and Büttcher, 2009)."""
    scores: dict[ChunkRef, float] = {}
    chunks: dict[ChunkRef, IndexedChunk] = {}
    for ranking in rankings:
        for rank, chunk in enumerate(ranking, 1):
            ref = chunk.chunk_ref
            scores[ref] = scores.get(ref, 0.0) + (RANK_CONSTANT + 1) / (RANK_CONSTANT + rank) / len(rankings)
            chunks.setdefault(ref, chunk)
    # Sorting is stable: among equal scores, chunks of the first ranking stay in front.
    best = sorted(scores, key=lambda ref: -scores[ref])
    return [replace(chunks[ref], score=scores[ref]) for ref in best]
