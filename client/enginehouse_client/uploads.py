"""Operations that add documents to a collection: upload files, archives and folders, and wait until they are indexed."""

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from enginehouse_client.documents import DocumentCalls
from enginehouse_client.effects import Operation, Request
from enginehouse_client.errors import APIError, Conflict, ConnectionFailed, NotFound
from enginehouse_client.files import FileInput, Source, sources, split_into_requests
from enginehouse_client.models import (
    Archive,
    Document,
    Duplicate,
    Ingestion,
    IngestProgress,
    Job,
    NameConflict,
    Rejection,
    UploadProgress,
    UploadReceipt,
    UrlFetch,
)
from enginehouse_client.retry import send_with_retries

# Short enough for a progress display.
POLL_SECONDS = 2.0
IN_PROGRESS = ("uploaded", "parsing", "chunking", "embedding", "indexing")
# The clocks of the server's hosts may differ by this much.
MAX_CLOCK_SKEW_SECONDS = 60.0

OnPoll = Callable[[Job], None]
IndexResult = tuple[list[Document], list[Rejection]]
"""Documents from archives, and all files that are not searchable."""


class UploadCalls(DocumentCalls):
    """Uploads. Jobs index what was uploaded; one batch counts the jobs of a request, or an open batch those of many requests."""

    def upload(
        self,
        collection: str,
        file: FileInput,
        *,
        wait: bool = True,
        replace: bool = True,
        not_before: float | str | None = None,
        concurrency_key: str | None = None,
        concurrency_limit: int | None = None,
    ) -> Operation[Document]:
        """Add one file to a collection, which is created if it does not exist, and return the document once it is indexed, or at
        once if ``wait`` is false. Raises ValueError if there is not exactly one file, or if it is an archive, which the server has
        then accepted. A document that cannot be indexed is not an error: check its status. If the collection has another file of
        this name, the new one replaces it and ``replaces`` is its id; with ``replace`` false, raises Conflict (``name_taken``).
        ``not_before`` is when it may be indexed: seconds from now, or a time in RFC 3339. Of your jobs with the same ``concurrency_key``,
        at most ``concurrency_limit`` run at once.
        """
        receipt = yield from self.send(
            collection,
            file,
            replace=replace,
            not_before=not_before,
            concurrency_key=concurrency_key,
            concurrency_limit=concurrency_limit,
        )
        for conflict in receipt.conflicts:
            raise Conflict(f"{conflict.name}: {conflict.reason}", status=409, code=conflict.code)
        if receipt.archives:
            raise ValueError(
                f"{receipt.archives[0].name} is an archive, which job {receipt.archives[0].job} unpacks; use ingest for archives"
            )
        [document] = receipt.documents
        if wait and document.status in IN_PROGRESS:
            yield from self.wait(document.job_id)
            document = yield from self.document(document.id)
        return document

    def open_batch(
        self,
        *,
        metadata: Mapping[str, str] | None = None,
        webhook: Mapping[str, Any] | None = None,
        not_before: float | str | None = None,
    ) -> Operation[Job]:
        """Open a batch, a job that counts all jobs that join it until ``seal``. The server seals it an hour after its last job has
        ended. Its jobs start at ``not_before``: seconds from now, or a time in RFC 3339."""
        fields = {"metadata": metadata, "webhook": webhook, "not_before": not_before}
        response = yield from self.submit("/batches", {name: value for name, value in fields.items() if value is not None})
        return Job.from_json(response.json())

    def seal(self, batch: str | Job) -> Operation[Job]:
        """Seal a batch: no further jobs can join, and it ends with its last job. Safe to repeat. Raises NotFound, and Conflict if
        the job is not a batch."""
        response = yield from self._call("POST", f"/jobs/{quote(_id(batch), safe='')}/seal")
        return Job.from_json(response.json())

    def send(
        self,
        collection: str,
        file: FileInput,
        *,
        batch: str | Job | None = None,
        replace: bool = True,
        not_before: float | str | None = None,
        concurrency_key: str | None = None,
        concurrency_limit: int | None = None,
        on_sent: Callable[[UploadProgress], None] | None = None,
    ) -> Operation[UploadReceipt]:
        """Upload one file, optionally into an open ``batch``, without waiting until it is indexed. ``on_sent`` receives the progress
        of the upload. With ``replace`` false, a file that would replace another is in the receipt's ``name_conflicts``. Raises
        ValueError if there is not exactly one file, OSError, and Conflict (``batch_sealed``) if the batch no longer accepts
        jobs."""
        files = list(sources(file))
        if len(files) != 1:
            raise ValueError(f"expected one file, got {len(files)}; use ingest for several")
        size = files[0].size
        report = None if on_sent is None else lambda sent: on_sent(UploadProgress(sent, size))
        schedule = {"not_before": not_before, "concurrency_key": concurrency_key, "concurrency_limit": concurrency_limit}
        return (yield from self._upload_files(collection, files, batch, report, replace=replace, schedule=schedule))

    def ingest(
        self,
        collection: str,
        files: FileInput | Iterable[FileInput],
        *,
        wait: bool = True,
        replace: bool = True,
        not_before: float | str | None = None,
        concurrency_key: str | None = None,
        concurrency_limit: int | None = None,
        timeout: float | None = None,
        on_progress: Callable[[IngestProgress], None] | None = None,
    ) -> Operation[Ingestion]:
        """Add files, archives and folders to a collection, as one batch, and wait until all are indexed.

        ``on_progress`` is called after each change. Raises Timeout if the batch has not ended after ``timeout`` seconds,
        FileNotFoundError and OSError, and Conflict if the batch is cancelled before all files are sent. A file that cannot be
        indexed is not an error; ``rejected`` lists such files, and with ``replace`` false also those that would replace others.
        ``not_before`` is when the files may be indexed: seconds from now, or a time in RFC 3339. Of your jobs with the same
        ``concurrency_key``, at most ``concurrency_limit`` run at once.
        """
        found = list(sources(files))
        counter = _ProgressCounter(len(found), on_progress)
        schedule = {"concurrency_key": concurrency_key, "concurrency_limit": concurrency_limit}
        batch = yield from self.open_batch(not_before=not_before)
        receipts: list[UploadReceipt] = []
        try:
            for group in split_into_requests(found):
                receipts.append((yield from self._upload_files(collection, group, batch, replace=replace, schedule=schedule)))
                counter.uploaded(receipts[-1], len(group))
        except (APIError, OSError):
            with suppress(APIError, ConnectionFailed):
                yield from self.seal(batch)
            raise
        batch = yield from self.seal(batch)
        documents = {document.id: document for receipt in receipts for document in receipt.documents}
        conflicts = [conflict for receipt in receipts for conflict in receipt.name_conflicts]
        if not wait:
            return Ingestion(list(documents.values()), batch.id, [found for receipt in receipts for found in receipt.conflicts])
        archives = [archive for receipt in receipts for archive in receipt.archives]
        receipt = UploadReceipt(collection, list(documents.values()), archives, batch, name_conflicts=conflicts)
        return (yield from self.wait_until_indexed(receipt, timeout=timeout, on_poll=counter.update_counts))

    def send_urls(
        self,
        collection: str,
        urls: Sequence[str],
        *,
        batch: str | Job | None = None,
        replace: bool = True,
        metadata: Mapping[str, Any] | None = None,
        not_before: float | str | None = None,
        concurrency_key: str | None = None,
        concurrency_limit: int | None = None,
    ) -> Operation[tuple[Job, list[UrlFetch]]]:
        """Let the server fetch URLs into a collection, optionally counted by an open ``batch``, without waiting for them; returns the batch
        and the job of each URL. They are fetched at ``not_before`` at the earliest: seconds from now, or a time in RFC 3339. Of your jobs
        with the same ``concurrency_key``, at most ``concurrency_limit`` run at once. Raises InvalidRequest for a URL that the server refuses, and Conflict (``batch_sealed``)."""
        path = f"/collections/{quote(collection, safe='')}/documents"
        if batch is not None:
            path += f"?batch={quote(_id(batch), safe='')}"
        optional = {
            "metadata": dict(metadata) if metadata else None,
            "not_before": not_before,
            "concurrency_key": concurrency_key,
            "concurrency_limit": concurrency_limit,
        }
        fields = {
            "urls": list(urls),
            "replace": replace,
            **{name: value for name, value in optional.items() if value is not None},
        }
        body = (yield from self.submit(path, fields)).json()
        return Job.from_json(body["batch"]), [UrlFetch.from_json(fetch) for fetch in body["fetches"]]

    def ingest_urls(
        self,
        collection: str,
        urls: Sequence[str],
        *,
        wait: bool = True,
        replace: bool = True,
        metadata: Mapping[str, Any] | None = None,
        not_before: float | str | None = None,
        concurrency_key: str | None = None,
        concurrency_limit: int | None = None,
        timeout: float | None = None,
    ) -> Operation[Ingestion]:
        """Let the server fetch pages and files, and wait until all are indexed. A page that it has fetched before is sent again only if it
        has changed.

        A URL that cannot be fetched or indexed is not an error; ``rejected`` lists it. The other arguments are those of ``send_urls``. Raises Timeout after ``timeout`` seconds.
        """
        deadline = None if timeout is None else self.retry_policy.clock() + timeout
        batch, fetches = yield from self.send_urls(
            collection,
            urls,
            replace=replace,
            metadata=metadata,
            not_before=not_before,
            concurrency_key=concurrency_key,
            concurrency_limit=concurrency_limit,
        )
        if not wait:
            return Ingestion([], batch.id, [])
        documents: list[Document] = []
        rejected: list[Rejection] = []
        duplicates: list[Duplicate] = []
        more = 0
        for fetch in fetches:
            found = yield from self.wait_until_fetched(fetch, deadline=deadline)
            documents += found.documents
            rejected += found.rejected
            duplicates += found.duplicates
            more += found.more_duplicates
        unique = {document.id: document for document in documents}
        return Ingestion(list(unique.values()), batch.id, rejected, duplicates, more)

    def wait_until_fetched(
        self, fetch: UrlFetch, *, deadline: float | None = None, on_poll: OnPoll | None = None
    ) -> Operation[Ingestion]:
        """Wait until what a URL became is indexed: a document, or the first thousand members of an archive. ``deadline`` is a time of the
        retry policy's clock; raises Timeout after it."""
        job = yield from self.wait(fetch.job, timeout=self._remaining(deadline), every=POLL_SECONDS, on_poll=on_poll)
        batch, result = job.batch or "", job.result
        if job.status != "completed" or result is None:
            return Ingestion([], batch, [_rejection(fetch.url, None, job)])
        if result["status"] == "name_taken":
            reason = f"the collection has another file of this name, {result['document_id']}"
            return Ingestion([], batch, [Rejection(None, "name_taken", reason, fetch.url)])
        archives = [Archive(raw={}, name=fetch.url, job=result["job"])] if result["status"] == "archive" else []
        documents = yield from self._fetch_documents([result["document_id"]] if result["document_id"] else [])
        receipt = UploadReceipt("", documents, archives, job, joined=True)
        found = yield from self.wait_until_indexed(receipt, timeout=self._remaining(deadline), on_poll=on_poll)
        indexed = yield from self._fetch_documents([document.id for document in found.documents])
        return Ingestion(indexed, batch, found.rejected, found.duplicates, found.more_duplicates)

    def wait_until_indexed(
        self, receipt: UploadReceipt, *, timeout: float | None = None, on_poll: OnPoll | None = None
    ) -> Operation[Ingestion]:
        """Wait until everything in the receipt is indexed, including the members of archives. ``on_poll`` receives the batch, or, if
        the batch also has other jobs, the job that is being waited for. In that case only the first thousand members of an archive
        are waited for. Raises Timeout after ``timeout`` seconds, and NotFound if the batch or the collection was deleted."""
        deadline = None if timeout is None else self.retry_policy.clock() + timeout
        wait_for_documents = self._wait_for_each_job if receipt.joined else self._wait_for_batch
        entered, rejected = yield from wait_for_documents(receipt, deadline, on_poll)
        rejected += receipt.conflicts
        duplicates: list[Duplicate] = []
        more_duplicates = 0
        for archive in receipt.archives:
            job = yield from self.get(archive.job)
            rejected += _archive_rejections(archive, job)
            twins, more = yield from self._duplicates(archive, job, deadline)
            duplicates += twins
            more_duplicates += more
        documents = {document.id: document for document in [*receipt.documents, *entered]}
        return Ingestion(list(documents.values()), receipt.batch.id, rejected, duplicates, more_duplicates)

    def _wait_for_batch(self, receipt: UploadReceipt, deadline: float | None, on_poll: OnPoll | None) -> Operation[IndexResult]:
        """Wait for a batch that has no other jobs."""
        yield from self.wait(receipt.batch, timeout=self._remaining(deadline), every=POLL_SECONDS, on_poll=on_poll)
        entered: list[Document] = []
        if receipt.archives:
            entered = yield from self._archive_documents(receipt)
        rejected = yield from self._rejections(receipt, [*receipt.documents, *entered])
        duplicates = [document for document in receipt.documents if document.raw["duplicate"]]
        rejected |= yield from self._wait_for_documents(duplicates, deadline, on_poll)
        return entered, list(rejected.values())

    def _wait_for_each_job(
        self, receipt: UploadReceipt, deadline: float | None, on_poll: OnPoll | None
    ) -> Operation[IndexResult]:
        """Wait for the jobs one by one, as the batch has other jobs too."""
        members: list[str] = []
        for archive in receipt.archives:
            job = yield from self.wait(archive.job, timeout=self._remaining(deadline), every=POLL_SECONDS, on_poll=on_poll)
            members += [member["document_id"] for member in (job.result or {}).get("members", ())]
        documents = [*receipt.documents, *(yield from self._fetch_documents(members))]
        yield from self._wait_for_documents(documents, deadline, on_poll)
        # Fetched again, as some had ended before the first fetch.
        own = yield from self._fetch_documents([document.id for document in receipt.documents])
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
            if document.status in IN_PROGRESS:
                job = yield from self.wait(
                    document.job_id, timeout=self._remaining(deadline), every=POLL_SECONDS, on_poll=on_poll
                )
                if job.status != "completed":
                    rejected[document.id] = _rejection(document.name, document, job)
        return rejected

    def _fetch_documents(self, ids: Iterable[str]) -> Operation[list[Document]]:
        """Return the documents with these ids, without those that a newer version has replaced."""
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
        *,
        replace: bool = True,
        schedule: Mapping[str, float | str | None],
    ) -> Operation[UploadReceipt]:
        form = {} if replace else {"replace": "false"}
        form |= {name: str(value) for name, value in schedule.items() if value is not None}
        request = Request(
            method="POST",
            path=f"/collections/{quote(collection, safe='')}/documents",
            query={} if batch is None else {"batch": _id(batch)},
            headers={"Idempotency-Key": str(uuid.uuid4())},
            files=files,
            form=form,
            on_sent=on_sent,
            timeout=self.retry_policy.timeout + 60,
        )
        response = yield from send_with_retries(request, self.retry_policy)
        body = response.json()
        documents, archives = map(Document.from_json, body["data"]), map(Archive.from_json, body["archives"])
        conflicts = map(NameConflict.from_json, body.get("name_conflicts", ()))
        batch_job = Job.from_json(body["batch"])
        return UploadReceipt(collection, list(documents), list(archives), batch_job, batch is not None, list(conflicts))

    def _remaining(self, deadline: float | None) -> float | None:
        return None if deadline is None else max(0.0, deadline - self.retry_policy.clock())

    def _batch_jobs(self, batch: str, **filters: str) -> Operation[list[Job]]:
        jobs: list[Job] = []
        more: str | None = ""
        while more is not None:
            page, more = yield from self._page("/jobs", {"batch": batch, **filters}, more)
            jobs += map(Job.from_json, page)
        return jobs

    def _archive_documents(self, receipt: UploadReceipt) -> Operation[list[Document]]:
        """Return the documents from archives, without those that a newer version has replaced."""
        jobs = yield from self._batch_jobs(receipt.batch.id, kind="ingest")
        wanted = {job.id for job in jobs} - {document.job_id for document in receipt.documents}
        members: list[Document] = []
        more: str | None = ""
        while more is not None and len(members) < len(wanted):
            page, more = yield from self._page(f"/collections/{quote(receipt.collection, safe='')}/documents", {}, more)
            found = list(map(Document.from_json, page))
            members += [document for document in found if document.job_id in wanted]
            if found and found[-1].created_at < receipt.batch.created_at - MAX_CLOCK_SKEW_SECONDS:
                more = None  # newest first, so all further documents are older than the batch
        return members

    def _duplicates(self, archive: Archive, job: Job, deadline: float | None) -> Operation[tuple[list[Duplicate], int]]:
        """Return the members that duplicate an existing document, once it is indexed, and the number of those not listed."""
        result = job.result or {}
        found: list[Duplicate] = []
        gone = 0
        for member in result.get("duplicate_members", ()):
            try:
                document = yield from self.document(member["document_id"])
                if document.status in IN_PROGRESS:
                    yield from self.wait(document.job_id, timeout=self._remaining(deadline))
                    document = yield from self.document(document.id)
            except NotFound:
                gone += 1  # replaced by a newer version or deleted
                continue
            found.append(Duplicate(f"{archive.name}: {member['name']}", document))
        return found, result.get("duplicates", 0) - len(found) - gone

    def _rejections(self, receipt: UploadReceipt, documents: Iterable[Document]) -> Operation[dict[str, Rejection]]:
        by_job = {document.job_id: document for document in documents}
        archives = {archive.job for archive in receipt.archives}
        rejected: dict[str, Rejection] = {}
        for status in ("failed", "cancelled", "expired"):
            jobs = yield from self._batch_jobs(receipt.batch.id, status=status)
            for job in jobs:
                document = by_job.get(job.id)
                if document is not None:
                    rejected[document.id] = _rejection(document.name, document, job)
                elif job.id not in archives:
                    rejected[job.id] = _rejection(f"a document of {', '.join(a.name for a in receipt.archives)}", None, job)
        return rejected


