"""Search of a vector store: the job of a native search, and its passages in OpenAI's form."""

from typing import Any

from flask import g

from api.services import owner, services
from api.submission import short_job_error, submit_job
from shared.documents.models import Collection
from shared.jobs.models import Status
from shared.jobs.queue_names import IO_QUEUE
from shared.jobs.submission import Submission
from shared.openai.job_errors import AnswerTimeout
from shared.openai.requests.file_search import retrieval_spec
from shared.openai.requests.vector_stores import VectorStoreSearch
from shared.openai.vector_stores import file_of_document, order_score

SEARCH_SECONDS = 60
DEFAULT_RESULTS = 10


def search_store(collection: Collection, body: VectorStoreSearch) -> dict[str, Any]:
    """The passages that match a search. Raises what its job ended with, and AnswerTimeout."""
    top_k = body.max_num_results or DEFAULT_RESULTS
    spec = retrieval_spec(body.filters, body.ranking_options, top_k, services().models, "ranking_options")
    submission = Submission(
        kind="search",
        queue=IO_QUEUE,
        spec={"queries": body.queries, "collection_id": collection.id, "neighbours": 0, **spec},
        owner=owner(),
    )
    job = submit_job(submission, SEARCH_SECONDS).job
    g.job_ids = [job.id]
    if not job.status.final:
        services().transitions.cancel(job.id, owner())
        raise AnswerTimeout(f"The search has not ended within {SEARCH_SECONDS} s, as no worker is free. Try again later.")
    if job.status is not Status.COMPLETED or job.result is None:
        raise short_job_error(job)
    hits = job.result["hits"]
    return {
        "object": "vector_store.search_results.page",
        "search_query": body.queries,
        "data": _describe_hits(hits),
        "has_more": False,
        "next_page": None,
    }


def _describe_hits(hits: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ids = list(dict.fromkeys(hit["document_id"] for hit in hits))
    documents = {document.id: document for document in services().documents.read_documents(ids)}
    described = []
    for hit in hits:
        document = documents.get(hit["document_id"])
        if document is None:  # deleted since the search
            continue
        file_id, filename = file_of_document(document.id, document.name, document.file_id)
        described.append(
            {
                "file_id": file_id,
                "filename": filename,
                "score": order_score(hit),
                "attributes": dict(document.metadata),
                "content": [{"type": "text", "text": hit["text"]}],
                "document_id": document.id,
                "page": hit["page"],
                "start_index": hit["start"],
                "end_index": hit["end"],
            }
        )
    return described
