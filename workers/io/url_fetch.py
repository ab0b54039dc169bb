"""Handler of fetch jobs: the file at a URL becomes a document with an ingest job, or an archive with an unpack job, in the same batch.

Ids of the document and its job are derived from the fetch job's id, so a repeated attempt recognises what an earlier one registered.
"""

import mimetypes
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal
from urllib.parse import urlsplit

import redis

from shared.disk_space import DiskSpace
from shared.documents.files import DocumentFiles
from shared.documents.media_types import ARCHIVES, detect_media_type
from shared.documents.models import Collection, Document
from shared.documents.store import Documents
from shared.errors import FetchFailed, FetchInterrupted, NameTaken, NotFound, QueueFull, TooMany
from shared.ids import DOCUMENT, JOB, derived_id
from shared.jobs.celery_broker import CeleryBroker
from shared.jobs.queries import JobQueries
from shared.jobs.queue_names import CPU_QUEUE
from shared.jobs.submission import JobSubmitter, Submission
from shared.settings import Settings
from shared.webhooks.ssrf import AddressPolicy, parse_networks
from workers.io.url_download import Download, Downloader, DownloadFailed, DownloadLimits, Validators
from workers.runtime.attempt import AttemptHandle

FetchStatus = Literal["fetched", "archive", "unchanged", "duplicate", "name_taken"]
"""What a URL became: a new document; an archive, whose members become documents; nothing, as the server has no newer version; nothing, as
the collection has these bytes; or nothing, as another document has the name and was not to be replaced."""

PROGRESS_BYTES = 1024 * 1024
"""How often the progress of a download is published."""

# Types that a server may declare for texts, whose names need not have a suffix.
_TEXT_TYPES = ("text/", "application/json", "application/xhtml+xml")


@dataclass(frozen=True, kw_only=True)
class FetchServices:
    """What fetch jobs share. All are safe to use from many threads."""

    settings: Settings
    documents: Documents
    files: DocumentFiles
    submitter: JobSubmitter
    queries: JobQueries
    downloader: Downloader

    @classmethod
    def connect(cls, client: redis.Redis, settings: Settings) -> "FetchServices":
        policy = AddressPolicy(parse_networks(settings.url_allow), setting="ENGINEHOUSE_URL_ALLOW")
        limits = DownloadLimits(settings.url_bytes, settings.url_seconds, "ENGINEHOUSE_URL_BYTES")
        return cls(
            settings=settings,
            documents=Documents(client, settings),
            files=DocumentFiles(settings.documents_dir, DiskSpace(settings.data_dir, settings.min_free_bytes)),
            submitter=JobSubmitter(client, settings, CeleryBroker(client).wake),
            queries=JobQueries(client),
            downloader=Downloader(policy, limits),
        )


def fetch(attempt: AttemptHandle, services: FetchServices) -> dict[str, Any]:
    """Fetch ``spec["url"]`` into ``spec["collection_id"]``.

    The result has ``url``, ``status`` (a FetchStatus), the ``document_id`` that the URL stands for, the ``job`` that ingests or unpacks it,
    and the ``bytes`` that were fetched. If the collection has a document of this URL, the file is only sent if it has changed since.
    Raises FetchFailed and FetchInterrupted, NotFound if the collection was deleted, QuotaExceeded, QueueFull and DiskFull.
    """
    return _Fetch(attempt, services).run()


