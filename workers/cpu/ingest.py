"""The body of an ingest job: a file becomes pages, chunks, vectors, and then visible.

Each step keeps what it made on disk, so that a repeated attempt starts behind the parsing, and an index can be built
again from the chunks. What becomes of the document is written on it before its job ends; should the job end otherwise
(cancelled, out of retries, worker lost), its end fails the document.
"""

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, Protocol

from shared.documents.files import DocumentFiles
from shared.documents.kinds import media_type
from shared.documents.record import Document, Status
from shared.documents.store import Documents, Written
from shared.errors import DocumentRejected, NotFound
from shared.jobs.job import Job
from shared.settings import Settings
from workers.cpu.chunking import Chunk, chunk_pages
from workers.cpu.parse import Limits, Page, ranges, read_pages
from workers.embedding import Embedder
from workers.vectors import Vectors

# Chunks embedded and indexed in one step: enough to be batched by length, few enough that a cancel is seen in seconds.
SLAB = 300
REPORT_SECONDS = 0.5


class Attempt(Protocol):
    """What the body needs of the attempt that it runs for."""

    @property
    def job(self) -> Job: ...
    @property
    def spec(self) -> Mapping[str, Any]: ...
    def progress(self, phase: str, done: int, total: int, unit: str) -> None: ...
    def check(self) -> None: ...


def ingest(attempt: Attempt, documents: Documents, settings: Settings, embedder: Embedder, vectors: Vectors) -> dict[str, Any]:
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
    if document.status == "ready":  # an earlier attempt did all the work and died before it could say so
        return _result(document.id, document.pages, document.chunks, document.reason, {})
    return _Ingestion(attempt, document, documents, settings, embedder, vectors).run()


