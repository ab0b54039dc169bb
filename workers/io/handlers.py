"""Handlers of the io pool by job kind: search, the retrieval of a generation, delete, embed, rerank."""

from collections.abc import Mapping
from typing import Any

import redis

from shared.documents.index_health import report_silence
from shared.documents.store import Documents
from shared.errors import NotFound
from shared.models.catalogue import load_catalogue
from shared.settings import Settings
from workers.index.embedder import Embedders
from workers.index.reranker import Rerankers
from workers.index.search_index import SearchIndex
from workers.io.delete import delete
from workers.io.embedding import embed
from workers.io.file_search import FILE_SEARCH, collections_of, describe_search
from workers.io.reranking import rerank
from workers.io.retrieval import Retriever, relevant_passages
from workers.io.search import SearchQuery
from workers.runtime.attempt import Attempt, CheckedHandler, Handler, Handover


def io_handlers(client: redis.Redis, settings: Settings, embedders: Embedders) -> Mapping[str, Handler]:
    """The handlers, which share their embedding models and one client of the index."""
    documents = Documents(client, settings)
    rerankers = Rerankers(load_catalogue(settings.models_file))
    search_index = SearchIndex.from_settings(documents, settings, on_timeout=lambda: report_silence(client))

    def retriever_of(attempt: Attempt) -> Retriever:
        return Retriever(documents, embedders.stopped_by(attempt.raise_if_stopped), search_index, rerankers)

    def search_job(attempt: Attempt) -> Mapping[str, Any]:
        spec = attempt.spec
        queries = [SearchQuery.from_spec(query, spec) for query in ([spec["query"]] if "query" in spec else spec["queries"])]
        found = retriever_of(attempt).retrieve(queries, [spec["collection_id"]], raise_if_stopped=attempt.raise_if_stopped)
        result: dict[str, Any] = {"hits": [passage.as_context() for passage in found.passages], "warnings": found.warnings}
        return result if found.explanation is None else {**result, "explain": found.explanation}

    def retrieve(attempt: Attempt) -> Handover:
        """First phase of a generation with a collection: its passages go with it to the model's queue."""
        attempt.report_progress("retrieving", 0, 0, "passages")
        spec = attempt.spec
        question = attempt.context.get("question") or _question(spec)
        query, collections = SearchQuery.from_spec(question, spec["retrieval"]), collections_of(spec)
        retrieval = retriever_of(attempt).retrieve([query], collections, raise_if_stopped=attempt.raise_if_stopped)
        relevant = relevant_passages(retrieval.passages, spec["retrieval"].get("min_relevance") or 0)
        found: list[dict[str, Any]] = [passage.as_context() for passage in relevant]
        about = {
            "query": query.query,
            "rewritten": bool(attempt.context.get("rewritten")),
            "reranker": retrieval.reranker or None,
            "warnings": retrieval.warnings,
            "refused": bool(spec["retrieval"].get("min_relevance")) and not relevant,
        }
        if spec.get(FILE_SEARCH) is None:
            return Handover(queue=spec["then"], context={"passages": found, "retrieval": about})
        said, files = describe_search([query.query], found, documents, with_results=spec[FILE_SEARCH]["with_results"])
        named = [{**passage, "document": files[passage["document_id"]]["filename"]} for passage in found]
        context = {"passages": named, "retrieval": about, FILE_SEARCH: {**said, "files": files}}
        return Handover(queue=spec["then"], context=context, found=said)

    return {
        "search": CheckedHandler(
            handle=search_job, check_subject=lambda attempt: raise_if_dropped(documents, attempt.spec["collection_id"])
        ),
        "generate": CheckedHandler(
            handle=retrieve, check_subject=lambda attempt: raise_if_dropped(documents, *collections_of(attempt.spec))
        ),
        "delete": lambda attempt: delete(attempt, documents, settings, search_index),
        "embed": lambda attempt: embed(attempt, embedders.stopped_by(attempt.raise_if_stopped)),
        "rerank": lambda attempt: rerank(attempt, rerankers),
    }


def raise_if_dropped(documents: Documents, *collection_ids: str) -> None:
    """Raise NotFound if one of the collections was deleted."""
    for collection_id in collection_ids:
        documents.collection_by_id(collection_id)


def _question(spec: Mapping[str, Any]) -> str:
    """The text to search for: the newest message of the user."""
    if "message" in spec:
        return str(spec["message"])
    if "prompt" in spec:
        return str(spec["prompt"])
    messages = [message["content"] for message in spec["messages"] if message["role"] == "user"]
    if not messages:
        raise NotFound("The conversation has no message with role 'user' to search for.", param="messages")
    return str(messages[-1])
