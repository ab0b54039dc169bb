"""Handler of ingest jobs: parse a file, chunk its pages, embed and index the chunks, make the document ready.

Each step keeps its output on disk, so a repeated attempt does not parse again, and an index can be rebuilt from the pages.
The document's final status is written before its job ends. If the job ends in another way (cancelled, out of retries,
worker lost), the transition that ends the job fails the document.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from shared.documents.descriptions import remove_description
from shared.documents.files import DocumentFiles
from shared.documents.media_types import UNSUPPORTED
from shared.documents.models import Document, Status
from shared.documents.store import Documents, DocumentUpdateResult
from shared.errors import DocumentRejected, EmbeddingModelMismatch, IndexUnavailable, NotFound
from shared.jobs.models import Job
from shared.settings import Settings
from shared.tracing import span
from workers.cpu.cpu_slots import machine_cpu_slots
from workers.cpu.indexer import Indexer, read_parsed_pages
from workers.cpu.move import describe_in, move, source_vectors
from workers.cpu.ocr.installation import LANGUAGES_SETTING
from workers.cpu.ocr.ocr_pages import OcrPages, OcrSettings
from workers.cpu.ocr.recognizer import OcrLimits
from workers.cpu.page_ranges import PageRanges
from workers.cpu.parsing.page_summary import PageSummary, summarize_pages
from workers.cpu.parsing.parser import CharacterBudget, Limits
from workers.cpu.sandbox.child_process import ChildProcesses
from workers.cpu.turn import Turn
from workers.index.embedder import EmbedderSource, check_revision
from workers.index.search_index import SearchIndex
from workers.runtime.attempt import AttemptHandle, AttemptStopped

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 0.5
"""How often the pages read so far are written to the document's record."""


def ingest(
    attempt: AttemptHandle,
    documents: Documents,
    settings: Settings,
    embedders: EmbedderSource,
    search_index: SearchIndex,
    must_give_way: Callable[[Job], bool] = lambda job: False,
) -> dict[str, Any]:
    """Ingest the document ``spec["document_id"]``.

    The result has ``document_id``, ``status``, ``pages``, ``chunks``, ``reason`` (pages without text, or None), ``removed_lines``
    (headers and footers that were left out), ``replaced`` (the id of the version that it replaced, or None) and ``timings`` in seconds. A long document returns to its queue after a turn if
    ``must_give_way``; the next attempt continues where this one stopped. Raises DocumentRejected, whose code is the document's
    final status, AttemptStopped (``cancel``) if the document was deleted, and IndexUnavailable when another attempt may succeed. With
    ``spec["moved_from"]``, the id of a collection, the document is first moved from there into ``spec["collection_id"]``. A
    deletion that begins later may make it raise anything; ``raise_if_deleted`` recognises that.
    """
    document_id, collection_id = attempt.spec["document_id"], attempt.spec["collection_id"]
    try:
        document = documents.get(attempt.job.owner, document_id, hidden=True)
    except NotFound:
        _remove_traces(attempt, collection_id, settings, search_index)
        raise AttemptStopped("cancel") from None
    if "moved_from" in attempt.spec:
        document = move(attempt, document, documents)
    ingestion = _Ingestion(attempt, document, documents, settings, embedders, search_index, must_give_way)
    if document.status == "ready":  # an earlier attempt finished the work and died before it could end the job
        ingestion.leave_source()
        replaced = ingestion.remove_replaced()
        chunks = ingestion.ensure_in_current_index(document.chunks)
        return _result(document.id, document.pages, chunks, document.reason, replaced, {})
    return ingestion.ingest_document()


def raise_if_deleted(attempt: AttemptHandle, documents: Documents, settings: Settings, search_index: SearchIndex) -> None:
    """Remove what an attempt has written, and raise AttemptStopped (``cancel``), if its document or collection was deleted."""
    document_id, collection_id = attempt.spec["document_id"], attempt.spec["collection_id"]
    try:
        # It may be in another collection than when this job was submitted.
        collection_id = documents.get(attempt.job.owner, document_id, hidden=True).collection_id
        documents.collection_by_id(collection_id, hidden=True)
    except NotFound:
        _remove_traces(attempt, collection_id, settings, search_index)
        raise AttemptStopped("cancel") from None


