"""Documents: upload, look, search, delete. The bytes go to disk here; everything else about them is a job."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, g, jsonify, request

from api.parsing import Search, body, form_metadata, form_webhook, query_integer, wait_seconds
from api.render import RETRY_AFTER, Answer, accepted, job_json, list_json
from api.services import owner, services
from api.submitting import idempotency, job_of, submit
from api.webhooks import job_webhook
from shared.documents.files import Stored
from shared.documents.filters import Scalar
from shared.documents.kinds import media_type
from shared.documents.record import ENDED, Collection, Document, check_collection_name
from shared.errors import Conflict, EmbeddingModelMismatch, EnginehouseError, InvalidRequest, InvalidValue, Unavailable
from shared.ids import DOCUMENT, JOB, new_id
from shared.jobs.job import Job, Status
from shared.jobs.lifecycle import Submission
from shared.jobs.tickets import CPU_QUEUE, IO_QUEUE
from shared.jobs.view import seconds

blueprint = Blueprint("documents", __name__)

MOST_FILES = 1000
QUICK_SECONDS = 30


@blueprint.post("/upload")
def upload() -> Answer:
    """The guide's call: one file into the default collection. Waits for nothing unless ``Prefer: wait=N`` says so."""
    wait = wait_seconds() or 0
    told, metadata = _webhook(), form_metadata()
    [received] = _receive(most=1)
    document, job = _take(_collection(services().settings.default_collection), received, webhook=told, metadata=metadata)
    if job is not None and wait:
        job = services().waiting.until_ended(job.id, wait) or job
        document = services().documents.get(owner(), document.id)
    answer = {"message": f"{document.name} was taken", "document": document_json(document), "job": job_json(job) if job else None}
    return _accepted(answer, job)


@blueprint.post("/collections/<collection>/documents")
def add(collection: str) -> Answer:
    """One or many files (multipart, field ``file``): a document and an ingest job for each, and a batch over the jobs."""
    here = services()
    check_collection_name(collection)
    told, metadata = _webhook(), form_metadata()
    files = _receive(most=MOST_FILES)
    content = [collection, [(received.name, received.stored.sha256) for received in files], told, metadata]
    taken: list[tuple[Document, Job | None]] = []
    try:
        repeatable = idempotency(content)
        batch = here.lifecycle.open_batch(
            owner(),
            spec={"collection": collection},
            idempotency_key=repeatable.key,
            fingerprint=repeatable.fingerprint,
            webhook=told,
        )
        # When this request was sent before and its batch is not whole (the server died, or is still at it), what is there
        # already is found by its content, and what is missing joins.
        place = _collection(collection)
        while files:
            taken.append(_take(place, files.pop(0), batch.id, metadata=metadata))
    finally:
        for received in files:
            here.files.remove(received.document_id)
    here.lifecycle.seal(batch.id)
    g.replayed = batch.replayed
    data = [{**document_json(document), "job": job.id if job else document.job_id} for document, job in taken]
    parent = job_of(batch)
    answer = {"object": "list", "batch": job_json(parent), "data": data, "has_more": False, "next": None}
    return _accepted(answer, parent)


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
        raise _failure(job, "search")
    return accepted(job)


def document_json(document: Document) -> dict[str, Any]:
    """One document as clients see it."""
    times = {name: seconds(getattr(document, name)) for name in ("created_at", "updated_at")}
    return {**document.as_json(), **times}


def collection_json(collection: Collection) -> dict[str, Any]:
    documents = services().documents.count_documents(collection.id)
    return {**collection.as_json(), "created_at": seconds(collection.created_at), "documents": documents}


def _collection(name: str) -> Collection:
    here = services()
    return here.documents.ensure_collection(owner(), name, here.catalogue.embedding().name)


@dataclass(frozen=True)
class Received:
    """A file of the request, on disk under an id of its own but not yet entered."""

    document_id: str
    name: str
    stored: Stored