class _Ingestion:
    """One attempt at one document; the steps of ``run`` in reading order."""

    def __init__(
        self,
        attempt: Attempt,
        document: Document,
        documents: Documents,
        settings: Settings,
        embedder: Embedder,
        vectors: Vectors,
    ) -> None:
        self._attempt = attempt
        self._document = document
        self._documents = documents
        self._settings = settings
        self._embedder = embedder
        self._vectors = vectors
        self._files = DocumentFiles(settings.documents_dir)
        self._timings: dict[str, float] = {}

    def run(self) -> dict[str, Any]:
        try:
            self._check_model()
            with self._step("parsing"):
                pages, reason = self._parse()
            with self._step("chunking"):
                chunks = self._chunk(pages)
            with self._step("embedding"):
                self._embed_and_index(chunks)
            with self._step("indexing"):
                self._drop_leftovers(chunks)
            self._must(self._finish("ready", reason, pages, chunks))
            return _result(self._document.id, pages, chunks, reason, self._timings)
        except DocumentRejected as rejected:
            if rejected.code not in ("deleted", "superseded"):
                self._must(self._finish(_status(rejected.code), rejected.message))
            raise

    def _check_model(self) -> None:
        try:
            wanted = self._documents.collection_by_id(self._document.collection_id).embedding_model
        except NotFound:
            self._leave()
        if wanted != self._embedder.model:
            raise DocumentRejected(
                f"Collection {self._document.collection!r} was made with the embedding model {wanted}, and this worker has "
                f"{self._embedder.model}. Use another collection, or bring the model back in models.json.",
                code="failed",
            )

    def _parse(self) -> tuple[int, str]:
        """Write ``pages.jsonl``, unless an earlier attempt has; pages in all, and what to say of those without text."""
        kept = self._files.path(self._document.id, "pages.jsonl")
        if not kept.exists():
            limits = Limits(
                seconds=self._settings.parse_seconds,
                memory_bytes=self._settings.parse_memory_bytes,
                max_pages=self._settings.max_pages,
                max_page_characters=self._settings.max_page_characters,
            )
            original = self._files.path(self._document.id, "original")
            reported = 0.0
            with self._files.replace(self._document.id, "pages.jsonl") as target:

                def on_page(page: Page, total: int) -> None:
                    nonlocal reported
                    target.write(_line(page))
                    self._attempt.check()
                    self._attempt.progress("parsing", page.number, total, "pages")
                    if time.monotonic() - reported > REPORT_SECONDS or page.number == total:
                        reported = time.monotonic()
                        self._advance("parsing", pages=total, pages_done=page.number)

                read_pages(original, media_type(original), limits, on_page)
        total, images, faults = 0, [], []
        for page in self._pages():
            total = page.number
            if page.images:
                images.append(page.number)
            if page.fault:
                faults.append(page.number)
        notes = [f"Pages {ranges(images)} hold only images and need OCR."] if images else []
        notes += [f"Pages {ranges(faults)} could not be read."] if faults else []
        return total, " ".join(notes)

    def _chunk(self, pages: int) -> int:
        """Write ``chunks.jsonl``; chunks in all."""
        size = min(self._settings.chunk_tokens, self._embedder.max_tokens)
        overlap = min(self._settings.chunk_overlap_tokens, size // 2)
        texts = ((page.number, page.text) for page in self._pages())
        count = 0
        with self._files.replace(self._document.id, "chunks.jsonl") as target:
            for chunk in chunk_pages(texts, self._embedder.count_tokens, size=size, overlap=overlap):
                target.write(_line(chunk))
                count += 1
                if count % SLAB == 0:
                    self._attempt.check()
                    self._attempt.progress("chunking", chunk.page, pages, "pages")
        if count == 0:
            raise DocumentRejected("It holds no text that could be indexed.", code="empty")
        return count

    def _embed_and_index(self, total: int) -> None:
        done = 0
        for slab in self._slabs():
            self._attempt.check()
            vectors = self._embedder.encode([chunk.text for chunk in slab])
            self._advance("embedding")
            self._vectors.put(self._document.collection_id, self._document.id, slab, vectors)
            done += len(slab)
            self._attempt.progress("embedding", done, total, "chunks")

    def _drop_leftovers(self, chunks: int) -> None:
        # Only an earlier attempt, perhaps with other settings, can have put more chunks than this one.
        if self._attempt.job.attempt > 1:
            self._vectors.remove(self._document.collection_id, self._document.id, from_position=chunks)

    def _pages(self) -> Iterator[Page]:
        with self._files.path(self._document.id, "pages.jsonl").open("rb") as source:
            for line in source:
                yield Page(**json.loads(line))

    def _slabs(self) -> Iterator[list[Chunk]]:
        slab: list[Chunk] = []
        with self._files.path(self._document.id, "chunks.jsonl").open("rb") as source:
            for line in source:
                slab.append(Chunk(**json.loads(line)))
                if len(slab) == SLAB:
                    yield slab
                    slab = []
        if slab:
            yield slab

    @contextmanager
    def _step(self, status: Status) -> Iterator[None]:
        self._attempt.check()
        self._advance(status)
        start = time.monotonic()
        yield
        self._timings[status] = round(time.monotonic() - start, 3)

    def _advance(self, status: Status, *, pages: int | None = None, pages_done: int | None = None) -> None:
        job = self._attempt.job
        self._must(self._documents.set_stage(self._document.id, job.id, job.attempt, status, pages=pages, pages_done=pages_done))

    def _finish(self, status: Status, reason: str, pages: int | None = None, chunks: int | None = None) -> Written:
        job = self._attempt.job
        return self._documents.finish(self._document.id, job.id, job.attempt, status, reason=reason, pages=pages, chunks=chunks)

    def _must(self, written: Written) -> None:
        """Go no further when the document is no longer this attempt's."""
        if written == "gone":
            self._leave()
        if written == "stale":
            self._attempt.check()
            raise DocumentRejected("Another attempt works on the document.", code="superseded")

    def _leave(self) -> NoReturn:
        _clear(self._document.id, self._document.collection_id, self._documents, self._settings, self._vectors)
        raise DocumentRejected("The document was deleted while it was ingested.", code="deleted")


def _clear(document_id: str, collection_id: str, documents: Documents, settings: Settings, vectors: Vectors) -> None:
    """Take back what an attempt may have written after the document was deleted under it."""
    DocumentFiles(settings.documents_dir).remove(document_id)
    try:
        documents.collection_by_id(collection_id)
    except NotFound:
        vectors.drop(collection_id)
    else:
        vectors.remove(collection_id, document_id)


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


def _line(row: Page | Chunk) -> bytes:
    return json.dumps(dataclasses.asdict(row), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
