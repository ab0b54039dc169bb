"""Retrieval: the best passages of one or several collections for one or several queries, ranked by a reranker if the search has one.

A reranker that cannot be loaded does not fail the search: it answers with the order of the search, and with a warning.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from shared.documents.store import Documents
from shared.errors import ModelUnavailable
from workers.index.embedder import EmbedderSource
from workers.index.reranker import Rerankers
from workers.index.search_index import SearchIndex
from workers.io.search import SearchOutcome, SearchQuery, search_passages
from workers.rag_prompt import Passage

logger = logging.getLogger(__name__)

RERANK_DEPTH = 50
"""Candidates that a reranker reads, if fewer hits are asked for."""
BATCH = 16
"""Candidates that are scored before the next look for a cancel request."""


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Passages, best first. ``reranker`` is the model that ordered them; "" if none did. ``explanation`` is for the first query."""

    passages: list[Passage]
    reranker: str = ""
    warnings: list[str] = field(default_factory=list)
    explanation: dict[str, Any] | None = None


@dataclass(frozen=True)
class _Candidate:
    passage: Passage
    query: str


def relevant_passages(passages: Sequence[Passage], minimum: float) -> list[Passage]:
    """The passages without those that are less relevant than ``minimum``; 0 keeps all.

    A passage whose relevance is unknown, as only its words were found, stays if another one is relevant, or if none was compared by
    anything else.
    """
    if not minimum:
        return list(passages)
    known = [passage.relevance for passage in passages if passage.relevance is not None]
    if known and max(known) < minimum:
        return []
    return [passage for passage in passages if passage.relevance is None or passage.relevance >= minimum]


class Retriever:
    """Searches the collections of one server. Safe to use from many threads."""

    def __init__(self, documents: Documents, embedders: EmbedderSource, search_index: SearchIndex, rerankers: Rerankers) -> None:
        self._documents = documents
        self._embedders = embedders
        self._search_index = search_index
        self._rerankers = rerankers

    def retrieve(
        self, queries: Sequence[SearchQuery], collection_ids: Sequence[str], *, raise_if_stopped: Callable[[], None]
    ) -> Retrieval:
        """The best passages of all collections for all queries, which differ only in their text.

        A passage that several queries find is judged for the one that it suits best. Raises what ``search_passages`` raises, and what
        ``raise_if_stopped`` does.
        """
        options = queries[0]
        depth = max(RERANK_DEPTH, options.top_k) if options.reranker else options.top_k
        # The threshold applies to the final score.
        wide = {"top_k": depth, "threshold": None} if options.reranker else {}
        best: dict[str, _Candidate] = {}
        explanation = None
        for query in queries:
            for collection_id in collection_ids:
                outcome = self._search(replace(query, **wide), collection_id)  # type: ignore[arg-type]
                explanation = explanation or outcome.explanation
                for passage in outcome.passages:
                    known = best.get(passage.chunk_id)
                    if known is None or passage.score > known.passage.score:
                        best[passage.chunk_id] = _Candidate(passage, query.query)
        # Sorting is stable: among equal scores, earlier queries and collections stay in front.
        candidates = sorted(best.values(), key=lambda candidate: -candidate.passage.score)[:depth]
        if not options.reranker or not candidates:
            return Retrieval(passages=[candidate.passage for candidate in candidates], explanation=explanation)
        return self._rerank(candidates, options, explanation, raise_if_stopped)

    def _search(self, query: SearchQuery, collection_id: str) -> SearchOutcome:
        collection = self._documents.collection_by_id(collection_id)
        while True:
            outcome = search_passages(
                query, collection, documents=self._documents, embedders=self._embedders, search_index=self._search_index
            )
            latest = self._documents.collection_by_id(collection_id)
            # A reindex may have replaced the index, and dropped the old one, during the search.
            if latest.index == collection.index:
                self._documents.note_use(collection_id)
                return outcome
            collection = latest

    def _rerank(
        self,
        candidates: Sequence[_Candidate],
        options: SearchQuery,
        explanation: dict[str, Any] | None,
        raise_if_stopped: Callable[[], None],
    ) -> Retrieval:
        start, reranker, warnings = time.monotonic(), options.reranker, []
        try:
            passages = self._score(candidates, options, raise_if_stopped)
        except ModelUnavailable as error:
            logger.warning("a search was not reranked: %s", error.message)
            warnings.append(f"The reranker is unavailable, so the hits keep the order of the search. {error.message}")
            passages, reranker = [candidate.passage for candidate in candidates], ""
        minimum = options.threshold
        kept = [passage for passage in passages if minimum is None or passage.order_score >= minimum]
        if explanation is not None:
            explanation["removed"]["threshold"] = len(passages) - len(kept)
            explanation["rerank"] = {
                "model": options.reranker,
                "candidates": len(candidates),
                "seconds": round(time.monotonic() - start, 4),
                "applied": bool(reranker),
            }
        return Retrieval(passages=kept[: options.top_k], reranker=reranker, warnings=warnings, explanation=explanation)

    def _score(
        self, candidates: Sequence[_Candidate], options: SearchQuery, raise_if_stopped: Callable[[], None]
    ) -> list[Passage]:
        """The candidates in the order of the reranker. Raises ModelUnavailable."""
        model = self._rerankers.for_model(options.reranker)
        scores: dict[str, float] = {}
        for query in dict.fromkeys(candidate.query for candidate in candidates):
            passages = [candidate.passage for candidate in candidates if candidate.query == query]
            for first in range(0, len(passages), BATCH):
                raise_if_stopped()
                batch = passages[first : first + BATCH]
                batch_scores = model.score_documents(query, [passage.headed_text for passage in batch])
                scores |= zip((passage.chunk_id for passage in batch), batch_scores, strict=True)
        scored = [replace(candidate.passage, rerank_score=scores[candidate.passage.chunk_id]) for candidate in candidates]
        ordered = sorted(scored, key=lambda passage: -passage.order_score)
        if not options.explain:
            return ordered
        return [
            replace(passage, explain={**(passage.explain or {}), "rerank": {"rank": rank, "score": passage.rerank_score}})
            for rank, passage in enumerate(ordered, 1)
        ]
