"""The beginning of a move: the document's record goes to another collection, and its ingest job then indexes it there.

The record is moved in one step, so a worker that dies leaves the document in exactly one collection, and the next attempt continues. The
old index keeps the chunks until the document is ready again: no search shows them, and vectors are copied from them. So a document whose
move is cancelled, or fails, can return: the transition that ends the job puts its record back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from shared.documents.descriptions import read_description, write_description
from shared.documents.files import DocumentFiles
from shared.documents.models import Document
from shared.documents.store import Documents, in_progress_error
from shared.errors import DocumentRejected, NotFound
from workers.cpu.indexer import KnownVectors
from workers.index.embedder import Embedder
from workers.index.search_index import SearchIndex
from workers.runtime.attempt import AttemptHandle, AttemptStopped


def move(attempt: AttemptHandle, document: Document, documents: Documents) -> Document:
    """Move the document from ``spec["moved_from"]`` into ``spec["collection_id"]`` and return it.

    An earlier attempt may have done it. Raises DocumentRejected, with the document where it was, and AttemptStopped (``cancel``) if the
    document or a collection was deleted.
    """
    source, target = attempt.spec["moved_from"], attempt.spec["collection_id"]
    outcome, other = documents.move(document.id, attempt.job.id, attempt.job.attempt, source=source, target=target)
    if outcome == "taken":
        raise DocumentRejected(
            f"Document {other} of the collection has the same name or the same bytes. Rename or delete one of them.",
            code="name_taken",
        )
    if outcome == "elsewhere":
        raise DocumentRejected("The document was moved by another job.", code="superseded")
    if outcome == "in_progress":
        error = in_progress_error(document.id)
        raise DocumentRejected(error.message, code=error.code)
    if outcome == "gone":
        raise AttemptStopped("cancel")
    return documents.get(document.owner, document.id, hidden=True)


def describe_in(collection_id: str, version: int, document: Document, documents: Documents, files: DocumentFiles) -> None:
    """Let the document's folder say in which collection it is, and as which version, so that its record can be made again there."""
    description = read_description(files, document.id)
    if description is None or description.collection_id == collection_id:
        return
    try:
        collection = documents.collection_by_id(collection_id, hidden=True)
    except NotFound:
        return
    # It names an index of the other collection.
    files.path(document.id, "indexed.json").unlink(missing_ok=True)
    write_description(
        files,
        document.id,
        replace(
            description,
            collection_id=collection.id,
            collection=collection.name,
            collection_created_at=collection.created_at,
            embedding_model=collection.embedding_model,
            chunk_tokens=collection.chunk_tokens,
            chunk_overlap_tokens=collection.chunk_overlap_tokens,
            title=collection.title,
            ocr_languages=list(collection.ocr_languages),
            name=document.name,
            version=version,
        ),
    )


def source_vectors(
    spec: Mapping[str, Any], document: Document, embedder: Embedder, documents: Documents, search_index: SearchIndex
) -> KnownVectors | None:
    """The vectors of a document that is moved, in the index that it comes from, if the same model made them."""
    if "moved_from" not in spec:
        return None
    try:
        source = documents.collection_by_id(spec["moved_from"], hidden=True)
    except NotFound:
        return None
    if (source.embedding_model, source.embedding_revision) != (embedder.model, embedder.revision):
        return None
    positions = {
        (tuple(chunk.headings), chunk.text): chunk.position for chunk in search_index.document_chunks(source.index, document.id)
    }

    def look_up(chunks: Sequence[tuple[tuple[str, ...], str]]) -> dict[tuple[tuple[str, ...], str], Sequence[float]]:
        known = {chunk: positions[chunk] for chunk in chunks if chunk in positions}
        vectors = search_index.vectors_at(source.index, document.id, list(known.values()))
        return {chunk: vectors[position] for chunk, position in known.items() if position in vectors}

    return look_up
