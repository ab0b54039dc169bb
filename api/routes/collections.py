"""``/collections``: list, create, configure, reindex, search and delete collections."""

from typing import cast

from flask import Blueprint, jsonify

from api.caller import caller
from api.deletion import deletion_response, submit_deletion
from api.job_webhook import job_webhook
from api.openapi.operation import (
    AFTER,
    COLLECTION,
    IDEMPOTENCY_KEY,
    PERMANENT,
    PREFER,
    REPLAYABLE_JOB_HEADERS,
    WAIT,
    Example,
    Operation,
    Reply,
    describe,
    in_query,
)
from api.request_parsing import (
    parse_body,
    query_boolean,
    query_choice,
    query_choices,
    query_cursor,
    query_integer,
    read_idempotency_key,
    requested_timeout,
)
from api.responses import (
    RouteResponse,
    accepted_response,
    collection_json,
    final_or_accepted,
    list_response,
)
from api.schemas import responses
from api.schemas.requests.collections import CollectionChanges, NewCollection, ReindexRequest
from api.schemas.requests.search import SearchRequest
from api.services import owner, services
from api.submission import SHORT_JOB_SECONDS, short_job_error, submit_job
from shared.documents.index_health import read_problem
from shared.documents.models import STATUSES, Collection
from shared.documents.models import Status as DocumentStatus
from shared.documents.store import RESTORE_SECONDS
from shared.errors import Conflict, InvalidValue, NotFound
from shared.ids import DOCUMENT
from shared.jobs.concurrency_fields import CONCURRENCY
from shared.jobs.models import Status
from shared.jobs.queue_names import CPU_QUEUE, IO_QUEUE
from shared.jobs.submission import Submission
from shared.models.catalogue import EMBED
from shared.ocr_languages import check_ocr_languages

blueprint = Blueprint("collections", __name__)

TAG = "Documents"
REINDEX_PRIORITY = 8
MAX_DOCUMENTS = 1000
LIMIT_OF_DOCUMENTS = in_query(
    "limit", {"type": "integer", "minimum": 1, "maximum": MAX_DOCUMENTS, "default": 20}, "Maximum number of entries.", 10
)
DOCUMENT_STATUS = in_query(
    "status", {"type": "array", "items": {"enum": list(STATUSES)}}, "Only documents with this status; may be repeated."
)
EXPLAIN = in_query("explain", {"enum": ["1", "0", "true", "false"]}, "The same as the field `explain`.")
WAITS = "Waits up to 30 s unless the client asks for a different wait."


@blueprint.get("/collections")
@describe(
    Operation(
        tag=TAG,
        summary="List all collections by name",
        replies={200: Reply(description="All collections on one page.", model=responses.CollectionList)},
    )
)
def list_collections() -> RouteResponse:
    return list_response([collection_json(collection) for collection in services().documents.list_collections(owner())])


@blueprint.post("/collections")
@describe(
    Operation(
        tag=TAG,
        summary="Create a collection with its own settings",
        description="An upload also creates a collection, with the server's settings.",
        request_model=NewCollection,
        examples={"small": Example(summary="Short chunks", body={"name": "minutes", "chunk_tokens": 100})},
        replies={201: Reply(description="The new collection.", model=responses.Collection)},
        refusals=(404, 409),
    )
)
def create_collection() -> RouteResponse:
    body = parse_body(NewCollection)
    model = _choose_embedding_model(body.embedding_model)
    options = _chunk_settings(body.chunk_tokens, body.chunk_overlap_tokens) | _ocr_settings(body)
    collection, created = services().documents.make_collection(owner(), body.name, model, options)
    if not created:
        raise Conflict(f"Collection {body.name!r} already exists. Change it with PATCH.", param="name")
    return jsonify(collection_json(collection)), 201


@blueprint.get("/collections/<collection>")
@describe(
    Operation(
        tag=TAG,
        summary="Get a collection",
        parameters=(COLLECTION,),
        replies={200: Reply(description="The collection.", model=responses.Collection)},
    )
)
def show_collection(collection: str) -> RouteResponse:
    return jsonify(collection_json(services().documents.find_collection(owner(), collection)))


@blueprint.patch("/collections/<collection>")
@describe(
    Operation(
        tag=TAG,
        summary="Change how future documents are read and chunked",
        description="To apply new chunk sizes to existing documents, reindex the collection.",
        parameters=(COLLECTION,),
        request_model=CollectionChanges,
        examples={"smaller": Example(summary="Shorter chunks", body={"chunk_tokens": 120})},
        replies={200: Reply(description="The collection.", model=responses.Collection)},
    )
)
def configure_collection(collection: str) -> RouteResponse:
    found = services().documents.find_collection(owner(), collection)
    body = parse_body(CollectionChanges)
    changes = body.model_dump(exclude_unset=True)
    _chunk_settings(
        changes.get("chunk_tokens", found.chunk_tokens), changes.get("chunk_overlap_tokens", found.chunk_overlap_tokens)
    )
    changes |= _ocr_settings(body) if "ocr_languages" in changes else {}
    return jsonify(collection_json(services().documents.configure(found.id, **changes)))