class _ProgressCounter:
    """Counts files and reports each change."""

    def __init__(self, files: int, on_progress: Callable[[IngestProgress], None] | None) -> None:
        self._unsent = files
        self._on_progress = on_progress
        self._uploaded = 0
        self._in_no_batch = 0
        self._last_reported: IngestProgress | None = None

    def uploaded(self, receipt: UploadReceipt, files: int) -> None:
        self._unsent -= files
        self._uploaded += files
        in_batch = {document.id for document in receipt.documents if not document.raw["duplicate"]}
        self._in_no_batch += len(receipt.documents) - len(in_batch)
        self.update_counts(receipt.batch)

    def update_counts(self, job: Job) -> None:
        if job.counts is None:
            return
        total, completed, *otherwise = (
            job.counts.get(name, 0) for name in ("total", "completed", "failed", "cancelled", "expired")
        )
        failed = sum(otherwise)
        files = self._unsent + self._in_no_batch + total
        now = IngestProgress(files, self._uploaded, self._in_no_batch + completed + failed, failed)
        if self._on_progress is not None and now != self._last_reported:
            self._on_progress(now)
        self._last_reported = now


def _id(job: str | Job) -> str:
    return job if isinstance(job, str) else job.id


def _archive_rejections(archive: Archive, job: Job) -> Iterable[Rejection]:
    """Yield what did not become a document: the archive itself if it could not be unpacked, else the members left out."""
    if job.status != "completed" or job.result is None:
        yield _rejection(archive.name, None, job)
        return
    named = job.result["skipped_members"]
    for member in named:
        yield Rejection(None, "left_out", str(member["reason"]), f"{archive.name}: {member['name']}")
    if (more := job.result["skipped"] - len(named)) > 0:
        yield Rejection(None, "left_out", f"{more} more members were left out", archive.name)


def _rejection(name: str, document: Document | None, job: Job) -> Rejection:
    error = job.error or {"code": job.status, "message": f"the job is {job.status}"}
    return Rejection(document, str(error["code"]), str(error["message"]), name)