class _Fetch:
    """One attempt to fetch one URL."""

    def __init__(self, attempt: AttemptHandle, services: FetchServices) -> None:
        self._attempt = attempt
        self._services = services
        self._job = attempt.job
        self._url, self._name = str(attempt.spec["url"]), str(attempt.spec["name"])
        self._document_id = derived_id(DOCUMENT, self._job.id, "document")
        self._archive_id, self._unpack_id = (derived_id(prefix, self._job.id, "archive") for prefix in (DOCUMENT, JOB))
        self._published = 0

    def run(self) -> dict[str, Any]:
        services = self._services
        try:
            document = services.documents.get(self._job.owner, self._document_id, hidden=True)
        except NotFound:
            pass
        else:  # an earlier attempt registered it, and may have died before it submitted the job
            return self._submit_ingest(document)
        if services.queries.get_job(self._unpack_id) is not None:
            return self._result("archive", job=self._unpack_id)
        collection = services.documents.collection_by_id(self._attempt.spec["collection_id"])
        current = services.documents.find_current(collection.id, self._name)
        known = Validators(current.etag, current.last_modified) if current is not None and current.url == self._url else None
        self._attempt.report_progress("fetching", 0, 0, "bytes")
        try:
            with services.downloader.open(self._url, known, on_read=self._on_read) as download:
                if download.unchanged:
                    assert current is not None
                    return self._result("unchanged", document_id=current.id)
                return self._add(collection, download)
        except DownloadFailed as failure:
            error = FetchInterrupted if failure.temporary else FetchFailed
            raise error(f"{self._url} could not be fetched: {failure}.", param="url") from failure

    def _on_read(self, size: int, total: int) -> None:
        self._attempt.raise_if_stopped()
        if size - self._published >= PROGRESS_BYTES:
            self._published = size
            self._attempt.report_progress("fetching", size, total, "bytes")

    def _add(self, collection: Collection, download: Download) -> dict[str, Any]:
        services, document_id = self._services, self._document_id
        # The downloader has the smaller limit, and says which setting it is.
        stored = services.files.store(document_id, download, limit=services.settings.url_bytes)
        try:
            media_type = detect_media_type(
                services.files.path(document_id, "original"), _judged_name(self._url, download.content_type)
            )
            if media_type in ARCHIVES:
                return self._submit_unpack(collection, stored.size)
            document, new = services.documents.register(
                collection,
                document_id=document_id,
                name=self._name,
                size=stored.size,
                sha256=stored.sha256,
                media_type=media_type,
                job_id=derived_id(JOB, self._job.id, "document"),
                metadata=self._attempt.spec.get("metadata"),
                replace=self._attempt.spec.get("replace", True),
                url=self._url,
                etag=download.validators.etag,
                last_modified=download.validators.last_modified,
            )
        except NameTaken as taken:
            services.files.remove(document_id)
            return self._result("name_taken", document_id=str(taken.details["document"]), size=stored.size)
        except BaseException:
            # No file may stay on disk without a record that names it, whatever the error is.
            services.files.remove(document_id)
            raise
        if new:
            return self._submit_ingest(document)
        services.files.remove(document_id)
        if document.url == self._url:
            services.documents.note_validators(document.id, download.validators.etag, download.validators.last_modified)
        return self._result("duplicate", document_id=document.id, size=stored.size)

    def _submit_ingest(self, document: Document) -> dict[str, Any]:
        self._submit(
            Submission(
                kind="ingest",
                queue=CPU_QUEUE,
                spec={"document_id": document.id, "collection_id": document.collection_id, "name": document.name},
                owner=self._job.owner,
                id=document.job_id,
                document=document.id,
                parent=self._job.parent,
                concurrency_key=self._job.concurrency_key,
                concurrency_limit=self._job.concurrency_limit,
            )
        )
        return self._result("fetched", document_id=document.id, job=document.job_id, size=document.size)

    def _submit_unpack(self, collection: Collection, size: int) -> dict[str, Any]:
        services, spec = self._services, self._attempt.spec
        services.files.move(self._document_id, DocumentFiles(services.settings.archives_dir), self._archive_id)
        self._submit(
            Submission(
                kind="unpack",
                queue=CPU_QUEUE,
                spec={
                    "archive_id": self._archive_id,
                    "collection_id": collection.id,
                    "name": self._name,
                    "metadata": dict(spec.get("metadata") or {}),
                    "replace": spec.get("replace", True),
                },
                owner=self._job.owner,
                id=self._unpack_id,
                parent=self._job.parent,
                concurrency_key=self._job.concurrency_key,
                concurrency_limit=self._job.concurrency_limit,
            )
        )
        return self._result("archive", job=self._unpack_id, size=size)

    def _submit(self, submission: Submission) -> None:
        try:
            self._services.submitter.submit_job(submission)
        except TooMany as full:
            raise QueueFull(f"{full.message}; {self._url} was fetched, and its job will follow.") from None

    def _result(
        self, status: FetchStatus, *, document_id: str | None = None, job: str | None = None, size: int = 0
    ) -> dict[str, Any]:
        return {"url": self._url, "status": status, "document_id": document_id, "job": job, "bytes": size}


def _judged_name(url: str, content_type: str) -> str:
    """The name by which the format of a text is judged: that of the URL, with a suffix for the type that its server declares.

    Addresses of pages often have no suffix, or that of a program. The bytes decide first, as for an upload.
    """
    name = PurePosixPath(urlsplit(url).path).name
    if content_type.startswith(_TEXT_TYPES) and content_type != "text/plain":
        return name + (mimetypes.guess_extension(content_type) or "")
    return name