@blueprint.post("/collections/<collection>/reindex")
@describe(
    Operation(
        tag=TAG,
        summary="Reindex all documents of a collection",
        description=(
            "With another embedding model, with other chunk sizes, or because the index was lost. Searches use the old index until "
            "the new one is complete."
        ),
        parameters=(COLLECTION, IDEMPOTENCY_KEY, PREFER, WAIT),
        request_model=ReindexRequest,
        examples={"again": Example(summary="With the current settings", body={})},
        replies={
            200: Reply(description="The job, which has ended.", model=responses.Job),
            202: Reply(description="The job that builds the new index.", model=responses.Job, headers=REPLAYABLE_JOB_HEADERS),
        },
        refusals=(409, 429),
    )
)
def reindex_collection(collection: str) -> RouteResponse:
    found = services().documents.find_collection(owner(), collection)
    submission = _reindex_submission(found, parse_body(ReindexRequest))
    timeout = requested_timeout(0)
    job, replayed = submit_job(submission, timeout)
    return final_or_accepted(job, waited=timeout > 0, replayed=replayed)


@blueprint.get("/collections/<collection>/documents")
@describe(
    Operation(
        tag=TAG,
        summary="List the documents of a collection, newest first",
        parameters=(COLLECTION, LIMIT_OF_DOCUMENTS, AFTER, DOCUMENT_STATUS),
        replies={200: Reply(description="One page.", model=responses.DocumentList)},
    )
)
def list_documents(collection: str) -> RouteResponse:
    limit, after = query_integer("limit", 20, 1, MAX_DOCUMENTS), query_cursor(DOCUMENT, "document")
    statuses = cast(tuple[DocumentStatus, ...], query_choices("status", STATUSES))
    documents = services().documents
    found = documents.find_collection(owner(), collection)
    if statuses:
        page, next_cursor = documents.list_with_status(found, statuses, limit=limit, after=after)
    else:
        page, next_cursor = documents.list_documents(found.id, limit=limit, after=after)
    return list_response([document.as_json() for document in page], next_cursor)


@blueprint.get("/collections/<collection>/documents/counts")
@describe(
    Operation(
        tag=TAG,
        summary="Count the documents of a collection by status",
        parameters=(COLLECTION,),
        replies={200: Reply(description="The numbers, read from an index.", model=responses.DocumentCounts)},
    )
)
def count_documents(collection: str) -> RouteResponse:
    documents = services().documents
    counts = documents.count_by_status(documents.find_collection(owner(), collection))
    return jsonify({"object": "document_counts", "status": counts, "total": sum(counts.values())})


@blueprint.post("/collections/<collection>/search")
@describe(
    Operation(
        tag=TAG,
        summary="Search a collection by vectors, by keywords, or by both",
        description=WAITS,
        parameters=(COLLECTION, EXPLAIN, PREFER, WAIT),
        request_model=SearchRequest,
        examples={
            "question": Example(summary="A question", body={"query": "When is the archive open?", "top_k": 2}),
            "filtered": Example(
                summary="Keywords, on first pages only", body={"query": "archive", "mode": "keyword", "filter": {"page": 1}}
            ),
        },
        replies={
            200: Reply(description="The passages, best first.", model=responses.HitList),
            202: Reply(
                description="No result yet; the result of this job will have the `hits`.",
                model=responses.Job,
                headers=REPLAYABLE_JOB_HEADERS,
            ),
        },
        refusals=(409, 429),
    )
)
def search_collection(collection: str) -> RouteResponse:
    body = parse_body(SearchRequest)
    explain = query_choice("explain", ("1", "0", "true", "false")) in ("1", "true")
    found = services().documents.find_collection(owner(), collection)
    spec = {
        **body.model_dump(exclude={"rerank"}),
        "collection_id": found.id,
        "reranker": services().models.find_search_reranker(body.rerank),
        "explain": body.explain or explain,
    }
    submission = Submission(kind="search", queue=IO_QUEUE, spec=spec, owner=owner())
    job = submit_job(submission, requested_timeout(SHORT_JOB_SECONDS)).job
    if job.status is Status.COMPLETED and job.result is not None:
        warning = read_problem(services().redis, found.id)
        warnings = [*job.result.get("warnings", ()), *([warning] if warning else [])]
        explanation = {"explain": job.result["explain"]} if "explain" in job.result else {}
        return list_response(job.result["hits"], warnings=warnings, **explanation)
    if job.status.final:
        raise short_job_error(job)
    return accepted_response(job)