def _webhook() -> dict[str, Any] | None:
    """Where the end of an upload is told: the field ``webhook`` of the form."""
    # Reading one field reads them all, so the limit must hold by now.
    request.max_content_length = services().settings.max_upload_bytes
    return job_webhook(form_webhook())


def _receive(*, most: int) -> list[Received]:
    """Store the files of the request. Nothing stays when one of them is refused."""
    here = services()
    request.max_content_length = here.settings.max_upload_bytes
    files = request.files.getlist("file")
    if not files:
        raise InvalidRequest(
            "file: send at least one file as multipart/form-data in the field `file`", code="file_missing", param="file"
        )
    if len(files) > most:
        raise InvalidValue(f"file: at most {most} in one request, not {len(files)}", param="file")
    received: list[Received] = []
    try:
        for file in files:
            document_id = new_id(DOCUMENT)
            stored = here.files.store(document_id, file.stream, limit=here.settings.max_upload_bytes)
            received.append(Received(document_id, (file.filename or "unnamed")[:255], stored))
    except BaseException:
        for earlier in received:
            here.files.remove(earlier.document_id)
        raise
    return received


def _take(
    collection: Collection,
    received: Received,
    batch: str = "",
    webhook: dict[str, Any] | None = None,
    metadata: Mapping[str, Scalar] | None = None,
) -> tuple[Document, Job | None]:
    """Enter one file and submit its ingest; the job is the earlier one when the same bytes are known."""
    here = services()
    try:
        document, new = here.documents.register(
            collection,
            document_id=received.document_id,
            name=received.name,
            size=received.stored.size,
            sha256=received.stored.sha256,
            media_type=media_type(here.files.path(received.document_id, "original"), received.name),
            job_id=new_id(JOB),
            metadata=metadata,
        )
    except BaseException:
        # Whatever stopped it (a bad state, Redis away): no file may stay that no record names.
        here.files.remove(received.document_id)
        raise
    if new:
        return document, _submit_ingest(document, batch, webhook)
    here.files.remove(received.document_id)
    job = here.lifecycle.get(document.job_id)
    # The server died between entering the document and submitting its job: this upload makes up for it.
    if job is None and document.status == "uploaded":
        return document, _submit_ingest(document, batch, webhook)
    return document, job


def _submit_ingest(document: Document, batch: str, webhook: dict[str, Any] | None) -> Job:
    spec = {"document_id": document.id, "collection_id": document.collection_id}
    return _submit("ingest", CPU_QUEUE, spec, 0, id=document.job_id, document=document.id, parent=batch, webhook=webhook)


def _submit(kind: str, queue: str, spec: dict[str, Any], wait: float, **options: Any) -> Job:
    return submit(Submission(kind=kind, queue=queue, spec=spec, owner=owner(), **options), wait)


def _accepted(answer: dict[str, Any], job: Job | None) -> Answer:
    response = jsonify(answer)
    if g.get("replayed"):
        response.headers["Idempotent-Replay"] = "true"
    if job is None or job.status.final:
        return response
    response.headers["Location"] = f"/jobs/{job.id}"
    response.headers["Retry-After"] = RETRY_AFTER
    return response, 202


def deleted(spec: dict[str, Any], gone: str, kind: str) -> Answer:
    wait = wait_seconds()
    job = _submit("delete", IO_QUEUE, spec, QUICK_SECONDS if wait is None else wait)
    if job.status is Status.COMPLETED:
        return jsonify({"id": gone, "object": kind, "deleted": True})
    if job.status.final:
        raise _failure(job, "deletion")
    return accepted(job)


def _failure(job: Job, what: str) -> EnginehouseError:
    """What a client is told of a job that it waited for and that did not complete."""
    error = job.error or {"code": job.status.value, "message": f"the {what} is {job.status.value}"}
    message, code = str(error["message"]), str(error["code"])
    if code == EmbeddingModelMismatch.code:
        return Conflict(message, code=code, details={"job": job.id})
    return Unavailable(message, code=code, retry_after=5, details={"job": job.id})
