"""``/documents``: show, rename, move and delete documents, and their chunks."""

import re
from typing import Any

from flask import Blueprint, jsonify

from api.deletion import chunk_deletion_spec, deletion_response, index_name, submit_deletion
from api.job_webhook import job_webhook
from api.openapi.operation import (
    DOCUMENT,
    IDEMPOTENCY_KEY,
    LIMIT,
    PERMANENT,
    PREFER,
    REPLAYABLE_JOB_HEADERS,
    WAIT,
    Example,
    Operation,
    Reply,
    describe,
    in_path,
    in_query,
)
from api.request_parsing import parse_body, query_boolean, query_integer, read_idempotency_key, requested_timeout
from api.responses import RouteResponse, final_or_accepted, list_response
from api.schemas import responses
from api.schemas.requests.documents import DocumentChanges, DocumentMove
from api.services import owner, services
from api.submission import SHORT_JOB_SECONDS, submit_job
from shared.documents.models import ENDED, Collection, Document, escape_name
from shared.documents.store import RESTORE_SECONDS, in_progress_error
from shared.documents.text_index import IndexedChunk
from shared.errors import InvalidValue, NotFound
from shared.jobs.concurrency_fields import CONCURRENCY
from shared.jobs.queue_names import CPU_QUEUE
from shared.jobs.submission import Submission

blueprint = Blueprint("documents", __name__)

TAG = "Documents"
WAITS = "Waits up to 30 s unless the client asks for a different wait."
POSITION = {"type": "integer", "minimum": 0}
DELETION_REPLIES = {
    200: Reply(description="It is deleted with its files, text and vectors.", model=responses.Deletion),
    202: Reply(
        description="Searches no longer find it; this job deletes its data.", model=responses.Job, headers=REPLAYABLE_JOB_HEADERS
    ),
}


@blueprint.get("/documents/<document>")
@describe(
    Operation(
        tag=TAG,
        summary="Get a document",
        parameters=(DOCUMENT,),
        replies={200: Reply(description="The document.", model=responses.Document)},
    )
)
def show_document(document: str) -> RouteResponse:
    return jsonify(services().documents.get(owner(), document).as_json())


@blueprint.patch("/documents/<document>")
@describe(
    Operation(
        tag=TAG,
        summary="Rename a document",
        description="Citations of earlier answers keep the old name. What was read of the file stays as it is.",
        parameters=(DOCUMENT,),
        request_model=DocumentChanges,
        examples={"name": Example(summary="Another name", body={"name": "minutes-2026-01.pdf"})},
        replies={200: Reply(description="The document.", model=responses.Document)},
        refusals=(409,),
    )
)
def rename_document(document: str) -> RouteResponse:
    name = escape_name(parse_body(DocumentChanges).name)
    documents = services().documents
    renamed = documents.rename(documents.get(owner(), document), name)
    collection = documents.collection_by_id(renamed.collection_id)
    for index in filter(None, (collection.index, collection.next_index)):
        services().text_index.set_name(index, renamed.id, renamed.name)
    return jsonify(renamed.as_json())


@blueprint.post("/documents/<document>/move")
@describe(
    Operation(
        tag=TAG,
        summary="Move a document into another collection",
        description=(
            "Its id, file, pages and metadata stay. Searches find it where it was until the job starts, and in the other collection once that "
            "has indexed it: with the settings of that collection, and with the vectors that it has if the embedding model is the same. A document that could not be read is read again."
        ),
        parameters=(DOCUMENT, IDEMPOTENCY_KEY, PREFER, WAIT),
        request_model=DocumentMove,
        examples={"move": Example(summary="Into an archive", body={"collection": "archive"})},
        replies={
            200: Reply(description="The job, which has ended.", model=responses.Job),
            202: Reply(description="The job that moves it.", model=responses.Job, headers=REPLAYABLE_JOB_HEADERS),
        },
        refusals=(409, 429),
    )
)
def move_document(document: str) -> RouteResponse:
    timeout, body = requested_timeout(0), parse_body(DocumentMove)
    documents = services().documents
    found, target = documents.get(owner(), document), documents.find_collection(owner(), body.collection)
    idempotency = read_idempotency_key([found.id, {**body.model_dump(exclude=CONCURRENCY), **body.concurrency}])
    if not idempotency.key:
        _require_movable(found, target)
    submission = Submission(
        kind="ingest",
        queue=CPU_QUEUE,
        spec={
            "document_id": found.id,
            "collection_id": target.id,
            "name": found.name,
            "moved_from": found.collection_id,
        },
        owner=owner(),
        document=found.id,
        webhook=job_webhook(body.webhook),
        idempotency_key=idempotency.key,
        fingerprint=idempotency.fingerprint,
        **body.concurrency,
    )
    job, replayed = submit_job(submission, timeout)
    return final_or_accepted(job, waited=timeout > 0, replayed=replayed)


