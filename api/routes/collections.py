"""Collections with settings of their own, their index made anew, and the chunks of documents one by one."""

import re
from typing import Any

from flask import Blueprint, Response, jsonify

from api.request_parsing import body, query_integer, wait_seconds
from api.responses import Answer, accepted, job_answer, list_json
from api.routes.documents import collection_json, deleted
from api.routes.webhooks import job_webhook
from api.schemas.requests import CollectionChanges, NewCollection, Reindex
from api.services import owner, services
from api.submission import idempotency, submit
from shared.documents.models import Collection
from shared.documents.text_index import IndexedChunk, TextIndex
from shared.errors import Conflict, InvalidValue, NotFound
from shared.jobs.celery_broker import CPU_QUEUE
from shared.jobs.transitions import Submission
from shared.models.catalogue import EMBED

blueprint = Blueprint("indexing", __name__)

BATCH_PRIORITY = 8


@blueprint.post("/collections")
def create() -> Answer:
    """An empty collection; an upload would make one, too, but with the server's settings."""
    wanted = body(NewCollection)
    model = _embedding_model(wanted.embedding_model)
    chosen = _chunk_settings(wanted.chunk_tokens, wanted.chunk_overlap_tokens)
    collection, made = services().documents.make_collection(owner(), wanted.name, model, **chosen)
    if not made:
        raise Conflict(f"There is a collection {wanted.name!r} already; change it with PATCH.", param="name")
    return jsonify(collection_json(collection)), 201


@blueprint.patch("/collections/<collection>")
def configure(collection: str) -> Response:
    """How documents are cut that come from now on; a reindex does the same for those that are there."""
    found = services().documents.find_collection(owner(), collection)
    wanted = body(CollectionChanges)
    given = wanted.model_dump(exclude_unset=True)
    _chunk_settings(given.get("chunk_tokens", found.chunk_tokens), given.get("chunk_overlap_tokens", found.chunk_overlap_tokens))
    return jsonify(collection_json(services().documents.configure(found.id, **given)))


@blueprint.post("/collections/<collection>/reindex")
def reindex(collection: str) -> Answer:
    """Index all documents anew, in the background; the old index answers until the new one is whole."""
    here = services()
    found = here.documents.find_collection(owner(), collection)
    wanted = body(Reindex)
    repeatable = idempotency([collection, wanted.model_dump()])
    if not repeatable.key:
        _refuse_second(found)
    spec = {
        "collection_id": found.id,
        "embedding_model": _embedding_model(wanted.embedding_model, found.embedding_model),
        **_chunk_settings(
            wanted.chunk_tokens or found.chunk_tokens,
            found.chunk_overlap_tokens if wanted.chunk_overlap_tokens is None else wanted.chunk_overlap_tokens,
        ),
    }
    submission = Submission(
        kind="reindex",
        queue=CPU_QUEUE,
        spec=spec,
        owner=owner(),
        priority=BATCH_PRIORITY,
        webhook=job_webhook(wanted.webhook),
        idempotency_key=repeatable.key,
        fingerprint=repeatable.fingerprint,
    )
    wait = wait_seconds() or 0
    job = submit(submission, wait)
    return job_answer(job) if wait and job.status.final else accepted(job)


@blueprint.get("/documents/<document>/chunks")
def chunks(document: str) -> Response:
    """The chunks of a document as they are indexed, in order."""
    limit = query_integer("limit", 20, 1, 100)
    after = query_integer("after", -1, -1, 2**31)
    found = services().documents.get(owner(), document)
    index = services().documents.collection_by_id(found.collection_id).index
    entries = _texts().document_chunks(index, found.id, first=after + 1, limit=limit + 1) if found.status == "ready" else []
    page = entries[:limit]
    return list_json([_chunk_json(entry) for entry in page], str(page[-1].position) if len(entries) > limit else None)


@blueprint.delete("/documents/<document>/chunks/<position>")
def delete_chunk(document: str, position: str) -> Answer:
    """Forget one chunk: what stands in no other chunk of its document is gone from every text that is kept of it."""
    found = services().documents.get(owner(), document)
    index = services().documents.collection_by_id(found.collection_id).index
    place = int(position) if re.fullmatch(r"\d{1,9}", position) else -1
    if found.status != "ready" or not _texts().load_chunks(index, [(found.id, place)]):
        raise NotFound(f"Document {found.id} has no chunk {position[:80]!r}.", param="position")
    spec = {"document_id": found.id, "collection_id": found.collection_id, "position": place}
    return deleted(spec, f"{found.id}:{position}", "chunk")


def _texts() -> TextIndex:
    return TextIndex(services().settings.text_index_dir)


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
    }


def _embedding_model(wanted: str | None, before: str = "") -> str:
    """The embedding model that was asked for, or the one before as long as there is one of that name, or the default one."""
    catalogue = services().catalogue
    if wanted is None:
        if any(entry.name == before and entry.task == EMBED for entry in catalogue.models):
            return before
        return catalogue.embedding().name
    entry = catalogue.get(wanted)
    if entry.task != EMBED:
        raise InvalidValue(f"embedding_model: {entry.name} generates text; it makes no vectors", param="embedding_model")
    return entry.name


def _chunk_settings(size: int | None, overlap: int | None) -> dict[str, int | None]:
    """Raises InvalidValue when they do not go together, or with what the server's settings put in for one of them."""
    settings = services().settings
    tokens = settings.chunk_tokens if size is None else size
    if overlap is not None and overlap * 2 > tokens:
        raise InvalidValue(
            f"chunk_overlap_tokens: may be at most half of chunk_tokens, which is {tokens}, not {overlap}",
            param="chunk_overlap_tokens",
        )
    return {"chunk_tokens": size, "chunk_overlap_tokens": overlap}


def _refuse_second(collection: Collection) -> None:
    if not collection.reindex_job:
        return
    job = services().lifecycle.get_job(collection.reindex_job)
    if job is not None and not job.status.final:
        raise Conflict(
            f"Collection {collection.name!r} is being indexed anew by {job.id}; wait for its end, or cancel it.",
            code="reindex_under_way",
            details={"job": job.id},
        )
