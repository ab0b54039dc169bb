"""The chunk calls of the chat_gp_me tutorial. They read and remove uploaded chunks, of any collection of the owner."""

from typing import Any

from flask import Blueprint, jsonify

from api.audit import add_audit_targets
from api.deletion import find_chunk, index_name, submit_deletion, submit_deletions, wait_for_deletions
from api.openapi.operation import JOB_HEADERS, PREFER, WAIT, Operation, Reply, describe, in_path
from api.request_parsing import parse_body, requested_timeout
from api.responses import RouteResponse
from api.schemas import responses
from api.schemas.requests.search import SearchRequest
from api.schemas.requests.tutorial_compat import ChunkIds, ClearRequest, RemoveRequest
from api.services import owner, services
from api.submission import SHORT_JOB_SECONDS, short_job_error, submit_job
from shared.documents.models import Collection, Document
from shared.errors import NotFound, Unavailable
from shared.jobs.models import Status
from shared.jobs.queue_names import IO_QUEUE
from shared.jobs.submission import Submission

blueprint = Blueprint("tutorial_compat", __name__)

TAG = "Calls of the chat_gp_me tutorial"
RUNNING = Reply(description="The deletion still runs; this is its job.", model=responses.Job, headers=JOB_HEADERS)
CHUNK = in_path("chunk", "Id of a chunk.", "doc_01m84svpew31wcd91z2271xy1f:0")


@blueprint.post("/get_texts")
@describe(
    Operation(
        tag=TAG,
        summary="Get chunks by id",
        request_model=ChunkIds,
        replies={200: Reply(description="The chunks that exist.", model=responses.TutorialTexts)},
    )
)
def get_texts() -> RouteResponse:
    texts = [text for chunk_id in parse_body(ChunkIds).ids if (text := _chunk_text(chunk_id)) is not None]
    return jsonify({"documents": texts, "count": len(texts)})


@blueprint.delete("/delete_document")
@describe(
    Operation(
        tag=TAG,
        summary="Delete chunks or whole documents by id",
        parameters=(PREFER, WAIT),
        request_model=ChunkIds,
        replies={200: Reply(description="All of them that existed are deleted.", model=responses.TutorialDeletion), 202: RUNNING},
        refusals=(404, 409, 429),
    )
)
def delete_document() -> RouteResponse:
    return _delete(parse_body(ChunkIds).ids, "deleted")


@blueprint.delete("/delete_chunk/<chunk>")
@describe(
    Operation(
        tag=TAG,
        summary="Delete one chunk",
        parameters=(CHUNK, PREFER, WAIT),
        replies={200: Reply(description="The chunk is deleted.", model=responses.TutorialChunkDeletion), 202: RUNNING},
        refusals=(409, 429),
    )
)
def delete_chunk(chunk: str) -> RouteResponse:
    response = _delete([chunk], "deleted")
    if isinstance(response, tuple):
        return response
    return jsonify({"message": "The chunk was deleted.", "deleted_id": chunk})


@blueprint.post("/remove")
@describe(
    Operation(
        tag=TAG,
        summary="Delete chunks by id, or the best hits of a search",
        parameters=(PREFER, WAIT),
        request_model=RemoveRequest,
        replies={200: Reply(description="The chunks are deleted.", model=responses.TutorialRemoval), 202: RUNNING},
        refusals=(404, 409, 429),
    )
)
def remove() -> RouteResponse:
    body = parse_body(RemoveRequest)
    return _delete(body.ids if body.ids is not None else _search_chunk_ids(body.query or ""), "removed")


@blueprint.post("/clear_db")
@describe(
    Operation(
        tag=TAG,
        summary="Delete everything in the default collection",
        parameters=(PREFER, WAIT),
        request_model=ClearRequest,
        replies={200: Reply(description="The collection is empty.", model=responses.TutorialReset), 202: RUNNING},
        refusals=(409, 429),
    )
)
def clear_db() -> RouteResponse:
    context = services()
    parse_body(ClearRequest)
    timeout = requested_timeout(SHORT_JOB_SECONDS)
    try:
        collection = context.documents.find_collection(owner(), context.settings.default_collection)
    except NotFound:
        return jsonify({"message": "There was nothing to remove.", "removed_count": 0})
    documents = _all_documents(collection)
    count = sum(document.chunks for document in documents)
    # The job comes first: if it is rejected, a hidden collection would keep its data forever.
    job = submit_deletion({"collection_id": collection.id})
    add_audit_targets(collection.id)
    context.documents.drop_collection(collection)
    for document in documents:
        context.transitions.cancel(document.job_id, owner())
    removed = jsonify({"message": f"{count} chunks were removed.", "removed_count": count})
    return wait_for_deletions([job], timeout) or removed


def _chunk_text(chunk_id: str) -> dict[str, Any] | None:
    chunk = find_chunk(chunk_id)
    if chunk is None:
        return None
    document, position = chunk
    ref = (document.id, position)
    entry = services().text_index.load_chunks(index_name(document), [ref]).get(ref)
    if entry is None:
        return None
    origin = {"document_id": document.id, "source": document.name, "page": entry.page, "position": position}
    return {"id": chunk_id, "content": entry.text, "metadata": {**document.metadata, **origin}}


def _delete(ids: list[str], verb: str) -> RouteResponse:
    """Delete chunks and documents; ``verb`` is the word in the tutorial's response."""
    timeout = requested_timeout(SHORT_JOB_SECONDS)
    jobs = submit_deletions(ids)
    if not jobs:
        raise NotFound("None of these chunks exists.", param="ids")
    add_audit_targets(*jobs)
    pending = wait_for_deletions(list(jobs.values()), timeout)
    return pending or jsonify({"message": f"{len(jobs)} were {verb}.", f"{verb}_ids": list(jobs)})


def _all_documents(collection: Collection) -> list[Document]:
    found, after = services().documents.list_documents(collection.id, limit=500)
    while after is not None:
        page, after = services().documents.list_documents(collection.id, limit=500, after=after)
        found += page
    return found


def _search_chunk_ids(query: str) -> list[str]:
    context = services()
    collection = context.documents.find_collection(owner(), context.settings.default_collection)
    body = SearchRequest(query=query, top_k=context.settings.retrieve_top_k)
    reranker = context.models.find_search_reranker(None)
    spec = {**body.model_dump(exclude={"rerank"}), "collection_id": collection.id, "reranker": reranker}
    submission = Submission(kind="search", queue=IO_QUEUE, spec=spec, owner=owner())
    job = submit_job(submission, SHORT_JOB_SECONDS).job
    if not job.status.final:
        raise Unavailable("The search did not end in time, so nothing was removed. Try again.", retry_after=5)
    if job.status is not Status.COMPLETED or job.result is None:
        raise short_job_error(job)
    return [str(hit["chunk_id"]) for hit in job.result["hits"]]
