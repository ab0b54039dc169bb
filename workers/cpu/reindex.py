"""Handler of reindex jobs: rebuilds the index of a collection, with another embedding model or other chunk settings.

The old index serves searches until the new one is complete; then the collection switches to it atomically. A document that
becomes ready meanwhile is in the old index alone: the reindex looks for such documents before and after the switch, and
each ingest checks the current index when it ends.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from shared.documents.models import Collection, Document
from shared.documents.store import Documents
from shared.errors import DocumentRejected, IndexUnavailable, NotFound
from shared.jobs.models import Job
from shared.settings import Settings
from workers.cpu.indexer import Indexer
from workers.cpu.turn import Turn
from workers.index.embedder import EmbedderSource, check_revision
from workers.index.search_index import SearchIndex
from workers.runtime.attempt import AttemptHandle, AttemptStopped

logger = logging.getLogger(__name__)


def reindex(
    attempt: AttemptHandle,
    documents: Documents,
    settings: Settings,
    embedders: EmbedderSource,
    search_index: SearchIndex,
    must_give_way: Callable[[Job], bool] = lambda job: False,
) -> dict[str, Any]:
    """Index the ready documents of ``spec["collection_id"]`` again and switch the collection to the new index.

    The spec has ``embedding_model`` and optionally ``chunk_tokens`` and ``chunk_overlap_tokens``. With ``only``, a list of
    document ids, those documents are repaired in the current index instead. The result has ``documents``, ``chunks``,
    ``embedding_model``, ``embedding_revision``, and ``skipped``: ready documents whose pages are lost. Raises
    IndexUnavailable when another attempt may succeed; that attempt continues where this one stopped. While it builds the next index, the
    job returns to its queue after a turn if ``must_give_way``.
    """
    return _Reindex(attempt, documents, settings, embedders, search_index, must_give_way).reindex_collection()


def _keep_turn() -> None:
    pass


class _Reindex:
    """One attempt to reindex one collection."""

    def __init__(
        self,
        attempt: AttemptHandle,
        documents: Documents,
        settings: Settings,
        embedders: EmbedderSource,
        search_index: SearchIndex,
        must_give_way: Callable[[Job], bool],
    ) -> None:
        self._attempt = attempt
        self._documents = documents
        self._settings = settings
        self._embedders = embedders
        self._search_index = search_index
        self._collection_id: str = attempt.spec["collection_id"]
        self._next = f"{self._collection_id}.{attempt.job.id.rpartition('_')[2]}"
        self._turn = Turn(attempt, settings.turn_seconds, must_give_way)
        self._chunks: dict[str, int] = {}
        self._skipped: set[str] = set()

    def reindex_collection(self) -> dict[str, Any]:
        try:
            return (
                self._repair_documents(self._attempt.spec["only"]) if "only" in self._attempt.spec else self._build_next_index()
            )
        except AttemptStopped as stop:
            if stop.reason in ("cancel", "timeout"):  # no other attempt will continue it
                self._documents.abandon_reindex(self._collection_id, self._next)
                if self._collection().index != self._next:
                    self._drop(self._next)
            raise
        except NotFound:
            self._documents.abandon_reindex(self._collection_id, self._next)
            self._search_index.drop_collection(self._collection_id)
            raise DocumentRejected("The collection was deleted while it was being reindexed.", code="deleted") from None

    def _build_next_index(self) -> dict[str, Any]:
        self._drop(self._documents.begin_reindex(self._collection_id, self._next, self._attempt.job.id))
        indexer = self._indexer()
        while self._index_missing(indexer, self._turn.give_way):
            pass
        size, overlap = self._chunk_settings
        previous = self._documents.switch_index(
            self._collection_id,
            self._next,
            model=indexer.embedder.model,
            revision=indexer.embedder.revision,
            chunk_tokens=size,
            chunk_overlap_tokens=overlap,
        )
        if previous is None:
            self._collection()  # raises if the collection was deleted
            self._drop(self._next)
            raise DocumentRejected("Another reindex of the collection took over.", code="superseded")
        self._index_missing(indexer)
        for document_id, chunks in self._chunks.items():
            self._documents.set_chunks(document_id, chunks)
        for index in self._search_index.list_indexes(self._collection_id):
            if index != self._next:
                self._drop_old(index)
        self._documents.clear_index_problem(self._collection_id)
        return self._result(indexer)

    def _repair_documents(self, document_ids: Sequence[str]) -> dict[str, Any]:
        """Index some documents again in the current index."""
        collection = self._collection()
        embedder = self._embedders.for_model(collection.embedding_model)
        check_revision(embedder, collection.name, self._documents.record_revision(collection.id, embedder.revision))
        indexer = Indexer(collection.index, collection, embedder, self._settings, self._search_index, self._attempt.usage)
        for number, document_id in enumerate(document_ids, 1):
            self._attempt.raise_if_stopped()
            if self._index_document(indexer, document_id):
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
    def _chunk_settings(self) -> tuple[int | None, int | None]:
        return self._attempt.spec.get("chunk_tokens"), self._attempt.spec.get("chunk_overlap_tokens")

    def _collection(self) -> Collection:
        return self._documents.collection_by_id(self._collection_id, hidden=True)

    def _indexer(self) -> Indexer:
        collection, (size, overlap) = self._collection(), self._chunk_settings
        embedder = self._embedders.for_model(self._attempt.spec["embedding_model"])
        collection = replace(collection, chunk_tokens=size, chunk_overlap_tokens=overlap)
        return Indexer(self._next, collection, embedder, self._settings, self._search_index, self._attempt.usage)

    def _index_missing(self, indexer: Indexer, give_way: Callable[[], None] = _keep_turn) -> int:
        """Index every ready document that the next index lacks; return how many there were.

        ``give_way`` is called between them, and between the parts of a long one.
        """
        present = self._search_index.text_counts(self._next)
        self._chunks |= present
        total, indexed = self._documents.count_documents(self._collection_id), 0
        for number, document_id in enumerate(self._documents.document_ids(self._collection_id), 1):
            self._attempt.raise_if_stopped()
            if document_id not in present and document_id not in self._skipped:
                indexed += self._index_document(indexer, document_id, give_way)
                give_way()
            self._attempt.report_progress("reindexing", number, total, "documents")
        return indexed

    def _index_document(self, indexer: Indexer, document_id: str, give_way: Callable[[], None] = _keep_turn) -> int:
        document = self._ready_document(indexer.collection.owner, document_id)
        if document is None:
            return 0

        def on_progress(phase: str, done: int, total: int, unit: str) -> None:
            if phase == "embedding" and done < total:  # whose progress is saved
                give_way()

        try:
            self._chunks[document_id] = indexer.index_document(document, self._attempt.raise_if_stopped, on_progress)
        except FileNotFoundError:
            if self._ready_document(document.owner, document_id) is not None:
                self._skipped.add(document_id)
            return 0
        if self._ready_document(document.owner, document_id) is None:  # deleted meanwhile, perhaps before it was stored
            del self._chunks[document_id]
            self._search_index.remove_from_collection(self._collection_id, document_id)
        return 1

    def _ready_document(self, owner: str, document_id: str) -> Document | None:
        try:
            document = self._documents.get(owner, document_id, hidden=True)
        except NotFound:
            return None
        return document if document.status == "ready" and document.collection_id == self._collection_id else None

    def _drop_old(self, index: str) -> None:
        """Delete an index that is searched no more. One that is damaged may refuse; the check of collections finds it."""
        try:
            self._search_index.drop_index(index)
        except IndexUnavailable as error:
            logger.warning("index %s is no longer used, but could not be deleted: %s", index, error.message)

    def _drop(self, index: str) -> None:
        if index:
            self._search_index.drop_index(index)
