"""Rerank jobs: the scores of documents for a query."""

from typing import Any

from workers.index.reranker import Rerankers
from workers.runtime.attempt import AttemptHandle

# The job checks for a cancel request after this number of documents.
BATCH = 64


def rerank(attempt: AttemptHandle, rerankers: Rerankers) -> dict[str, Any]:
    """Score the ``documents`` of a job. Raises ModelUnavailable."""
    query, documents = attempt.spec["query"], list(attempt.spec["documents"])
    reranker = rerankers.for_model(attempt.spec["model"])
    scores: list[float] = []
    for start in range(0, len(documents), BATCH):
        attempt.raise_if_stopped()
        scores += reranker.score_documents(query, documents[start : start + BATCH])
    tokens = reranker.count_tokens([query]) * len(documents) + reranker.count_tokens(documents)
    attempt.usage.embedding_tokens = tokens
    return {"scores": scores, "tokens": tokens}
