"""Vector stores of ``/v1``: collections and their documents in the form of OpenAI's API. See ``docs/decisions/vector-stores.md``.

A vector store is a collection, and its id is that of the collection with another prefix. A file of a vector store is a document. It has the
id of the file of ``/v1/files`` that the document is made from; a document that was uploaded otherwise has its own id with another prefix.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from shared.documents.collection_contents import Contents
from shared.documents.models import CANCELLED_REASON, IN_PROGRESS, Collection, Document
from shared.documents.store import Documents
from shared.errors import InvalidValue, NotFound
from shared.ids import COLLECTION, DOCUMENT, JOB, is_id

VECTOR_STORE = "vs"
FILE_BATCH = "vsfb"
FileStatus = Literal["in_progress", "completed", "cancelled", "failed"]
FILE_STATUSES: tuple[FileStatus, ...] = ("in_progress", "completed", "cancelled", "failed")


def store_id(collection_id: str) -> str:
    """The id of the vector store that a collection is."""
    return f"{VECTOR_STORE}_{collection_id.partition('_')[2]}"


def collection_of_store(store: str) -> str | None:
    """The id of the collection that a vector store is, or None if it is not the id of one."""
    return f"{COLLECTION}_{store.partition('_')[2]}" if is_id(VECTOR_STORE, store) else None


def file_batch_id(job: str) -> str:
    """The id of the file batch that a batch of uploads is."""
    return f"{FILE_BATCH}_{job.partition('_')[2]}"


def job_of_file_batch(batch: str) -> str | None:
    return f"{JOB}_{batch.partition('_')[2]}" if is_id(FILE_BATCH, batch) else None


def document_of_file(file_id: str) -> str | None:
    """The id of the document whose own id is that of a file, or None if it cannot be."""
    digits = file_id.removeprefix("file-")
    return f"{DOCUMENT}_{digits}" if file_id.startswith("file-") and is_id(DOCUMENT, f"{DOCUMENT}_{digits}") else None


def file_of_document(document_id: str, name: str, file_id: str) -> tuple[str, str]:
    """Id and name of a document as a file. ``file_id`` is the file that it is made from, or ""."""
    if not file_id:
        return f"file-{document_id.partition('_')[2]}", name
    return file_id, name.removesuffix(name_suffix(file_id))


def order_score(hit: Mapping[str, Any]) -> float:
    """The score that orders the hits: the reranker's, if there was one."""
    score = hit["score"] if hit.get("rerank_score") is None else hit["rerank_score"]
    return float(score)


def name_suffix(file_id: str) -> str:
    """What follows the name of a document whose file's name another document of the collection has: a name has one document."""
    return f" ({file_id})"


def find_collection(documents: Documents, owner: str, store: str, param: str, *, even_if_expired: bool = False) -> Collection:
    """The owner's collection that a vector store is. Raises NotFound, and InvalidValue if it has expired and is about to be deleted."""
    collection_id = collection_of_store(store)
    try:
        collection = documents.collection_by_id(collection_id) if collection_id else None
    except NotFound:
        collection = None
    if collection is None or collection.owner != owner:
        raise NotFound(f"{param}: No vector store found with id '{store[:80]}'.", code="vector_store_not_found", param=param)
    expires_at = collection.expires_at
    if expires_at is not None and expires_at <= documents.now_ms() and not even_if_expired:
        raise InvalidValue(f"{param}: vector store {store} has expired", param=param, code="vector_store_expired")
    return collection


def file_status(status: str, reason: str) -> FileStatus:
    """The status of a document in the words of OpenAI's API."""
    if status in IN_PROGRESS:
        return "in_progress"
    if status == "ready":
        return "completed"
    return "cancelled" if (status, reason) == ("failed", CANCELLED_REASON) else "failed"


def file_counts(statuses: Iterable[tuple[str, str]] | Mapping[tuple[str, str], int]) -> dict[str, int]:
    """How many documents with these statuses and reasons are in which state, and how many there are."""
    counts: Counter[str] = Counter()
    for (status, reason), count in Counter(statuses).items():
        counts[file_status(status, reason)] += count
    return {**{status: counts[status] for status in FILE_STATUSES}, "total": counts.total()}


def store_json(collection: Collection, contents: Contents, now_ms: int) -> dict[str, Any]:
    """A vector store as OpenAI describes one, with the ``description`` and the name of its ``collection`` besides."""
    counts, expires_at, days = file_counts(contents.counts), collection.expires_at, collection.expires_days
    status = "in_progress" if counts["in_progress"] else "completed"
    return {
        "id": store_id(collection.id),
        "object": "vector_store",
        "created_at": collection.created_at // 1000,
        "name": collection.title or collection.name,
        "description": collection.description or None,
        "usage_bytes": contents.size,
        "file_counts": counts,
        "status": "expired" if expires_at is not None and expires_at <= now_ms else status,
        "expires_after": None if days is None else {"anchor": "last_active_at", "days": days},
        "expires_at": None if expires_at is None else expires_at // 1000,
        "last_active_at": (collection.last_active_at or collection.created_at) // 1000,
        "metadata": dict(collection.metadata),
        "collection": collection.name,
    }


def file_json(document: Document, collection: Collection, *, chunk_tokens: int, chunk_overlap_tokens: int) -> dict[str, Any]:
    """A document as a file of a vector store. The sizes of chunks are the server's settings, which those of the collection replace."""
    status = file_status(document.status, document.reason)
    overlap = collection.chunk_overlap_tokens
    return {
        "id": file_of_document(document.id, document.name, document.file_id)[0],
        "object": "vector_store.file",
        "created_at": document.created_at // 1000,
        "vector_store_id": store_id(collection.id),
        "status": status,
        "last_error": _last_error(document) if status in ("failed", "cancelled") else None,
        "usage_bytes": document.size,
        "attributes": dict(document.metadata),
        "chunking_strategy": {
            "type": "static",
            "static": {
                "max_chunk_size_tokens": collection.chunk_tokens or chunk_tokens,
                "chunk_overlap_tokens": chunk_overlap_tokens if overlap is None else overlap,
            },
        },
        "document_id": document.id,
    }


def _last_error(document: Document) -> dict[str, str]:
    if document.status == "failed":
        code = "server_error"
    else:
        code = "unsupported_file" if document.status == "unsupported" else "invalid_file"
    return {"code": code, "message": document.reason or f"The file is {document.status}."}
