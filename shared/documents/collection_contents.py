"""Contents of a collection: its documents by the file of ``/v1/files`` that they are made from, and how many have which status."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from shared.documents import keys
from shared.documents.models import Document
from shared.documents.scripts import DocumentScripts
from shared.documents.store import Documents

# Of one script, during which Redis does nothing else.
BATCH = 500


@dataclass(frozen=True, kw_only=True)
class Contents:
    """How many documents have each status and, if they failed, reason; and the bytes of all of their files."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    size: int = 0


class CollectionContents:
    """Reads what collections contain. Safe to use from many threads."""

    def __init__(self, client: redis.Redis, documents: Documents) -> None:
        self._redis: Any = client
        self._documents = documents
        self._scripts = DocumentScripts(client)

    def documents_of_files(self, collection_id: str, file_ids: Sequence[str]) -> list[Document]:
        """The documents of a collection that are made from these files, as far as they exist."""
        if not file_ids:
            return []
        found = self._redis.hmget(keys.files(collection_id), list(file_ids))
        return self._documents.read_documents([document_id for document_id in found if document_id])

    def collections_with_file(self, owner: str, file_id: str) -> list[tuple[str, str]]:
        """The owner's collections that have a document made from a file, each with the id of this document."""
        collections = [collection.id for collection in self._documents.list_collections(owner)]
        with self._redis.pipeline(transaction=False) as pipeline:
            for collection_id in collections:
                pipeline.hget(keys.files(collection_id), file_id)
            return [pair for pair in zip(collections, pipeline.execute(), strict=True) if pair[1]]

    def summarize(self, collection_id: str) -> Contents:
        """What a collection contains. It reads the record of every document."""
        counts: Counter[tuple[str, str]] = Counter()
        size, last = 0, ""
        while True:
            last, bytes_, *triples = self._scripts.summarize_documents(collection=collection_id, after=last, batch=BATCH)
            size += int(bytes_)
            for status, reason, number in zip(*[iter(triples)] * 3, strict=True):
                counts[status, reason] += int(number)
            if not last:
                return Contents(counts=counts, size=size)