def _require_movable(document: Document, target: Collection) -> None:
    if document.collection_id == target.id:
        raise InvalidValue(f"collection: document {document.id} is in {target.name!r} already", param="collection")
    if document.status not in ENDED:
        raise in_progress_error(document.id)


@blueprint.delete("/documents/<document>")
@describe(
    Operation(
        tag=TAG,
        summary="Delete a document",
        description=(
            f"It is hidden at once: no search finds it. For {RESTORE_SECONDS} s it can be restored; then its files, text and vectors are "
            f"deleted. With `permanent`, they are deleted at once. {WAITS}"
        ),
        parameters=(DOCUMENT, PERMANENT, PREFER, WAIT),
        replies=DELETION_REPLIES,
        refusals=(409, 429),
    )
)
def delete_document(document: str) -> RouteResponse:
    timeout, permanent = requested_timeout(SHORT_JOB_SECONDS), query_boolean("permanent")
    documents = services().documents
    found = documents.get(owner(), document, hidden=permanent)
    if found.status not in ENDED:
        services().transitions.cancel(found.job_id, owner())
    if permanent:
        job = submit_deletion({"document_id": found.id, "collection_id": found.collection_id})
        return deletion_response(job, found.id, "document", timeout)
    restorable_until = documents.delete_later(found) / 1000
    return jsonify({"id": found.id, "object": "document", "deleted": True, "restorable_until": restorable_until})


@blueprint.post("/documents/<document>/restore")
@describe(
    Operation(
        tag=TAG,
        summary="Restore a deleted document",
        description=(
            f"Possible for {RESTORE_SECONDS} s after the deletion, unless another document has its name or its bytes since. A document that "
            "was being read comes back as `failed`; retry its job to read it."
        ),
        parameters=(DOCUMENT,),
        replies={200: Reply(description="The document, which is found again.", model=responses.Document)},
        refusals=(409,),
    )
)
def restore_document(document: str) -> RouteResponse:
    documents = services().documents
    found = documents.get(owner(), document, hidden=True)
    documents.restore(found)
    return jsonify(documents.get(owner(), document).as_json())


@blueprint.get("/documents/<document>/chunks")
@describe(
    Operation(
        tag=TAG,
        summary="List the chunks of a document in order",
        parameters=(
            DOCUMENT,
            LIMIT,
            in_query("after", POSITION, "The `next` of the previous page."),
            in_query("page", {"type": "integer", "minimum": 1}, "Only the chunks of this page of the document.", 1),
        ),
        replies={200: Reply(description="One page.", model=responses.ChunkList)},
    )
)
def list_chunks(document: str) -> RouteResponse:
    limit = query_integer("limit", 20, 1, 100)
    after = query_integer("after", -1, -1, 2**31)
    page_number = query_integer("page", 0, 1, 2**31) or None
    found = services().documents.get(owner(), document)
    if found.status != "ready":
        return list_response([])
    # Load one chunk more than the page has, to know whether another page follows.
    entries = services().text_index.document_chunks(
        index_name(found), found.id, first=after + 1, page=page_number, limit=limit + 1
    )
    page = entries[:limit]
    return list_response([_chunk_json(entry) for entry in page], str(page[-1].position) if len(entries) > limit else None)


@blueprint.delete("/documents/<document>/chunks/<position>")
@describe(
    Operation(
        tag=TAG,
        summary="Delete one chunk of a document",
        description=f"Also deletes its text from the stored document, except what neighbouring chunks share. {WAITS}",
        parameters=(DOCUMENT, in_path("position", "Position of the chunk in the document, from 0.", "0"), PREFER, WAIT),
        replies=DELETION_REPLIES,
        refusals=(429,),
    )
)
def delete_chunk(document: str, position: str) -> RouteResponse:
    timeout = requested_timeout(SHORT_JOB_SECONDS)
    found = services().documents.get(owner(), document)
    is_position = re.fullmatch(r"[0-9]{1,9}", position) and found.status == "ready"
    spec = chunk_deletion_spec(found, int(position)) if is_position else None
    if spec is None:
        raise NotFound(f"Document {found.id} has no chunk {position[:80]!r}.", param="position")
    return deletion_response(submit_deletion(spec), f"{found.id}:{position}", "chunk", timeout)


def _chunk_json(entry: IndexedChunk) -> dict[str, Any]:
    return {
        "id": f"{entry.document_id}:{entry.position}",
        "object": "chunk",
        "document_id": entry.document_id,
        "position": entry.position,
        "page": entry.page,
        "start": entry.start,
        "end": entry.end,
        "headings": list(entry.headings),
        "text": entry.text,
        "source": "text" if entry.confidence is None else "ocr",
        "confidence": entry.confidence,
    }
