"""The body of a delete job: a document, or a collection with all its documents, is gone when it ends.

The record goes first, so that nothing can be found and no attempt at ingesting can finish any more; then vectors, then
files. Every step may be repeated. Whether the owner may delete it was decided when the job was submitted.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from shared.documents.files import DocumentFiles
from shared.documents.store import Documents
from shared.settings import Settings
from workers.vectors import Vectors


class Attempt(Protocol):
    """What the body needs of the attempt that it runs for."""

    @property
    def spec(self) -> Mapping[str, Any]: ...
    def progress(self, phase: str, done: int, total: int, unit: str) -> None: ...
    def check(self) -> None: ...


def delete(attempt: Attempt, documents: Documents, settings: Settings, vectors: Vectors) -> dict[str, Any]:
    """Delete ``spec["document_id"]``, or all of ``spec["collection_id"]`` when no document is named.

    A collection must have been dropped (``Documents.drop_collection``) before the job was submitted. Raises
    IndexUnavailable when another attempt may succeed.
    """
    files = DocumentFiles(settings.documents_dir)
    collection_id, document_id = attempt.spec["collection_id"], attempt.spec.get("document_id")
    if document_id is not None:
        documents.remove(document_id, collection_id)
        vectors.remove(collection_id, document_id)
        files.remove(document_id)
        return {"deleted": True, "documents": 1}
    total, done = documents.count_documents(collection_id), 0
    # The files of a document are removed after its record, and the id is known from the record alone: an attempt that
    # dies in between must not lose it, so the record goes last here. Nobody can see it: its collection has no name.
    for member in documents.document_ids(collection_id):
        attempt.check()
        files.remove(member)
        documents.remove(member, collection_id)
        done += 1
        attempt.progress("deleting", done, total, "documents")
    vectors.drop(collection_id)
    return {"deleted": True, "documents": done}
