"""Concurrent upload of many files into one collection, each until its document is indexed or has failed.

The server is the only record of an ingest: a file whose bytes the collection already holds is not sent again, so an interrupted
run continues when the same command runs again, on any machine.
"""

import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Protocol

from cli.remote.bulk_ingest.file_discovery import InputFile
from cli.remote.bulk_ingest.url_file import ServerUrl
from enginehouse_client import (
    Client,
    Conflict,
    ConnectionFailed,
    Document,
    EnginehouseError,
    Ingestion,
    Job,
    NotFound,
    RateLimited,
    Unavailable,
    UploadProgress,
    UploadReceipt,
)

POLL_SECONDS = 1.0
NOT_SENT = "not_sent"
LEFT_OUT = "left_out"
DUPLICATE = "duplicate"
COUNTED = "counted"
NAME_TAKEN = "name_taken"
SENT = "sent"
# The same bytes would end in the same status again.
PERMANENT = ("ready", "empty", "needs_ocr", "encrypted", "unsupported", "too_large")
IN_PROGRESS = ("uploaded", "parsing", "chunking", "embedding", "indexing")
# Raised after all retries of one request, so the next file would fail too.
SERVER_UNREACHABLE = (ConnectionFailed, Unavailable, RateLimited)


@dataclass(frozen=True)
class FileOutcome:
    """The outcome of one file, or of one member of an archive.

    ``status`` is the document's, or ``not_sent``, ``name_taken`` if another document has the name and was not to be replaced, or
    ``left_out`` for a member of an archive, or ``sent`` if its end is not waited for. ``replaces`` is the id of the document that this one replaced. ``known_as`` is
    the name under which the collection has the bytes, if it is another one; then no document of the file's own name is replaced.
    ``duplicate``: the
    server had the bytes already, and the batch does not count them. Members that the server does not list one by one share an
    outcome of ``count`` documents, with the status ``duplicate`` or ``counted``.
    """

    file: str
    status: str
    reason: str
    document: str | None
    duplicate: bool = False
    count: int = 1
    replaces: str | None = None
    known_as: str | None = None

    @property
    def failed(self) -> bool:
        return self.status not in ("ready", DUPLICATE, COUNTED, SENT)

    @property
    def raw(self) -> Mapping[str, Any]:
        return asdict(self)


class ProgressListener(Protocol):
    """Receives the progress of each file, from many threads."""

    def file_started(self, file: str) -> None: ...

    def upload_progressed(self, file: str, progress: UploadProgress) -> None: ...

    def job_polled(self, file: str, job: Job) -> None: ...

    def file_ended(self, file: str, outcomes: list[FileOutcome]) -> None: ...


