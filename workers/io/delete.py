"""Handler of delete jobs: removes a chunk, a document, or a collection with all its documents.

The record goes first, so that nothing can be found and no ingest attempt can finish any more; then the index, then the
files. Every step can be repeated. Whether the owner may delete something was checked when the job was submitted.
"""

from contextlib import suppress
from typing import Any

from shared.documents.descriptions import remove_description
from shared.documents.files import DocumentFiles
from shared.documents.models import IN_PROGRESS
from shared.documents.store import Documents
from shared.errors import IndexUnavailable, NotFound
from shared.settings import Settings
from workers.index.search_index import SearchIndex
from workers.io.chunk_redaction import redact_chunk
from workers.runtime.attempt import AttemptHandle


def delete(attempt: AttemptHandle, documents: Documents, settings: Settings, search_index: SearchIndex) -> dict[str, Any]:
    """Delete ``spec["document_id"]``, its chunk at ``spec["position"]`` if given, or all of ``spec["collection_id"]`` if no
    document is named.

    Raises IndexUnavailable when another attempt may succeed.
    """
    files = DocumentFiles(settings.documents_dir)
    collection_id, document_id = attempt.spec["collection_id"], attempt.spec.get("document_id")
    if document_id is not None and "position" in attempt.spec:
        found = documents.find(document_id)
        if found is not None and found.status in IN_PROGRESS:
            raise IndexUnavailable(f"Document {document_id} is being moved to another collection.")
        # It may have been moved since this job was submitted.
        collection = documents.collection_by_id(found.collection_id if found else collection_id, hidden=True)
        left = redact_chunk(files, search_index, collection, document_id, attempt.spec["position"])
        if left is None:
            return {"deleted": True, "chunks": 0}
        documents.set_chunks(document_id, left)
        return {"deleted": True, "chunks": 1}
    if document_id is not None:
        # First of all: should Redis lose this job, nothing may make the record again.
        remove_description(files, document_id)
        found = documents.find(document_id)
        documents.remove(document_id, collection_id)
        # It may have been moved since this job was submitted, or a worker died while it moved it.
        for each in {collection_id, *((found.collection_id, found.moved_from) if found else ())} - {""}:
            search_index.remove_from_collection(each, document_id)
        files.remove(document_id)
        return {"deleted": True, "documents": 1}
    # The API drops the record after it has submitted this job, which hides the collection immediately, but may die in between.
    with suppress(NotFound):
        documents.drop_collection(documents.collection_by_id(collection_id, hidden=True))
    for member_id in documents.document_ids(collection_id):
        remove_description(files, member_id)
    total, done = documents.count_documents(collection_id), 0
    # The id of a document is known from its record alone. Here the record goes last: an attempt that dies in between must
    # still find the ids whose files it has to remove. Nobody can see the records, as their collection has no name.
    for member_id in documents.document_ids(collection_id):
        attempt.raise_if_stopped()
        member = documents.find(member_id)
        if member is not None and member.moved_from and member.moved_from != collection_id:  # its move may have been cut off
            search_index.remove_from_collection(member.moved_from, member_id)
        files.remove(member_id)
        documents.remove(member_id, collection_id)
        done += 1
        attempt.report_progress("deleting", done, total, "documents")
    search_index.drop_collection(collection_id)
    return {"deleted": True, "documents": done}
