"""How documents get into a collection: files are sent, and what becomes of them is told, of those in an archive as well."""

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from enginehouse_client.documents import DocumentCalls
from enginehouse_client.effects import Operation, Request
from enginehouse_client.errors import APIError, ConnectionFailed, NotFound
from enginehouse_client.files import FileInput, Source, portions, sources
from enginehouse_client.models import (
    Archive,
    Document,
    Duplicate,
    Ingestion,
    IngestProgress,
    Job,
    Rejection,
    UploadProgress,
    UploadReceipt,
)
from enginehouse_client.retry import send_with_retries

# Whoever shows progress wants to see it move.
POLL_SECONDS = 2.0
UNDER_WAY = ("uploaded", "parsing", "chunking", "embedding", "indexing")
# The server's clocks may differ by so much, and not by more.
SKEW_SECONDS = 60.0

OnPoll = Callable[[Job], None]
Read = tuple[list[Document], list[Rejection]]
"""The documents that have come out of archives, and what could not be read of all."""


class UploadCalls(DocumentCalls):
    """What is sent is read by jobs, under one batch for each request, or one that is opened for many."""

    def upload(self, collection: str, file: FileInput, *, wait: bool = True) -> Operation[Document]:
        """Put one file into a collection, which is made when there is none: the document, once it was read unless ``wait``
        is false. Raises ValueError when it is not one file, or is an archive, which becomes many documents; the server has
        taken it then. A document that cannot be read is no error: look at its status.
        """
        taken = yield from self.send(collection, file)
        if taken.archives:
            raise ValueError(f"{taken.archives[0].name} is an archive; its documents are entered by job {taken.archives[0].job}")
        [document] = taken.documents
        if wait and document.status in UNDER_WAY:
            yield from self.wait(document.job_id)
            document = yield from self.document(document.id)
        return document

    def open_batch(
        self, *, metadata: Mapping[str, str] | None = None, webhook: Mapping[str, Any] | None = None
    ) -> Operation[Job]:
        """Open a batch: a job that counts all that is sent into it, until ``seal`` says that no more will come. The server seals it
        an hour after the last of its jobs has ended, should nobody do so."""
        given = {"metadata": metadata, "webhook": webhook}
        answer = yield from self.submit("/batches", {name: value for name, value in given.items() if value is not None})
        return Job.read(answer.json())

    def seal(self, batch: str | Job) -> Operation[Job]:
        """Nothing more will be sent into a batch: it ends with the last of its jobs. Sealing it again does no harm. Raises
        NotFound, and Conflict when it is another kind of job."""
        answer = yield from self._call("POST", f"/jobs/{quote(_id(batch), safe='')}/seal")
        return Job.read(answer.json())

    def send(
        self,
        collection: str,
        file: FileInput,
        *,
        batch: str | Job | None = None,
        on_sent: Callable[[UploadProgress], None] | None = None,
    ) -> Operation[UploadReceipt]:
        """Send one file, into an open ``batch`` if one is given, and wait for nothing: the document or the archive that it is, and
        the batch. ``on_sent`` is told how far the sending has come. Raises ValueError when it is not one file, OSError, and
        Conflict (``batch_sealed``) when nothing can join the batch any more."""
        files = list(sources(file))
        if len(files) != 1:
            raise ValueError(f"one file is sent at a time, not {len(files)}; ingest takes many")
        size = files[0].size
        told = None if on_sent is None else lambda sent: on_sent(UploadProgress(sent, size))
        return (yield from self._upload_files(collection, files, batch, told))

    def ingest(
        self,
        collection: str,
        files: FileInput | Iterable[FileInput],
        *,
        wait: bool = True,
        timeout: float | None = None,
        on_progress: Callable[[IngestProgress], None] | None = None,
    ) -> Operation[Ingestion]:
        """Put files, archives and whole folders into a collection, in one batch, and wait until all were read.

        ``on_progress`` is told each time something has changed. Raises Timeout when the batch has not ended ``within`` so many
        seconds, FileNotFoundError and OSError, and Conflict when the batch is cancelled before all is sent. A file that cannot be
        read is no error: ``rejected`` lists them.
        """
        found = list(sources(files))
        tally = _ProgressCounter(len(found), on_progress)
        batch = yield from self.open_batch()
        parts: list[UploadReceipt] = []
        try:
            for portion in portions(found):
                parts.append((yield from self._upload_files(collection, portion, batch)))
                tally.uploaded(parts[-1], len(portion))
        except (APIError, OSError):
            with suppress(APIError, ConnectionFailed):
                yield from self.seal(batch)
            raise
        batch = yield from self.seal(batch)
        documents = {document.id: document for part in parts for document in part.documents}
        if not wait:
            return Ingestion(list(documents.values()), batch.id, [])
        archives = [archive for part in parts for archive in part.archives]
        taken = UploadReceipt(collection, list(documents.values()), archives, batch)
        return (yield from self.wait_until_indexed(taken, timeout=timeout, on_poll=tally.looked))

    def wait_until_indexed(
        self, taken: UploadReceipt, *, timeout: float | None = None, on_poll: OnPoll | None = None
    ) -> Operation[Ingestion]:
        """Wait until all that was taken has been read, the documents in archives too: what became of it. ``on_look`` is shown the
        batch now and then, or, where what was taken has joined one over more, the job that is waited for; of such an archive the
        first thousand documents are waited for, the batch has all. Raises Timeout after ``within`` seconds, and NotFound when
        batch or collection was deleted."""
        deadline = None if timeout is None else self.retry_policy.clock() + timeout
        read = self._wait_for_each_job if taken.joined else self._wait_for_batch
        entered, rejected = yield from read(taken, deadline, on_poll)
        duplicates: list[Duplicate] = []
        more_duplicates = 0
        for archive in taken.archives:
            job = yield from self.get(archive.job)
            rejected += _of_archive(archive, job)
            twins, more = yield from self._duplicates(archive, job, deadline)
            duplicates += twins
            more_duplicates += more
        documents = {document.id: document for document in [*taken.documents, *entered]}
        return Ingestion(list(documents.values()), taken.batch.id, rejected, duplicates, more_duplicates)

    def _wait_for_batch(self, taken: UploadReceipt, deadline: float | None, on_poll: OnPoll | None) -> Operation[Read]:
        """Wait for the batch, which is over what was taken and nothing else."""
        yield from self.wait(taken.batch, timeout=self._remaining(deadline), every=POLL_SECONDS, on_poll=on_poll)
        entered: list[Document] = []
        if taken.archives:
            entered = yield from self._archive_documents(taken)
        rejected = yield from self._rejections(taken, [*taken.documents, *entered])
        known = [document for document in taken.documents if document.raw["duplicate"]]
        rejected |= yield from self._wait_for_documents(known, deadline, on_poll)
        return entered, list(rejected.values())

    def _wait_for_each_job(self, taken: UploadReceipt, deadline: float | None, on_poll: OnPoll | None) -> Operation[Read]:
        """Wait for each job: the batch is over more."""
        members: list[str] = []
        for archive in taken.archives:
            job = yield from self.wait(archive.job, timeout=self._remaining(deadline), every=POLL_SECONDS, on_poll=on_poll)
            members += [member["document_id"] for member in (job.result or {}).get("members", ())]
        documents = [*taken.documents, *(yield from self._fetch_documents(members))]
        yield from self._wait_for_documents(documents, deadline, on_poll)
        # Now that each has its end; some had it before they were looked at.
        own = yield from self._fetch_documents([document.id for document in taken.documents])
        entered = yield from self._fetch_documents(members)
        rejected = [
            Rejection(document, document.status, document.reason or "", document.name)
            for document in (*own, *entered)
            if document.status != "ready"
        ]
        return entered, rejected

    def _wait_for_documents(
        self, documents: Iterable[Document], deadline: float | None, on_poll: OnPoll | None
    ) -> Operation[dict[str, Rejection]]:
        rejected: dict[str, Rejection] = {}
        for document in documents:
            if document.status in UNDER_WAY:
                job = yield from self.wait(
                    document.job_id, timeout=self._remaining(deadline), every=POLL_SECONDS, on_poll=on_poll
                )
                if job.status != "completed":
                    rejected[document.id] = _rejection(document.name, document, job)
        return rejected

    def _fetch_documents(self, ids: Iterable[str]) -> Operation[list[Document]]:
        """The documents with these ids; not those that are gone again, as a newer version has replaced them."""
        found: list[Document] = []
        for id in ids:
            try:
                found.append((yield from self.document(id)))
            except NotFound:
                continue
        return found

    def _upload_files(
        self,
        collection: str,
        files: Sequence[Source],
        batch: str | Job | None = None,
        on_sent: Callable[[int], None] | None = None,
    ) -> Operation[UploadReceipt]:
        request = Request(
            method="POST",
            path=f"/collections/{quote(collection, safe='')}/documents",
            query={} if batch is None else {"batch": _id(batch)},
            headers={"Idempotency-Key": str(uuid.uuid4())},
            files=files,
            on_sent=on_sent,
            timeout=self.retry_policy.timeout + 60,
        )
        answer = yield from send_with_retries(request, self.retry_policy)
        told = answer.json()
        documents, archives = map(Document.read, told["data"]), map(Archive.read, told["archives"])
        return UploadReceipt(collection, list(documents), list(archives), Job.read(told["batch"]), batch is not None)

    def _remaining(self, deadline: float | None) -> float | None:
        return None if deadline is None else max(0.0, deadline - self.retry_policy.clock())

    def _batch_jobs(self, batch: str, **wanted: str) -> Operation[list[Job]]:
        jobs: list[Job] = []
        more: str | None = ""
        while more is not None:
            page, more = yield from self._page("/jobs", {"batch": batch, **wanted}, more)
            jobs += map(Job.read, page)
        return jobs

    def _archive_documents(self, taken: UploadReceipt) -> Operation[list[Document]]:
        """The documents that have come out of archives; not those that are gone again, as a newer version has replaced them."""
        jobs = yield from self._batch_jobs(taken.batch.id, kind="ingest")
        wanted = {job.id for job in jobs} - {document.job_id for document in taken.documents}
        members: list[Document] = []
        more: str | None = ""
        while more is not None and len(members) < len(wanted):
            page, more = yield from self._page(f"/collections/{quote(taken.collection, safe='')}/documents", {}, more)
            found = list(map(Document.read, page))
            members += [document for document in found if document.job_id in wanted]
            if found and found[-1].created_at < taken.batch.created_at - SKEW_SECONDS:
                more = None  # newest first: from here on all were there before
        return members

    def _duplicates(self, archive: Archive, job: Job, deadline: float | None) -> Operation[tuple[list[Duplicate], int]]:
        """The members that are documents already, read by now, and how many more there are."""
        result = job.result or {}
        found: list[Duplicate] = []
        gone = 0
        for member in result.get("duplicate_members", ()):
            try:
                document = yield from self.document(member["document_id"])
                if document.status in UNDER_WAY:
                    yield from self.wait(document.job_id, timeout=self._remaining(deadline))
                    document = yield from self.document(document.id)
            except NotFound:
                gone += 1  # replaced by a newer version, or deleted since
                continue
            found.append(Duplicate(f"{archive.name}: {member['name']}", document))
        return found, result.get("duplicates", 0) - len(found) - gone

    def _rejections(self, taken: UploadReceipt, documents: Iterable[Document]) -> Operation[dict[str, Rejection]]:
        by_job = {document.job_id: document for document in documents}
        archives = {archive.job for archive in taken.archives}
        rejected: dict[str, Rejection] = {}
        for status in ("failed", "cancelled", "expired"):
            jobs = yield from self._batch_jobs(taken.batch.id, status=status)
            for job in jobs:
                document = by_job.get(job.id)
                if document is not None:
                    rejected[document.id] = _rejection(document.name, document, job)
                elif job.id not in archives:
                    rejected[job.id] = _rejection(f"a document of {', '.join(a.name for a in taken.archives)}", None, job)
        return rejected