class Uploader:
    """One ingest into one collection, counted by one open batch.

    ``again`` also sends files that the collection holds but could not read; ``replace`` lets files replace documents of their
    names. If the batch no longer accepts jobs because it was cancelled, no further file is started; ``unsent`` counts the files
    that were not sent. Without ``wait``, files are sent and their jobs not waited for.
    """

    def __init__(
        self,
        client: Client,
        collection: str,
        batch: Job,
        listener: ProgressListener,
        *,
        again: bool,
        replace: bool,
        wait: bool = True,
        concurrency_key: str | None = None,
        concurrency_limit: int | None = None,
    ) -> None:
        self._client = client
        self._collection = collection
        self._batch = batch.id
        self._listener = listener
        self._again = again
        self._replace = replace
        self._wait = wait
        self._concurrency_key = concurrency_key
        self._concurrency_limit = concurrency_limit
        self._existing: dict[str, Document] = {}
        self._own_documents: set[str] = set()
        self._lock = threading.Lock()
        self._batch_closed = threading.Event()
        self._interrupted = threading.Event()
        self.unsent = 0

    def load_existing_documents(self) -> int:
        """Read which documents the collection holds; returns their number."""
        try:
            for document in self._client.documents(self._collection):
                newer = self._existing.get(document.sha256)
                # Documents come newest first. A searchable one is worth more than a newer one that could not be read.
                if newer is None or (document.status == "ready" and newer.status != "ready"):
                    self._existing[document.sha256] = document
        except NotFound:
            pass  # the first upload creates the collection
        return len(self._existing)

    def upload_files(self, files: Iterable[InputFile | ServerUrl], concurrency: int) -> Iterator[FileOutcome]:
        """Upload the files, and let the server fetch URLs, at most ``concurrency`` at a time, and yield outcomes as they arrive.

        Raises ConnectionFailed, Unavailable or RateLimited if the server could not be reached after all retries of one request.
        The server then finishes what it has received.
        """
        remaining = iter(files)
        with ThreadPoolExecutor(concurrency) as pool:
            active: set[Future[list[FileOutcome]]] = set()
            try:
                while True:
                    if self._batch_closed.is_set():
                        self.unsent += sum(1 for _ in remaining)
                    active |= {pool.submit(self._process_file, file) for file in islice(remaining, concurrency - len(active))}
                    if not active:
                        return
                    done, active = wait(active, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield from future.result()
            finally:
                self._interrupted.set()

    def _process_file(self, file: InputFile | ServerUrl) -> list[FileOutcome]:
        self._listener.file_started(file.name)
        outcomes: list[FileOutcome] = []
        try:
            outcomes = self._fetch_and_wait(file) if isinstance(file, ServerUrl) else self._upload_and_wait(file)
        except OSError as error:
            outcomes = [FileOutcome(file.name, NOT_SENT, error.strerror or str(error), None)]
        except SERVER_UNREACHABLE:
            raise
        except Conflict as error:
            outcomes = [FileOutcome(file.name, NOT_SENT, error.message, None)]
            if error.code == "batch_sealed":
                self._batch_closed.set()
                with self._lock:
                    self.unsent += 1
        except EnginehouseError as error:
            outcomes = [FileOutcome(file.name, NOT_SENT, error.message, None)]
        finally:
            self._listener.file_ended(file.name, outcomes)
        return outcomes

    def _upload_and_wait(self, file: InputFile) -> list[FileOutcome]:
        with file.local() as path:
            with path.open("rb") as content:
                sha256 = hashlib.file_digest(content, "sha256").hexdigest()
            existing = self._existing.get(sha256)
            if existing is not None and (existing.status == "ready" or (existing.status in PERMANENT and not self._again)):
                return [_outcome(file.name, existing, duplicate=True)]
            if existing is not None and existing.status in IN_PROGRESS:
                return [self._wait_for_document(file, existing)]
            receipt = self._client.send(
                self._collection,
                (file.name, path),
                batch=self._batch,
                replace=self._replace,
                concurrency_key=self._concurrency_key,
                concurrency_limit=self._concurrency_limit,
                on_sent=lambda progress: self._listener.upload_progressed(file.name, progress),
            )
        if receipt.archives and not self._wait:
            return [FileOutcome(file.name, SENT, "", None)]
        if receipt.archives:
            return self._wait_for_archive(file, receipt)
        if receipt.name_conflicts:
            [taken] = receipt.name_conflicts
            reason = f"the collection has another file of this name, {taken.document_id}; --replace replaces it"
            return [FileOutcome(file.name, NAME_TAKEN, reason, taken.document_id)]
        return [self._wait_for_document(file, document) for document in receipt.documents]

    def _fetch_and_wait(self, file: ServerUrl) -> list[FileOutcome]:
        _, [fetch] = self._client.send_urls(
            self._collection,
            [file.url],
            batch=self._batch,
            replace=self._replace,
            concurrency_key=self._concurrency_key,
            concurrency_limit=self._concurrency_limit,
        )
        if not self._wait:
            return [FileOutcome(file.name, SENT, "", None)]
        ingestion = self._client.wait_until_fetched(fetch, on_poll=lambda job: self._on_poll(file, job))
        result = self._client.get(fetch.job).result or {}
        if result.get("status") == "archive":
            return self._archive_outcomes(file.name, ingestion, result["job"])
        duplicate = result.get("status") != "fetched"
        outcomes = [_outcome(document.name, document, duplicate=duplicate) for document in ingestion.documents]
        lost = [FileOutcome(file.name, each.code, each.reason, None) for each in ingestion.rejected if each.document is None]
        return outcomes + lost

    def _wait_for_archive(self, file: InputFile, receipt: UploadReceipt) -> list[FileOutcome]:
        """The outcomes of all members, or one for the archive itself if it has none."""
        ingestion = self._client.wait_until_indexed(receipt, on_poll=lambda job: self._on_poll(file, job))
        return self._archive_outcomes(file.name, ingestion, receipt.archives[0].job)

    def _archive_outcomes(self, name: str, ingestion: Ingestion, job: str) -> list[FileOutcome]:
        outcomes = [_outcome(f"{name}: {document.name}", document, duplicate=False) for document in ingestion.documents]
        for rejection in ingestion.rejected:
            if rejection.document is None:
                status = LEFT_OUT if rejection.code == "left_out" else rejection.code
                outcomes.append(FileOutcome(rejection.name, status, rejection.reason, None))
        for twin in ingestion.duplicates:
            document = twin.document
            duplicate = document.status == "ready"
            outcomes.append(FileOutcome(twin.name, document.status, document.reason or "", document.id, duplicate))
        if more := ingestion.more_duplicates:
            reason = "the collection already has these bytes"
            outcomes.append(FileOutcome(f"{name}: {more} more members", DUPLICATE, reason, None, duplicate=True, count=more))
        result = self._client.get(job).result or {}
        if (more := result.get("documents", 0) - len(result.get("members", ()))) > 0:
            reason = "their results are in the counts of the batch"
            outcomes.append(FileOutcome(f"{name}: {more} more members", COUNTED, reason, None, count=more))
        return outcomes or [FileOutcome(name, "empty", "The archive contains no files.", None)]

    def _wait_for_document(self, file: InputFile, document: Document) -> FileOutcome:
        job: Job | None = None
        if document.status in IN_PROGRESS and not self._wait:
            return FileOutcome(file.name, SENT, "", document.id)
        if document.status in IN_PROGRESS:
            job = self._client.wait(document.job_id, every=POLL_SECONDS, on_poll=lambda job: self._on_poll(file, job))
            document = self._client.document(document.id)
        else:
            with suppress(NotFound):  # jobs expire before documents
                job = self._client.get(document.job_id)
        return _outcome(file.name, document, duplicate=not self._is_new(document, job))

    def _is_new(self, document: Document, job: Job | None) -> bool:
        """Whether this batch counts the document, and no other file of this run has the same bytes."""
        with self._lock:
            new = job is not None and job.batch == self._batch and document.id not in self._own_documents
            self._own_documents.add(document.id)
        return new

    def _on_poll(self, file: InputFile | ServerUrl, job: Job) -> None:
        if self._interrupted.is_set():
            raise IngestInterrupted
        self._listener.job_polled(file.name, job)


class IngestInterrupted(EnginehouseError):
    """Ends the threads that wait for documents; the server finishes what it has received."""

    def __init__(self) -> None:
        super().__init__("the ingest was interrupted")


def _outcome(name: str, document: Document, *, duplicate: bool) -> FileOutcome:
    replaces = document.replaces if document.status == "ready" and not duplicate else None
    known_as = document.name if duplicate and document.name != name else None
    return FileOutcome(name, document.status, document.reason or "", document.id, duplicate, replaces=replaces, known_as=known_as)
