"""The body of an ingest job: a file becomes pages, chunks, vectors, and then visible.

Each step keeps what it made on disk, so that a repeated attempt starts behind the parsing, and an index can be built
again from the chunks. What becomes of the document is written on it before its job ends; should the job end otherwise
(cancelled, out of retries, worker lost), its end fails the document.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from shared.documents.files import DocumentFiles
from shared.documents.models import Document, Problem, Status
from shared.documents.store import Documents, DocumentUpdateResult
from shared.documents.text_index import TextIndex
from shared.errors import DocumentRejected, EmbeddingModelMismatch, NotFound
from shared.settings import Settings
from workers.cpu.cpu_slots import machine_cpu_slots
from workers.cpu.indexer import Indexer, pages_of
from workers.cpu.page_ranges import PageRanges
from workers.cpu.parsing.page_summary import PageSummary, summarize_pages
from workers.cpu.parsing.parser import Limits
from workers.index.embedder import EmbedderSource, check_revision
from workers.index.removal import remove_from_indexes
from workers.index.vector_store import VectorStore
from workers.runtime.attempt import AttemptHandle

REPORT_SECONDS = 0.5


def ingest(
    attempt: AttemptHandle, documents: Documents, settings: Settings, embedders: EmbedderSource, vectors: VectorStore
) -> dict[str, Any]:
    """Ingest the document ``spec["document_id"]`` and tell what became of it.

    The result has ``document_id``, ``status``, ``pages``, ``chunks``, ``reason`` (pages that gave no text, or None) and
    ``timings`` in seconds. Raises DocumentRejected, whose code is the status the document ended with (or ``deleted``),
    and IndexUnavailable when another attempt may succeed.
    """
    document_id, collection_id = attempt.spec["document_id"], attempt.spec["collection_id"]
    try:
        document = documents.get(attempt.job.owner, document_id)
    except NotFound:
        _clear(document_id, collection_id, documents, settings, vectors)
        raise DocumentRejected("The document was deleted before it was ingested.", code="deleted") from None
    ingestion = _Ingestion(attempt, document, documents, settings, embedders, vectors)
    if document.status == "ready":  # an earlier attempt did all the work and died before it could say so
        ingestion.retire_replaced()
        return _result(document.id, document.pages, ingestion.follow_index(document.chunks), document.reason, {})
    return ingestion.run()


class _Ingestion:
    """One attempt at one document; the steps of ``run`` in reading order."""

    def __init__(
        self,
        attempt: AttemptHandle,
        document: Document,
        documents: Documents,
        settings: Settings,
        embedders: EmbedderSource,
        vectors: VectorStore,
    ) -> None:
        self._attempt = attempt
        self._document = document
        self._documents = documents
        self._settings = settings
        self._embedders = embedders
        self._vectors = vectors
        self._files = DocumentFiles(settings.documents_dir)
        self._passwords = documents.passwords(self._files, settings.max_queue_seconds)
        self._slots = machine_cpu_slots(settings)
        self._timings: dict[str, float] = {}

    def run(self) -> dict[str, Any]:
        slot = self._slots.acquire()
        password = self._passwords.read(self._document.id)
        try:
            self._indexer()
            with self._step("parsing"):
                found = self._parse(password)
                if password:
                    self._passwords.forget(self._document.id)
            chunks = self._index(indexer := self._indexer())
            # A reindex that ended meanwhile has not seen this document; and the next one may do so until it is ready.
            while (latest := self._indexer()).index != indexer.index:
                chunks = self._index(indexer := latest)
            self._must(self._finish("ready", found.reason, found.pages, chunks, found.problems))
            self.retire_replaced()
            return _result(self._document.id, found.pages, self.follow_index(chunks), found.reason, self._timings)
        except DocumentRejected as rejected:
            if password:
                self._passwords.forget(self._document.id)
            if rejected.code not in ("deleted", "superseded", "replaced"):
                self._must(self._finish(_status(rejected.code), rejected.message))
            raise
        finally:
            if slot is not None:
                slot.release()

    def follow_index(self, chunks: int) -> int:
        """Put the document, which is ready, also into an index that has taken the place of the one it is in; its chunks."""
        indexer = self._indexer()
        if not indexer.texts.contains_document(indexer.index, self._document.id):
            chunks = indexer.put(self._document, self._attempt.raise_if_stopped)
            self._documents.set_chunks(self._document.id, chunks)
        return chunks

    def retire_replaced(self) -> None:
        """Remove the version that this document has taken the place of. Raises IndexUnavailable."""
        try:
            replaced = self._documents.get(self._document.owner, self._document.id).replaces
        except NotFound:
            self._leave()
        if replaced:
            self._documents.remove(replaced, self._document.collection_id)
            self._take_out(replaced)
            self._files.remove(replaced)

    def _take_out(self, document_id: str) -> None:
        remove_from_indexes(
            document_id,
            self._document.collection_id,
            documents=self._documents,
            vectors=self._vectors,
            texts=TextIndex(self._settings.text_index_dir),
        )

    def _indexer(self) -> Indexer:
        """For the index that answers now. Raises DocumentRejected when its embedding model is not here."""
        try:
            collection = self._documents.collection_by_id(self._document.collection_id)
            embedder = self._embedders.for_model(collection.embedding_model)
            check_revision(embedder, collection.name, self._documents.record_revision(collection.id, embedder.revision))
        except NotFound:
            self._leave()
        except EmbeddingModelMismatch as error:
            raise DocumentRejected(error.message, code="failed") from error
        return Indexer(collection.index, collection, embedder, self._settings, self._vectors)

    def _index(self, indexer: Indexer) -> int:
        """Chunk, embed and index the document; chunks in all."""
        document, check, told = self._document, self._attempt.raise_if_stopped, self._attempt.report_progress
        with self._step("chunking"):
            chunks = indexer.write_chunks(document, check, told)
        if chunks == 0:
            raise DocumentRejected("It holds no text that could be indexed.", code="empty")
        with self._step("embedding"):
            indexer.embed(document, chunks, self._check_fence, told)
        with self._step("indexing"):
            indexer.finish(document, chunks, leftovers=self._attempt.job.attempt > 1)
        return chunks

    def _parse(self, password: str) -> PageSummary:
        """Write ``pages.jsonl``, unless an earlier attempt has."""
        if not self._files.path(self._document.id, "pages.jsonl").exists():
            limits = Limits(
                seconds=self._settings.parse_seconds,
                memory_bytes=self._settings.parse_memory_bytes,
                max_pages=self._settings.max_pages,
                max_page_characters=self._settings.max_page_characters,
            )
            reported = 0.0

            def told(done: int, total: int) -> None:
                nonlocal reported
                self._attempt.report_progress("parsing", done, total, "pages")
                if time.monotonic() - reported > REPORT_SECONDS or done == total:
                    reported = time.monotonic()
                    self._advance("parsing", pages=total, pages_done=done)

            PageRanges(
                self._files,
                self._document.id,
                self._document.media_type,
                limits,
                password=password,
                slots=self._slots,
                check=self._attempt.raise_if_stopped,
                told=told,
            ).write()
        return summarize_pages(pages_of(self._files, self._document.id))

    @contextmanager
    def _step(self, status: Status) -> Iterator[None]:
        self._attempt.raise_if_stopped()
        self._advance(status)
        start = time.monotonic()
        yield
        self._timings[status] = round(time.monotonic() - start, 3)

    def _check_fence(self) -> None:
        """Before each write to the index: an attempt that is no longer the latest must not overwrite."""
        self._attempt.raise_if_stopped()
        self._advance("embedding")

    def _advance(self, status: Status, *, pages: int | None = None, pages_done: int | None = None) -> None:
        job = self._attempt.job
        self._must(self._documents.set_stage(self._document.id, job.id, job.attempt, status, pages=pages, pages_done=pages_done))

    def _finish(
        self,
        status: Status,
        reason: str,
        pages: int | None = None,
        chunks: int | None = None,
        problems: Sequence[Problem] = (),
    ) -> DocumentUpdateResult:
        return self._documents.finish(
            self._document.id,
            self._attempt.job.id,
            self._attempt.job.attempt,
            status,
            reason=reason,
            problems=problems,
            pages=pages,
            chunks=chunks,
        )

    def _must(self, written: DocumentUpdateResult) -> None:
        """Go no further when the document is no longer this attempt's."""
        if written == "gone":
            self._leave()
        if written == "replaced":
            self._take_out(self._document.id)
            raise DocumentRejected("A newer version of the document was ready first.", code="replaced")
        if written == "stale":
            self._attempt.raise_if_stopped()
            raise DocumentRejected("Another attempt works on the document.", code="superseded")

    def _leave(self) -> NoReturn:
        _clear(self._document.id, self._document.collection_id, self._documents, self._settings, self._vectors)
        raise DocumentRejected("The document was deleted while it was ingested.", code="deleted")


def _clear(document_id: str, collection_id: str, documents: Documents, settings: Settings, vectors: VectorStore) -> None:
    """Take back what an attempt may have written after the document was deleted under it."""
    DocumentFiles(settings.documents_dir).remove(document_id)
    texts = TextIndex(settings.text_index_dir)
    remove_from_indexes(document_id, collection_id, documents=documents, vectors=vectors, texts=texts)


def _status(code: str) -> Status:
    return code if code in ("empty", "needs_ocr", "encrypted", "unsupported", "too_large") else "failed"  # type: ignore[return-value]


def _result(document_id: str, pages: int, chunks: int, reason: str, timings: Mapping[str, float]) -> dict[str, Any]:
    return {
        "document_id": document_id,
        "status": "ready",
        "pages": pages,
        "chunks": chunks,
        "reason": reason or None,
        "timings": dict(timings),
    }