class _Ingestion:
    """One attempt to ingest one document."""

    def __init__(
        self,
        attempt: AttemptHandle,
        document: Document,
        documents: Documents,
        settings: Settings,
        embedders: EmbedderSource,
        search_index: SearchIndex,
        must_give_way: Callable[[Job], bool],
    ) -> None:
        self._attempt = attempt
        self._document = document
        self._documents = documents
        self._settings = settings
        self._embedders = embedders
        self._search_index = search_index
        self._files = DocumentFiles(settings.documents_dir)
        self._passwords = documents.passwords(self._files, settings.max_queue_seconds)
        self._slots = machine_cpu_slots(settings)
        self._turn = Turn(attempt, settings.turn_seconds, must_give_way)
        self._timings: dict[str, float] = {}

    def ingest_document(self) -> dict[str, Any]:
        password = self._passwords.look_up(self._document.id)
        slot = self._slots.acquire()
        try:
            self._indexer()
            with self._step("parsing"):
                self._attempt.usage.bytes = self._document.size
                summary = self._parse(password)
                self._attempt.usage.pages = summary.pages
                if password:
                    self._passwords.forget(self._document.id)
            chunks = self._index(indexer := self._indexer())
            # A reindex that switched to another index meanwhile did not see this document, and so may the next one, until
            # the document is ready.
            while (latest := self._indexer()).index != indexer.index:
                chunks = self._index(indexer := latest)
            self._require_current(self._finish_ready(summary, chunks))
            indexer.forget_progress(self._document.id)
            self.leave_source()
            replaced = self.remove_replaced()
            chunks = self.ensure_in_current_index(chunks)
            return _result(
                self._document.id, summary.pages, chunks, summary.reason, replaced, self._timings, summary.removed_lines
            )
        except DocumentRejected as rejected:
            if password:
                self._passwords.forget(self._document.id)
            if self._document.before_move.get("status") == "ready" and rejected.code not in ("superseded", "replaced"):
                self._give_up_move()
            elif rejected.code not in ("superseded", "replaced"):
                self._require_current(self._finish(_status(rejected.code), rejected.message))
                if self._document.media_type == UNSUPPORTED:  # no retry can read it, so it need not wait for one
                    self._files.path(self._document.id, "original").unlink(missing_ok=True)
            raise
        except AttemptStopped as stop:
            if stop.reason in ("cancel", "timeout"):  # no other attempt will continue it
                self._remove_vectors()
            raise
        finally:
            if slot is not None:
                slot.release()

    def ensure_in_current_index(self, chunks: int) -> int:
        """Index the document, which is ready, again if a reindex has switched to another index; return its number of chunks."""
        indexer = self._indexer()
        if not self._search_index.contains_document(indexer.index, self._document.id):
            chunks = indexer.index_document(self._document, self._attempt.raise_if_stopped)
            self._documents.set_chunks(self._document.id, chunks)
        return chunks

    def remove_replaced(self) -> str:
        """Remove the version that this document replaces; returns its id, or "". Raises IndexUnavailable."""
        try:
            replaced = self._documents.get(self._document.owner, self._document.id, hidden=True).replaces
        except NotFound:
            self._raise_deleted()
        if replaced:
            remove_description(self._files, replaced)
            self._documents.remove(replaced, self._document.collection_id)
            self._search_index.remove_from_collection(self._document.collection_id, replaced)
            self._files.remove(replaced)
        return replaced

    def leave_source(self) -> None:
        """Remove the document from the index of the collection that it was moved from. Raises IndexUnavailable."""
        if "moved_from" in self._attempt.spec:
            self._search_index.remove_from_collection(self._attempt.spec["moved_from"], self._document.id)

    def _remove_vectors(self) -> None:
        """Remove what the index has of a document that will not become ready. What was parsed stays, for a retry."""
        if self._documents.statuses([self._document.id]).get(self._document.id) == "ready":
            return
        if self._document.before_move:
            self._give_up_move()
            return
        try:
            self._search_index.remove_from_collection(self._document.collection_id, self._document.id)
        except IndexUnavailable as error:
            logger.warning("document %s: its vectors stay, as %s", self._document.id, error.message)

    def _give_up_move(self) -> None:
        """Remove what the move has written. The end of the job then returns the document to the collection whose index still has it."""
        document, before = self._document, self._document.before_move
        try:
            self._search_index.remove_from_collection(document.collection_id, document.id)
        except IndexUnavailable as error:
            logger.warning("document %s: what its move has indexed stays, as %s", document.id, error.message)
        describe_in(document.moved_from, int(before["version"]), document, self._documents, self._files)

    def _indexer(self) -> Indexer:
        """Indexer for the collection's current index. Raises DocumentRejected if this worker lacks its embedding model."""
        try:
            collection = self._documents.collection_by_id(self._document.collection_id, hidden=True)
            embedder = self._embedders.for_model(collection.embedding_model)
            if not embedder.is_loaded:
                self._attempt.report_progress("loading_model", 0, 0, "models")
            check_revision(embedder, collection.name, self._documents.record_revision(collection.id, embedder.revision))
        except NotFound:
            self._raise_deleted()
        except EmbeddingModelMismatch as error:
            raise DocumentRejected(error.message, code="failed") from error
        reuse = source_vectors(self._attempt.spec, self._document, embedder, self._documents, self._search_index)
        return Indexer(collection.index, collection, embedder, self._settings, self._search_index, self._attempt.usage, reuse)

    def _index(self, indexer: Indexer) -> int:
        """Chunk, embed and index the document; return its number of chunks."""
        document, check, on_progress = self._document, self._attempt.raise_if_stopped, self._attempt.report_progress
        chunks, _ = indexer.find_progress(document.id) or (0, 0)
        if not chunks:
            with self._step("chunking"):
                chunks = indexer.write_chunks(document, check, on_progress)
        if chunks == 0:
            raise DocumentRejected("The document contains no text that can be indexed.", code="empty")
        with self._step("embedding"):
            indexer.embed_chunks(document, chunks, self._check_fence, self._on_batch)
        with self._step("indexing"):
            if document.before_move:
                describe_in(document.collection_id, document.version, document, self._documents, self._files)
            indexer.store_text(document, stale_vectors_from=chunks if self._attempt.job.attempt > 1 else None)
        return chunks

    def _parse(self, password: str) -> PageSummary:
        """Write ``pages.jsonl``, unless an earlier attempt did."""
        if not self._files.path(self._document.id, "pages.jsonl").exists():
            if not self._files.path(self._document.id, "original").exists():
                raise DocumentRejected("The file was deleted, as it could not be read. Upload it again.", code="failed")
            limits = Limits(
                seconds=self._settings.parse_seconds,
                memory_bytes=self._settings.parse_memory_bytes,
                max_pages=self._settings.max_pages,
                max_page_characters=self._settings.max_page_characters,
                max_characters=self._settings.max_document_characters,
            )
            children = ChildProcesses()
            self._attempt.on_stop(children.kill)
            last_update = 0.0

            def on_progress(done: int, total: int) -> None:
                nonlocal last_update
                self._attempt.usage.pages = done
                self._attempt.report_progress("parsing", done, total, "pages")
                if time.monotonic() - last_update > PROGRESS_SECONDS or done == total:
                    last_update = time.monotonic()
                    self._advance("parsing", pages=total, pages_done=done)

            PageRanges(
                self._files,
                self._document.id,
                self._document.media_type,
                limits,
                password=password,
                slots=self._slots,
                children=children,
                seconds=self._settings.max_document_seconds,
                check=self._attempt.raise_if_stopped,
                on_progress=on_progress,
                on_range=self._turn.give_way,
                layout=self._settings.pdf_layout,
            ).write_pages()
        if self._settings.ocr_engine != "off":
            self._read_scans(password)
        return summarize_pages(read_parsed_pages(self._files, self._document.id))

    def _read_scans(self, password: str) -> None:
        """Read the pages by OCR that are pictures of text."""
        settings, languages, last_update = self._settings, self._collection_languages(), 0.0

        def on_progress(done: int, total: int) -> None:
            nonlocal last_update
            self._attempt.report_progress("ocr", done, total, "pages")
            if time.monotonic() - last_update > PROGRESS_SECONDS or done == total:
                last_update = time.monotonic()
                self._advance("parsing")

        children = ChildProcesses()
        self._attempt.on_stop(children.kill)
        OcrPages(
            self._files,
            self._document.id,
            self._document.media_type,
            OcrSettings(
                engine=settings.ocr_engine,
                languages=languages or settings.ocr_language_list,
                languages_named_by="ocr_languages" if languages else LANGUAGES_SETTING,
                images=settings.ocr_images,
                limits=OcrLimits(
                    page_seconds=settings.ocr_page_seconds,
                    memory_bytes=settings.ocr_memory_bytes,
                    max_picture_pixels=settings.max_picture_pixels,
                    max_page_characters=settings.max_page_characters,
                ),
                document_seconds=settings.ocr_document_seconds,
            ),
            password=password,
            slots=self._slots,
            children=children,
            budget=CharacterBudget(settings.max_document_characters),
            check=self._attempt.raise_if_stopped,
            on_progress=on_progress,
            on_page=self._turn.give_way,
        ).read_missing()

    def _collection_languages(self) -> Sequence[str]:
        """The languages of OCR that the collection has of its own."""
        try:
            return self._documents.collection_by_id(self._document.collection_id).ocr_languages
        except NotFound:
            self._raise_deleted()

    @contextmanager
    def _step(self, status: Status) -> Iterator[None]:
        self._attempt.raise_if_stopped()
        self._advance(status)
        start = time.monotonic()
        with span(str(status)):
            yield
        self._timings[status] = round(time.monotonic() - start, 3)

    def _on_batch(self, phase: str, done: int, total: int, unit: str) -> None:
        self._attempt.report_progress(phase, done, total, unit)
        if done < total:
            self._turn.give_way()

    def _check_fence(self) -> None:
        """Called before each write to the index, which an attempt that is no longer the latest must not do."""
        self._attempt.raise_if_stopped()
        self._advance("embedding")

    def _advance(self, status: Status, *, pages: int | None = None, pages_done: int | None = None) -> None:
        job = self._attempt.job
        self._require_current(
            self._documents.set_stage(self._document.id, job.id, job.attempt, status, pages=pages, pages_done=pages_done)
        )

    def _finish(self, status: Status, reason: str) -> DocumentUpdateResult:
        job = self._attempt.job
        return self._documents.finish(self._document.id, job.id, job.attempt, status, reason=reason)

    def _finish_ready(self, summary: PageSummary, chunks: int) -> DocumentUpdateResult:
        job = self._attempt.job
        return self._documents.finish(
            self._document.id,
            job.id,
            job.attempt,
            "ready",
            reason=summary.reason,
            problems=summary.problems,
            pages=summary.pages,
            chunks=chunks,
            text_sha256=summary.text_sha256,
        )

    def _require_current(self, result: DocumentUpdateResult) -> None:
        """Raise unless the write reached the document, that is, unless it was deleted, replaced or taken over."""
        if result == "gone":
            self._raise_deleted()
        if result == "replaced":
            self._search_index.remove_from_collection(self._document.collection_id, self._document.id)
            raise DocumentRejected("A newer version of the document became ready first.", code="replaced")
        if result == "stale":
            self._attempt.raise_if_stopped()
            raise DocumentRejected("Another attempt is working on the document.", code="superseded")

    def _raise_deleted(self) -> NoReturn:
        _remove_traces(self._attempt, self._document.collection_id, self._settings, self._search_index)
        # The document was deleted on purpose, so its job is cancelled and has not failed.
        raise AttemptStopped("cancel")


def _remove_traces(attempt: AttemptHandle, collection_id: str, settings: Settings, search_index: SearchIndex) -> None:
    """Remove what an attempt may have written after its document was deleted, and what the collection has that it was moved from."""
    document_id = attempt.spec["document_id"]
    DocumentFiles(settings.documents_dir).remove(document_id)
    for each in {collection_id, attempt.spec.get("moved_from", "")} - {""}:
        search_index.remove_from_collection(each, document_id)


def _status(code: str) -> Status:
    return code if code in ("empty", "needs_ocr", "encrypted", "unsupported", "too_large") else "failed"  # type: ignore[return-value]


def _result(
    document_id: str, pages: int, chunks: int, reason: str, replaced: str, timings: Mapping[str, float], removed_lines: int = 0
) -> dict[str, Any]:
    return {
        "document_id": document_id,
        "status": "ready",
        "pages": pages,
        "chunks": chunks,
        "reason": reason or None,
        "removed_lines": removed_lines,
        "replaced": replaced or None,
        "timings": dict(timings),
    }