class _ProgressCounter:
    """Counts files, and tells when a number has changed."""

    def __init__(self, files: int, on_progress: Callable[[IngestProgress], None] | None) -> None:
        self._unsent = files
        self._on_progress = on_progress
        self._uploaded = 0
        self._in_no_batch = 0
        self._told: IngestProgress | None = None

    def uploaded(self, taken: UploadReceipt, files: int) -> None:
        self._unsent -= files
        self._uploaded += files
        in_batch = {document.id for document in taken.documents if not document.raw["duplicate"]}
        self._in_no_batch += len(taken.documents) - len(in_batch)
        self.looked(taken.batch)

    def looked(self, job: Job) -> None:
        if job.counts is None:
            return
        total, completed, *otherwise = (
            job.counts.get(name, 0) for name in ("total", "completed", "failed", "cancelled", "expired")
        )
        failed = sum(otherwise)
        files = self._unsent + self._in_no_batch + total
        now = IngestProgress(files, self._uploaded, self._in_no_batch + completed + failed, failed)
        if self._on_progress is not None and now != self._told:
            self._on_progress(now)
        self._told = now


def _id(job: str | Job) -> str:
    return job if isinstance(job, str) else job.id


def _of_archive(archive: Archive, job: Job) -> Iterable[Rejection]:
    """What of an archive did not become a document: all of it when it could not be unpacked, or what was left out of it."""
    if job.status != "completed" or job.result is None:
        yield _rejection(archive.name, None, job)
        return
    named = job.result["skipped_members"]
    for member in named:
        yield Rejection(None, "left_out", str(member["reason"]), f"{archive.name}: {member['name']}")
    if (more := job.result["skipped"] - len(named)) > 0:
        yield Rejection(None, "left_out", f"{more} more members were left out", archive.name)


def _rejection(name: str, document: Document | None, job: Job) -> Rejection:
    error = job.error or {"code": job.status, "message": f"its job is {job.status}"}
    return Rejection(document, str(error["code"]), str(error["message"]), name)