@blueprint.delete("/collections/<collection>")
@describe(
    Operation(
        tag=TAG,
        summary="Delete a collection and all its documents",
        description=(
            f"It is hidden at once, with its documents, and its name is free. For {RESTORE_SECONDS} s it can be restored; then its data is "
            f"deleted. With `permanent`, the data is deleted at once. {WAITS}"
        ),
        parameters=(COLLECTION, PERMANENT, PREFER, WAIT),
        replies={
            200: Reply(description="The collection is deleted.", model=responses.Deletion),
            202: Reply(
                description="Searches no longer find it; this job deletes its data.",
                model=responses.Job,
                headers=REPLAYABLE_JOB_HEADERS,
            ),
        },
        refusals=(429,),
    )
)
def delete_collection(collection: str) -> RouteResponse:
    timeout, permanent = requested_timeout(SHORT_JOB_SECONDS), query_boolean("permanent")
    documents = services().documents
    if permanent:
        found = _find_even_if_deleted(collection)
        # The job comes first: if it is rejected, a hidden collection would keep its data forever.
        job = submit_deletion({"collection_id": found.id})
        documents.drop_collection(found)
        return deletion_response(job, found.id, "collection", timeout)
    found = documents.find_collection(owner(), collection)
    restorable_until = documents.delete_collection_later(found) / 1000
    return jsonify({"id": found.id, "object": "collection", "deleted": True, "restorable_until": restorable_until})


@blueprint.post("/collections/<collection>/restore")
@describe(
    Operation(
        tag=TAG,
        summary="Restore a deleted collection with its documents",
        description=(
            f"Possible for {RESTORE_SECONDS} s after the deletion, unless another collection has its name since. Of several deleted "
            "collections with one name, the one that was deleted last is restored."
        ),
        parameters=(COLLECTION,),
        replies={200: Reply(description="The collection, which is found again.", model=responses.Collection)},
        refusals=(409,),
    )
)
def restore_collection(collection: str) -> RouteResponse:
    documents = services().documents
    found = documents.find_deleted_collection(owner(), collection)
    documents.restore_collection(found)
    return jsonify(collection_json(documents.collection_by_id(found.id)))


def _find_even_if_deleted(name: str) -> Collection:
    """The owner's collection with this name, else the one of this name that can still be restored. Raises NotFound."""
    documents = services().documents
    try:
        return documents.find_collection(owner(), name)
    except NotFound as missing:
        try:
            return documents.find_deleted_collection(owner(), name)
        except NotFound:
            raise missing from None


def _choose_embedding_model(requested: str | None, current: str = "") -> str:
    """The requested model, else the current one if it still exists, else the default one. Raises NotFound or InvalidValue."""
    catalogue = services().catalogue
    if requested is None:
        if any(entry.name == current and entry.task == EMBED for entry in catalogue.models):
            return current
        return catalogue.embedding().name
    entry = catalogue.get_model(requested, task=EMBED)
    if entry.task != EMBED:
        raise InvalidValue(
            f"embedding_model: model {entry.name!r} generates text and cannot embed documents", param="embedding_model"
        )
    caller().rights.require_model(entry.name, "embedding_model")
    return entry.name


def _chunk_settings(size: int | None, overlap: int | None) -> dict[str, str | int | None]:
    """Chunk settings of a collection. Raises InvalidValue if the overlap is too large for the chunk size.

    None stands for the server's setting.
    """
    tokens = services().settings.chunk_tokens if size is None else size
    if overlap is not None and overlap * 2 > tokens:
        raise InvalidValue(
            f"chunk_overlap_tokens: may be at most half of chunk_tokens, which is {tokens}, not {overlap}",
            param="chunk_overlap_tokens",
        )
    return {"chunk_tokens": size, "chunk_overlap_tokens": overlap}


def _ocr_settings(body: CollectionChanges) -> dict[str, str | None]:
    """The languages of OCR as a collection stores them. Raises InvalidValue for one that the server's engine cannot read."""
    languages = list(dict.fromkeys(body.ocr_languages or ()))
    if problems := check_ocr_languages(services().settings.ocr_engine, languages, "ocr_languages"):
        raise InvalidValue(problems[0], param="ocr_languages")
    return {"ocr_languages": ",".join(languages) or None}


def _reindex_submission(collection: Collection, changes: ReindexRequest) -> Submission:
    """The job that rebuilds a collection's index. Raises Conflict if another one is under way."""
    idempotency = read_idempotency_key([collection.name, {**changes.model_dump(exclude=CONCURRENCY), **changes.concurrency}])
    if not idempotency.key:
        _reject_second_reindex(collection)
    overlap = changes.chunk_overlap_tokens
    chunks = _chunk_settings(
        changes.chunk_tokens or collection.chunk_tokens, collection.chunk_overlap_tokens if overlap is None else overlap
    )
    model = _choose_embedding_model(changes.embedding_model, collection.embedding_model)
    return Submission(
        kind="reindex",
        queue=CPU_QUEUE,
        spec={"collection_id": collection.id, "embedding_model": model, **chunks},
        owner=owner(),
        priority=REINDEX_PRIORITY,
        webhook=job_webhook(changes.webhook),
        idempotency_key=idempotency.key,
        fingerprint=idempotency.fingerprint,
        **changes.concurrency,
    )


def _reject_second_reindex(collection: Collection) -> None:
    if not collection.reindex_job:
        return
    job = services().queries.get_job(collection.reindex_job)
    if job is not None and not job.status.final:
        raise Conflict(
            f"Job {job.id} is already reindexing collection {collection.name!r}. Wait until it ends, or cancel it.",
            code="reindex_under_way",
            details={"job": job.id},
        )
