"""Files on their way: each is sent, waited for, and ends; so many at once.

What the server has is the memory of an ingest: a file whose bytes its collection holds is not sent again, so a run that was
broken off is taken up by running it again, from any machine.
"""

import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Protocol

from cli.remote.bulk_ingest.file_discovery import SourceFile
from enginehouse_client import (
    APIError,
    Client,
    Conflict,
    ConnectionFailed,
    Document,
    EnginehouseError,
    Job,
    NotFound,
    RateLimited,
    Unavailable,
    UploadProgress,
    UploadReceipt,
)

POLL_SECONDS = 1.0
NOT_SENT = "not sent"
LEFT_OUT = "left out"
DUPLICATE = "duplicate"
COUNTED = "counted"
# How a document ends that the same bytes will end with again.
LASTING = ("ready", "empty", "needs_ocr", "encrypted", "unsupported", "too_large")
UNDER_WAY = ("uploaded", "parsing", "chunking", "embedding", "indexing")
# After all its tries, no other file will fare better.
SERVER_UNREACHABLE = (ConnectionFailed, Unavailable, RateLimited)


@dataclass(frozen=True)
class FileOutcome:
    """What became of a file, or of one member of an archive: ``status`` is the document's, or ``not sent``, of a member also
    ``left out``. ``known``: the server had it already, and the batch does not count it. ``count`` members have one end together
    when they are not told one by one: as ``duplicate``, which are known, or as ``counted`` by the batch alone."""

    file: str
    status: str
    reason: str
    document: str | None
    known: bool = False
    count: int = 1

    @property
    def failed(self) -> bool:
        return self.status not in ("ready", DUPLICATE, COUNTED)

    @property
    def raw(self) -> Mapping[str, Any]:
        return asdict(self)


class ProgressListener(Protocol):
    """Whoever shows what is under way."""

    def begin(self, file: str) -> None: ...

    def sent(self, file: str, sent: UploadProgress) -> None: ...

    def job_polled(self, file: str, job: Job) -> None: ...

    def end(self, file: str, outcomes: list[FileOutcome]) -> None: ...


