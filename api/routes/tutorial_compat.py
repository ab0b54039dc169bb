"""The beginners' guide's own calls on chunks: they read and remove what ``/upload`` put in, of any collection of the owner."""

import re
import time
from typing import Any

from flask import Blueprint, Response, jsonify

from api.request_parsing import body, wait_seconds
from api.responses import Answer, accepted
from api.routes.documents import failure
from api.schemas.requests import ChunkIds, Clear, Removal, Search
from api.services import owner, services
from api.submission import submit
from shared.documents.models import Document
from shared.documents.text_index import TextIndex
from shared.errors import NotFound, Unavailable
from shared.ids import DOCUMENT, is_id
from shared.jobs.celery_broker import IO_QUEUE
from shared.jobs.models import Job, Status
from shared.jobs.transitions import Submission

blueprint = Blueprint("guide", __name__)

WAIT_SECONDS = 30
_CHUNK = re.compile(r"(doc_\w{26}):(\d{1,9})")


@blueprint.post("/get_texts")
def get_texts() -> Response:
    """The chunks with these ids, as many as there are."""
    found = []
    for name in body(ChunkIds).ids:
        place = _place(name)
        if place is None:
            continue
        document, position = place
        entry = _texts().load_chunks(_index(document), [(document.id, position)]).get((document.id, position))
        if entry is not None:
            about = {"document_id": document.id, "source": document.name, "page": entry.page, "position": position}
            found.append({"id": name, "content": entry.text, "metadata": {**document.metadata, **about}})
    return jsonify({"documents": found, "count": len(found)})


@blueprint.delete("/delete_document")
def delete_document() -> Answer:
    """Forget the chunks, and documents, with these ids."""
    return _removed(body(ChunkIds).ids, "deleted")


@blueprint.delete("/delete_chunk/<chunk>")
def delete_chunk(chunk: str) -> Answer:
    """Forget one chunk: from record, files and index."""
    answer = _removed([chunk], "deleted")
    return jsonify({"message": "The chunk was deleted.", "deleted_id": chunk}) if isinstance(answer, Response) else answer


@blueprint.post("/remove")
def remove() -> Answer:
    """Forget chunks by their ids, or those that a search in the default collection finds first."""
    wanted = body(Removal)
    return _removed(wanted.ids if wanted.ids is not None else _found(wanted.query or ""), "removed")


@blueprint.post("/clear_db")
def clear_db() -> Answer:
    """Forget all that is in the default collection."""
    here = services()
    body(Clear)
    try:
        collection = here.documents.find_collection(owner(), here.settings.default_collection)
    except NotFound:
        return jsonify({"message": "There was nothing to remove.", "removed_count": 0})
    count, after, more = 0, None, True
    while more:
        page, more = here.documents.list_documents(collection.id, limit=500, after=after)
        count += sum(document.chunks for document in page)
        after = page[-1].id if page else None
        for document in page:
            here.lifecycle.cancel(document.job_id, owner())
    here.documents.drop_collection(collection)
    job = _submit("delete", {"collection_id": collection.id})
    pending = _pending([job])
    return pending or jsonify({"message": f"{count} chunks were removed.", "removed_count": count})


def _removed(names: list[str], how: str) -> Answer:
    """Remove what these ids name, and say so under the guide's words."""
    gone, jobs, last = [], [], dict[str, str]()
    for name in dict.fromkeys(names):
        spec = _removal(name)
        if spec is None:
            continue
        # One after another: each writes the files of its document anew.
        job = _submit("delete", spec, after=last.get(spec["document_id"], ""))
        last[spec["document_id"]] = job.id
        jobs.append(job)
        gone.append(name)
    if not gone:
        raise NotFound("None of these chunks is there.", param="ids")
    return _pending(jobs) or jsonify({"message": f"{len(gone)} were {how}.", f"{how}_ids": gone})


def _removal(name: str) -> dict[str, Any] | None:
    place = _place(name)
    if place is not None:
        document, position = place
        if not _texts().load_chunks(_index(document), [(document.id, position)]):
            return None
        return {"document_id": document.id, "collection_id": document.collection_id, "position": position}
    try:
        whole = services().documents.get(owner(), name) if is_id(DOCUMENT, name) else None
    except NotFound:
        return None
    return None if whole is None else {"document_id": whole.id, "collection_id": whole.collection_id}


def _pending(jobs: list[Job]) -> Answer | None:
    """Wait for removals; the answer to give while one of them still runs, or None."""
    wait = wait_seconds()
    deadline = time.monotonic() + (WAIT_SECONDS if wait is None else wait)
    for job in jobs:
        ended = services().waiting.until_ended(job.id, max(0.0, deadline - time.monotonic())) or job
        if not ended.status.final:
            return accepted(ended)
        if ended.status is not Status.COMPLETED:
            raise failure(ended, "deletion")
    return None


def _found(query: str) -> list[str]:
    here = services()
    collection = here.documents.find_collection(owner(), here.settings.default_collection)
    wanted = Search(query=query, top_k=here.settings.retrieve_top_k)
    job = _submit("search", {**wanted.model_dump(), "collection_id": collection.id})
    ended = here.waiting.until_ended(job.id, WAIT_SECONDS) or job
    if not ended.status.final:
        raise Unavailable("The search did not end in time; nothing was removed. Try again.", retry_after=5)
    if ended.status is not Status.COMPLETED or ended.result is None:
        raise failure(ended, "search")
    return [str(hit["chunk_id"]) for hit in ended.result["hits"]]


def _place(name: str) -> tuple[Document, int] | None:
    """The ready document and the position that the id of a chunk names."""
    named = _CHUNK.fullmatch(name)
    if named is None:
        return None
    try:
        document = services().documents.get(owner(), named[1])
    except NotFound:
        return None
    return (document, int(named[2])) if document.status == "ready" else None


def _index(document: Document) -> str:
    return services().documents.collection_by_id(document.collection_id).index


def _texts() -> TextIndex:
    return TextIndex(services().settings.text_index_dir)


def _submit(kind: str, spec: dict[str, Any], after: str = "") -> Job:
    return submit(Submission(kind=kind, queue=IO_QUEUE, spec=spec, owner=owner(), after=after), 0)
