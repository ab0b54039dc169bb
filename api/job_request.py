"""What a job was asked to do, as its owner sees it."""

from typing import Any

from api.services import services
from shared.errors import NotFound
from shared.jobs.models import Job

# Fields of a spec that say how the server does it.
INTERNAL = ("then", "archive_id", "input_file", "rights")
COLLECTION_FIELDS = ("collection", "collection_id")


def job_request(job: Job) -> dict[str, Any] | None:
    """The request of a job with the names of its model, collection and document; None if it was deleted."""
    spec = services().queries.read_spec(job.id)
    if spec is None:
        return None
    request = {"model": job.model, **spec, "session": job.session}
    collection = next((spec[name] for name in COLLECTION_FIELDS if spec.get(name)), None)
    for name in (*INTERNAL, *COLLECTION_FIELDS):
        request.pop(name, None)
    if collection is not None:
        request["collection"] = _collection_name(collection)
    if job.document and not spec.get("name"):
        request["name"] = _document_name(job.document)
    _name_as_requests_do(request)
    if "retrieval" in request:
        request.setdefault("rewrite", False)
        request["retrieval"] = dict(request["retrieval"])
        _name_as_requests_do(request["retrieval"])
    return {name: value for name, value in request.items() if value not in (None, "")}


def _name_as_requests_do(fields: dict[str, Any]) -> None:
    """Replace the reranker, which was chosen on submission, by the field of requests."""
    if "reranker" in fields:
        fields["rerank"] = fields.pop("reranker") or False


def _collection_name(collection_id: str) -> str | None:
    try:
        return services().documents.collection_by_id(collection_id, hidden=True).name
    except NotFound:
        return None


def _document_name(document_id: str) -> str | None:
    document = services().documents.find(document_id)
    return document.name if document is not None else None