class Uploader:
    """One ingest into one collection, counted by one open batch. ``again``: also send what the collection holds and could not be
    read. When nothing can join the batch any more, as it was cancelled, no further file is begun: ``unsent`` says how many."""

    def __init__(self, client: Client, collection: str, batch: Job, watch: ProgressListener, *, again: bool) -> None:
        self._house = client
        self._collection = collection
        self._batch = batch.id
        self._watch = watch
        self._again = again
        self._known: dict[str, Document] = {}
        self._ours: set[str] = set()
        self._lock = threading.Lock()
        self._refused = threading.Event()
        self._stop = threading.Event()
        self.unsent = 0

    def remember(self) -> int:
        """Ask the server what it has of this collection; how many documents that are."""
        try:
            for document in self._house.documents(self._collection):
                before = self._known.get(document.sha256)
                # Newest first; but one that can be searched says more than one that could not be read.
                if before is None or (document.status == "ready" and before.status != "ready"):
                    self._known[document.sha256] = document
        except NotFound:
            pass  # it is made with its first document
        return len(self._known)

    def run(self, files: Iterable[SourceFile], concurrency: int) -> Iterator[FileOutcome]:
        """Send the files, so many at once; the ends as they come. Raises ConnectionFailed, Unavailable or RateLimited when the
        server could not be had over all tries of one file; what has begun then comes to its end unseen."""
        waiting = iter(files)
        with ThreadPoolExecutor(concurrency) as pool:
            under_way: set[Future[list[FileOutcome]]] = set()
            try:
                while True:
                    if self._refused.is_set():
                        self.unsent += sum(1 for _ in waiting)
                    under_way |= {pool.submit(self._one, file) for file in islice(waiting, concurrency - len(under_way))}
                    if not under_way:
                        return
                    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield from future.result()
            finally:
                self._stop.set()

    def _one(self, file: SourceFile) -> list[FileOutcome]:
        self._watch.begin(file.name)
        outcomes: list[FileOutcome] = []
        try:
            outcomes = self._sent_and_read(file)
        except OSError as error:
            outcomes = [FileOutcome(file.name, NOT_SENT, error.strerror or str(error), None)]
        except SERVER_UNREACHABLE:
            raise
        except Conflict as error:
            outcomes = [FileOutcome(file.name, NOT_SENT, error.message, None)]
            if error.code == "batch_sealed":
                self._refused.set()
                with self._lock:
                    self.unsent += 1
        except (APIError, EnginehouseError) as error:
            outcomes = [FileOutcome(file.name, NOT_SENT, error.message, None)]
        finally:
            self._watch.end(file.name, outcomes)
        return outcomes

    def _sent_and_read(self, file: SourceFile) -> list[FileOutcome]:
        with file.path.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        known = self._known.get(sha256)
        if known is not None and (known.status == "ready" or (known.status in LASTING and not self._again)):
            return [_end(file, known, known_before=True)]
        if known is not None and known.status in UNDER_WAY:
            return [self._read(file, known)]
        taken = self._house.send(
            self._collection,
            (file.name, file.path),
            batch=self._batch,
            on_sent=lambda sent: self._watch.sent(file.name, sent),
        )
        if taken.archives:
            return self._unpacked(file, taken)
        return [self._read(file, document) for document in taken.documents]

    def _unpacked(self, file: SourceFile, taken: UploadReceipt) -> list[FileOutcome]:
        """The ends of all members of an archive; of one that has none, its own."""
        read = self._house.wait_until_indexed(taken, on_poll=lambda job: self._on_poll(file, job))
        outcomes = [
            FileOutcome(f"{file.name}: {document.name}", document.status, document.reason or "", document.id)
            for document in read.documents
        ]
        for rejected in read.rejected:
            if rejected.document is None:
                status = LEFT_OUT if rejected.code == "left_out" else rejected.code
                outcomes.append(FileOutcome(rejected.name, status, rejected.reason, None))
        for twin in read.duplicates:
            known = twin.document.status == "ready"
            outcomes.append(FileOutcome(twin.name, twin.document.status, twin.document.reason or "", twin.document.id, known))
        if more := read.more_duplicates:
            reason = "the collection had their bytes already"
            outcomes.append(FileOutcome(f"{file.name}: {more} more members", DUPLICATE, reason, None, known=True, count=more))
        result = self._house.get(taken.archives[0].job).result or {}
        if (more := result.get("documents", 0) - len(result.get("members", ()))) > 0:
            reason = "what became of them is in the counts of the batch"
            outcomes.append(FileOutcome(f"{file.name}: {more} more members", COUNTED, reason, None, count=more))
        return outcomes or [FileOutcome(file.name, "empty", "It is an archive of no files.", None)]

    def _read(self, file: SourceFile, document: Document) -> FileOutcome:
        job: Job | None = None
        if document.status in UNDER_WAY:
            job = self._house.wait(document.job_id, every=POLL_SECONDS, on_poll=lambda job: self._on_poll(file, job))
            document = self._house.document(document.id)
        else:
            with suppress(NotFound):  # jobs are forgotten before documents
                job = self._house.get(document.job_id)
        return _end(file, document, known_before=not self._is_new(document, job))

    def _is_new(self, document: Document, job: Job | None) -> bool:
        """Whether our batch counts it, and no other file of this ingest has the same bytes."""
        with self._lock:
            new = job is not None and job.batch == self._batch and document.id not in self._ours
            self._ours.add(document.id)
        return new

    def _on_poll(self, file: SourceFile, job: Job) -> None:
        if self._stop.is_set():
            raise Stopped
        self._watch.job_polled(file.name, job)


class Stopped(EnginehouseError):
    """The ingest is broken off; the server goes on with what it has."""

    def __init__(self) -> None:
        super().__init__("the ingest was broken off")


def _end(file: SourceFile, document: Document, *, known_before: bool) -> FileOutcome:
    name = file.name if document.name == file.name else f"{file.name}: {document.name}"
    if known_before and document.name != file.name:
        name = file.name
    return FileOutcome(name, document.status, document.reason or "", document.id, known_before)
