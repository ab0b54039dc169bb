"""``/documents``: show and delete documents and their chunks."""

import re
from typing import Any

from flask import Blueprint, jsonify

from api.deletion import chunk_deletion_spec, deletion_response, index_name, submit_deletion
from api.openapi.operation import (
    DOCUMENT,
    LIMIT,
    PERMANENT,
    PREFER,
    REPLAYABLE_JOB_HEADERS,
    WAIT,
    Operation,
    Reply,
    describe,
    in_path,
    in_query,
)
from api.request_parsing import query_boolean, query_integer, requested_timeout
from api.responses import RouteResponse, list_response
from api.schemas import responses
from api.services import owner, services
from api.submission import SHORT_JOB_SECONDS
from shared.documents.models import ENDED
from shared.documents.store import RESTORE_SECONDS
from shared.documents.text_index import IndexedChunk
from shared.errors import NotFound

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
