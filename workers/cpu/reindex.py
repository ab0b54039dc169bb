"""The body of a reindex job: makes the index of a collection anew, with another embedding model or other chunk settings.

The old index answers until the new one is whole, then the collection is switched to it in one move. A document that becomes
ready meanwhile is in the old index alone: it is looked for again before and after the switch, and its ingest looks, too.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from shared.documents.models import Collection, Document
from shared.documents.store import Documents
from shared.documents.text_index import TextIndex
from shared.errors import DocumentRejected, NotFound
from shared.settings import Settings
from workers.cpu.indexer import Indexer
from workers.index.embedder import EmbedderSource, check_revision
from workers.index.removal import drop_indexes, remove_from_indexes
from workers.index.vector_store import VectorStore
from workers.runtime.attempt import AttemptHandle, AttemptStopped


def reindex(
    attempt: AttemptHandle, documents: Documents, settings: Settings, embedders: EmbedderSource, vectors: VectorStore
) -> dict[str, Any]:
    """Index the ready documents of ``spec["collection_id"]`` anew, and answer from that index from then on.

    The spec names ``embedding_model``, and may name ``chunk_tokens`` and ``chunk_overlap_tokens``; or ``only``, the ids of
    documents that are put into the index that answers, in which something of them is missing. The result has ``documents``,
    ``chunks``, ``embedding_model``, ``embedding_revision``, and ``skipped``: ready documents whose pages are lost. Raises
    IndexUnavailable when another attempt may succeed, which goes on where this one stopped.
    """
    return _Reindexing(attempt, documents, settings, embedders, vectors).run()


class _Reindexing:
    """One attempt; ``run`` in reading order."""

    def __init__(
        self, attempt: AttemptHandle, documents: Documents, settings: Settings, embedders: EmbedderSource, vectors: VectorStore
    ) -> None:
        self._attempt = attempt
        self._documents = documents
        self._settings = settings
        self._embedders = embedders
        self._vectors = vectors
        self._texts = TextIndex(settings.text_index_dir)
        self._collection_id: str = attempt.spec["collection_id"]
        self._next = f"{self._collection_id}.{attempt.job.id.rpartition('_')[2]}"
        self._chunks: dict[str, int] = {}
        self._skipped: set[str] = set()

    def run(self) -> dict[str, Any]:
        try:
            return self._put_only(self._attempt.spec["only"]) if "only" in self._attempt.spec else self._run()
        except AttemptStopped as stop:
            if stop.reason in ("cancel", "timeout"):  # no other attempt will go on with it
                self._documents.abandon_reindex(self._collection_id, self._next)
                if self._collection().index != self._next:
                    self._drop(self._next)
            raise
        except NotFound:
            self._documents.abandon_reindex(self._collection_id, self._next)
            drop_indexes(self._collection_id, vectors=self._vectors, texts=self._texts)
            raise DocumentRejected("The collection was deleted while it was indexed anew.", code="deleted") from None

    def _run(self) -> dict[str, Any]:
        self._drop(self._documents.begin_reindex(self._collection_id, self._next, self._attempt.job.id))
        indexer = self._indexer()
        while self._catch_up(indexer):
            pass
        size, overlap = self._chosen
        before = self._documents.switch_index(
            self._collection_id,
            self._next,
            model=indexer.embedder.model,
            revision=indexer.embedder.revision,
            chunk_tokens=size,
            chunk_overlap_tokens=overlap,
        )
        if before is None:
            self._collection()  # raises when it is the collection that is gone
            self._drop(self._next)
            raise DocumentRejected("Another reindex of the collection has taken over.", code="superseded")
        self._catch_up(indexer)
        for document_id, chunks in self._chunks.items():
            self._documents.set_chunks(document_id, chunks)
        for index in {*self._texts.list_indexes(self._collection_id), *self._vectors.list_indexes(self._collection_id)} - {
            self._next
        }:
            self._drop(index)
        return self._result(indexer)

    def _put_only(self, document_ids: Sequence[str]) -> dict[str, Any]:
        """Put some documents again into the index that answers."""
        collection = self._collection()
        embedder = self._embedders.for_model(collection.embedding_model)
        check_revision(embedder, collection.name, self._documents.record_revision(collection.id, embedder.revision))
        indexer = Indexer(collection.index, collection, embedder, self._settings, self._vectors)
        for number, document_id in enumerate(document_ids, 1):
            self._attempt.raise_if_stopped()
            if self._put(indexer, document_id):
                self._documents.set_chunks(document_id, self._chunks.get(document_id, 0))
            self._attempt.report_progress("reindexing", number, len(document_ids), "documents")
        return self._result(indexer)

    def _result(self, indexer: Indexer) -> dict[str, Any]:
        return {
            "documents": len(self._chunks),
            "chunks": sum(self._chunks.values()),
            "skipped": sorted(self._skipped),
            "embedding_model": indexer.embedder.model,
            "embedding_revision": indexer.embedder.revision,
        }

    @property
    def _chosen(self) -> tuple[int | None, int | None]:
        return self._attempt.spec.get("chunk_tokens"), self._attempt.spec.get("chunk_overlap_tokens")

    def _collection(self) -> Collection:
        return self._documents.collection_by_id(self._collection_id)

    def _indexer(self) -> Indexer:
        collection, (size, overlap) = self._collection(), self._chosen
        embedder = self._embedders.for_model(self._attempt.spec["embedding_model"])
        collection = replace(collection, chunk_tokens=size, chunk_overlap_tokens=overlap)
        return Indexer(self._next, collection, embedder, self._settings, self._vectors)

    def _catch_up(self, indexer: Indexer) -> int:
        """Put every ready document that the next index lacks into it; how many were put."""
        have = self._texts.count_by_document(self._next)
        self._chunks |= have
        total, put = self._documents.count_documents(self._collection_id), 0
        for number, document_id in enumerate(self._documents.document_ids(self._collection_id), 1):
            self._attempt.raise_if_stopped()
            if document_id not in have and document_id not in self._skipped:
                put += self._put(indexer, document_id)
            self._attempt.report_progress("reindexing", number, total, "documents")
        return put

    def _put(self, indexer: Indexer, document_id: str) -> int:
        document = self._ready(indexer.collection.owner, document_id)
        if document is None:
            return 0
        try:
            self._chunks[document_id] = indexer.put(document, self._attempt.raise_if_stopped)
        except FileNotFoundError:
            if self._ready(document.owner, document_id) is not None:
                self._skipped.add(document_id)
            return 0
        if self._ready(document.owner, document_id) is None:  # deleted meanwhile; its deletion may have come too early
            del self._chunks[document_id]
            remove_from_indexes(
                document_id, self._collection_id, documents=self._documents, vectors=self._vectors, texts=self._texts
            )
        return 1

    def _ready(self, owner: str, document_id: str) -> Document | None:
        try:
            document = self._documents.get(owner, document_id)
        except NotFound:
            return None
        return document if document.status == "ready" else None

    def _drop(self, index: str) -> None:
        if index:
            self._texts.drop_index(index)
            self._vectors.drop_index(index)
