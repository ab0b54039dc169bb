"""The body of a delete job: a chunk, a document, or a collection with all its documents, is gone when it ends.

The record goes first, so that nothing can be found and no attempt at ingesting can finish any more; then vectors, then
files. Every step may be repeated. Whether the owner may delete it was decided when the job was submitted.
"""

from typing import Any

from shared.documents.files import DocumentFiles
from shared.documents.store import Documents
from shared.documents.text_index import TextIndex
from shared.settings import Settings
from workers.index.removal import drop_indexes, remove_from_indexes
from workers.index.vector_store import VectorStore
from workers.io.chunk_redaction import remove_from_files
from workers.runtime.attempt import AttemptHandle


def delete(attempt: AttemptHandle, documents: Documents, settings: Settings, vectors: VectorStore) -> dict[str, Any]:
    """Delete ``spec["document_id"]``, one chunk of it when there is a ``position``, or all of ``spec["collection_id"]``
    when no document is named.

    A collection must have been dropped (``Documents.drop_collection``) before the job was submitted. Raises
    IndexUnavailable when another attempt may succeed.
    """
    files, texts = DocumentFiles(settings.documents_dir), TextIndex(settings.text_index_dir)
    collection_id, document_id = attempt.spec["collection_id"], attempt.spec.get("document_id")
    if document_id is not None and "position" in attempt.spec:
        index = documents.collection_by_id(collection_id).index
        chunks = texts.document_chunks(index, document_id)
        gone = next((chunk for chunk in chunks if chunk.position == attempt.spec["position"]), None)
        if gone is None:
            return {"deleted": True, "chunks": 0}
        # Out of the files first: they are what every later index is made of.
        remove_from_files(files, document_id, gone, [chunk for chunk in chunks if chunk is not gone])
        remove_from_indexes(document_id, collection_id, documents=documents, vectors=vectors, texts=texts, position=gone.position)
        documents.set_chunks(document_id, len(chunks) - 1)
        return {"deleted": True, "chunks": 1}
    if document_id is not None:
        documents.remove(document_id, collection_id)
        remove_from_indexes(document_id, collection_id, documents=documents, vectors=vectors, texts=texts)
        files.remove(document_id)
        return {"deleted": True, "documents": 1}
    total, done = documents.count_documents(collection_id), 0
    # The files of a document are removed after its record, and the id is known from the record alone: an attempt that
    # dies in between must not lose it, so the record goes last here. Nobody can see it: its collection has no name.
    for member in documents.document_ids(collection_id):
        attempt.raise_if_stopped()
        files.remove(member)
        documents.remove(member, collection_id)
        done += 1
        attempt.report_progress("deleting", done, total, "documents")
    drop_indexes(collection_id, vectors=vectors, texts=texts)
    return {"deleted": True, "documents": done}
