"""Documents: look, search, delete. Uploads are in ``api.routes.uploads``."""

from typing import Any

from flask import Blueprint, Response, jsonify, request

from api.request_parsing import body, query_integer, wait_seconds
from api.responses import Answer, accepted, list_json
from api.schemas.requests import Search
from api.services import owner, services
from api.submission import submit
from shared.documents.models import ENDED, Collection, Document
from shared.errors import Conflict, EmbeddingModelMismatch, EnginehouseError, Unavailable
from shared.jobs.celery_broker import IO_QUEUE
from shared.jobs.models import Job, Status
from shared.jobs.serialization import seconds
from shared.jobs.transitions import Submission

blueprint = Blueprint("documents", __name__)

QUICK_SECONDS = 30


@blueprint.get("/collections")
def collections() -> Response:
    here = services()
    found = here.documents.list_collections(owner())
    return list_json([collection_json(collection) for collection in found], None)


@blueprint.get("/collections/<collection>")
def collection_(collection: str) -> Response:
    return jsonify(collection_json(services().documents.find_collection(owner(), collection)))


@blueprint.get("/collections/<collection>/documents")
def index(collection: str) -> Response:
    """The documents of a collection, newest first."""
    limit = query_integer("limit", 20, 1, 100)
    found = services().documents.find_collection(owner(), collection)
    documents, more = services().documents.list_documents(found.id, limit=limit, after=request.args.get("after"))
    return list_json([document_json(document) for document in documents], documents[-1].id if more and documents else None)


@blueprint.get("/documents/<document>")
def show(document: str) -> Response:
    return jsonify(document_json(services().documents.get(owner(), document)))


@blueprint.delete("/documents/<document>")
def delete(document: str) -> Answer:
    """Forget a document: it is out of search at once; its record, files and vectors are gone when the job has ended."""
    found = services().documents.get(owner(), document)
    if found.status not in ENDED:
        services().lifecycle.cancel(found.job_id, owner())
    return deleted({"document_id": found.id, "collection_id": found.collection_id}, found.id, "document")


@blueprint.delete("/collections/<collection>")
def drop(collection: str) -> Answer:
    """Forget a collection and all its documents."""
    found = services().documents.find_collection(owner(), collection)
    services().documents.drop_collection(found)
    return deleted({"collection_id": found.id}, found.id, "collection")


@blueprint.post("/collections/<collection>/search")
def search(collection: str) -> Answer:
    """The passages that answer a query, by vectors, by words, or by both."""
    wanted = body(Search)
    found = services().documents.find_collection(owner(), collection)
    spec = {**wanted.model_dump(), "collection_id": found.id}
    wait = wait_seconds()
    job = _submit("search", IO_QUEUE, spec, QUICK_SECONDS if wait is None else wait)
    if job.status is Status.COMPLETED and job.result is not None:
        return list_json(job.result["hits"], None)
    if job.status.final:
        raise failure(job, "search")
    return accepted(job)


def document_json(document: Document) -> dict[str, Any]:
    """One document as clients see it."""
    times = {name: seconds(getattr(document, name)) for name in ("created_at", "updated_at")}
    return {**document.as_json(), **times}


def collection_json(collection: Collection) -> dict[str, Any]:
    documents = services().documents.count_documents(collection.id)
    return {**collection.as_json(), "created_at": seconds(collection.created_at), "documents": documents}


def _submit(kind: str, queue: str, spec: dict[str, Any], wait: float, **options: Any) -> Job:
    return submit(Submission(kind=kind, queue=queue, spec=spec, owner=owner(), **options), wait)


def deleted(spec: dict[str, Any], gone: str, kind: str) -> Answer:
    wait = wait_seconds()
    job = _submit("delete", IO_QUEUE, spec, QUICK_SECONDS if wait is None else wait)
    if job.status is Status.COMPLETED:
        return jsonify({"id": gone, "object": kind, "deleted": True})
    if job.status.final:
        raise failure(job, "deletion")
    return accepted(job)


def failure(job: Job, what: str) -> EnginehouseError:
    """What a client is told of a job that it waited for and that did not complete."""
    error = job.error or {"code": job.status.value, "message": f"the {what} is {job.status.value}"}
    message, code = str(error["message"]), str(error["code"])
    if code == EmbeddingModelMismatch.code:
        return Conflict(message, code=code, details={"job": job.id})
    return Unavailable(message, code=code, retry_after=5, details={"job": job.id})
