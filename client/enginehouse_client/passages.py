"""Passages with their citations, for the retrievers of LangChain and LlamaIndex."""

from collections.abc import Mapping
from typing import Any, Literal

from enginehouse_client.models import Hit

Mode = Literal["vector", "keyword", "hybrid"]


def search_options(
    *,
    top_k: int,
    mode: Mode | None,
    filter: Mapping[str, Any] | None,
    threshold: float | None,
    neighbours: int | None,
    rerank: bool | str | None,
) -> dict[str, Any]:
    """The options of a search that are set."""
    options = {"top_k": top_k, "mode": mode, "filter": filter, "threshold": threshold, "neighbours": neighbours, "rerank": rerank}
    return {name: value for name, value in options.items() if value is not None}


def passage_id(hit: Hit) -> str:
    """An id that differs for each passage of a collection."""
    return f"{hit.document_id}:{hit.page}:{hit.start}"


def order_score(hit: Hit) -> float:
    """The score that orders the passages: the reranker's, if there is one."""
    return hit.score if hit.rerank_score is None else hit.rerank_score


def citation(hit: Hit, collection: str) -> dict[str, Any]:
    """Metadata to cite a passage: ``source`` is the name of the document, and ``start`` and ``end`` are the characters of ``page``."""
    ocr = {} if hit.confidence is None else {"ocr_confidence": hit.confidence}
    neighbours = {"neighbours": hit.raw["neighbours"]} if hit.raw.get("neighbours") else {}
    return {
        "source": hit.document,
        "page": hit.page,
        "citation": f"{hit.document}, page {hit.page}",
        "collection": collection,
        "document_id": hit.document_id,
        "start": hit.start,
        "end": hit.end,
        "headings": list(hit.raw.get("headings", ())),
        "score": order_score(hit),
        **ocr,
        **neighbours,
    }
