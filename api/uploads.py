"""Upload service: stores the files of a request and submits the jobs that ingest or unpack them, or that fetch its URLs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from werkzeug.datastructures import FileStorage

from api.request_parsing import IdempotencyKey, read_idempotency_key
from api.services import Services
from api.submission import submit_job, written_job
from shared.documents.files import DocumentFiles, StoredFile
from shared.documents.filters import Scalar
from shared.documents.media_types import ARCHIVES, detect_media_type
from shared.documents.models import Collection, Document, check_document_name
from shared.errors import BatchSealed, EnginehouseError, InvalidValue, NameTaken, NotFound
from shared.ids import DOCUMENT, JOB, derived_id, new_id
from shared.jobs.models import Job
from shared.jobs.queue_names import CPU_QUEUE, FETCH_QUEUE
from shared.jobs.start_time import StartTime
from shared.jobs.submission import Submission, SubmissionResult
from shared.webhooks.ssrf import AddressRefused, parse


@dataclass(frozen=True, kw_only=True)
class ReceivedFile:
    """A file of the request, stored under an id of its own and not yet registered as a document."""

    document_id: str
    name: str
    stored: StoredFile
    media_type: str


@dataclass(frozen=True, kw_only=True)
class UploadOptions:
    """Options of an upload that apply to all of its files. Their jobs start after ``wait_ms``, as
    the client's ``not_before`` says."""

    webhook: dict[str, Any] | None
    metadata: Mapping[str, Scalar]
    password: str = field(repr=False, default="")
    replace: bool = True
    not_before: StartTime | None = None
    wait_ms: int = 0
    concurrency_key: str = ""
    concurrency_limit: int = 1

    @property
    def schedule_content(self) -> list[Any]:
        """What the fingerprint of a request has of these options. Nothing if they are not given, as another version may not know them."""
        content: list[Any] = [self.not_before] * (self.not_before is not None)
        return content + [self.concurrency_key, self.concurrency_limit] * bool(self.concurrency_key)


@dataclass(kw_only=True)
class UploadResult:
    """The batch of an upload, its documents with their ingest jobs, its archives with their unpack jobs, its URLs with their fetch jobs, and
    the files that were not added because other documents have their names."""

    batch: SubmissionResult
    documents: list[tuple[Document, Job | None]] = field(default_factory=list)
    archives: list[dict[str, str]] = field(default_factory=list)
    fetches: list[dict[str, str]] = field(default_factory=list)
    name_conflicts: list[NameTaken] = field(default_factory=list)


class UploadService:
    """Uploads of one owner."""

    def __init__(self, services: Services, owner: str) -> None:
        self._services = services
        self._owner = owner
        self._settings = services.settings
        self._submitter = services.submitter
        self._queries = services.queries
        self._documents = services.documents
        self._files = services.files
        self._archives = DocumentFiles(services.settings.archives_dir)

    def keep_batch_open(self, batch_id: str) -> None:
        """Delay the automatic sealing of a batch while the files of this request arrive.

        Errors are reported once all files have arrived: a client that is still sending would see its connection closed, and not
        the reason.
        """
        with suppress(NotFound, BatchSealed):
            self._submitter.join_batch(batch_id, self._owner)

    def receive_files(self, files: Sequence[FileStorage]) -> list[ReceivedFile]:
        """Store the files of the request. If one is rejected, none stays. Raises InvalidValue if a name is too long."""
        for file in files:
            check_document_name(file.filename or "")
        ids: list[str] = []
        try:
            return [self._receive_file(file, ids) for file in files]
        except BaseException:
            self._discard(ids)
            raise

    def upload_file(self, received: ReceivedFile, options: UploadOptions) -> tuple[Document | None, Job | None]:
        """Put one file into the default collection. For an archive there is no document, and the job is its batch."""
        is_archive = received.media_type in ARCHIVES
        try:
            collection = self._ensure_collection(self._settings.default_collection)
            spec = {"collection": collection.name}
            batch = self._submitter.open_batch(self._owner, spec=spec, webhook=options.webhook) if is_archive else None
        except BaseException:
            self._discard([received.document_id])
            raise
        if batch is None:
            return self._register_document(collection, received, options, webhook=options.webhook)
        with self._batch_ended_on_refusal(batch.id):
            self._submit_unpack(collection, received, batch.id, options)
        self._submitter.seal_batch(batch.id)
        return None, written_job(batch)

    def upload_files(
        self, collection_name: str, files: list[ReceivedFile], options: UploadOptions, batch_id: str | None
    ) -> UploadResult:
        """Put files into a collection, under the batch ``batch_id`` or a new one. ``files`` is empty afterwards."""
        try:
            digests = [(received.name, received.stored.sha256) for received in files]
            # Not the whole webhook: the registered endpoint with its URL may have changed between two attempts of a client.
            webhook = options.webhook and {**options.webhook, "endpoint": ""}
            content = [collection_name, batch_id, digests, webhook, options.metadata, options.replace]
            idempotency = read_idempotency_key(content + options.schedule_content)
            result = UploadResult(batch=self._join_or_open_batch(batch_id, collection_name, idempotency, options))
            # A repeated request finds what the first one registered by id or content, and adds what it missed because the
            # server died, or has not reached yet.
            with self._batch_ended_on_refusal(None if batch_id is not None or idempotency.key else result.batch.id):
                collection = self._ensure_collection(collection_name)
                options = replace(options, wait_ms=max(options.wait_ms, self._submitter.delay_of_batch(result.batch.id)))
                for number in range(len(files)):
                    self._upload_to_batch(result, collection, files.pop(0), options, idempotency, number)
        finally:
            self._discard([received.document_id for received in files])
        if batch_id is None:
            self._submitter.seal_batch(result.batch.id)
        return result

    def fetch_urls(self, collection_name: str, urls: Sequence[str], options: UploadOptions, batch_id: str | None) -> UploadResult:
        """Submit jobs that fetch these URLs into a collection, all or none, under the batch ``batch_id`` or a new one.

        Raises InvalidValue for a URL that the server must not call, as far as that can be seen without resolving its name.
        """
        names = {url: self._file_name(url, number) for number, url in enumerate(urls)}
        webhook = options.webhook and {**options.webhook, "endpoint": ""}
        content = [collection_name, batch_id, list(names), webhook, options.metadata, options.replace]
        idempotency = read_idempotency_key(content + options.schedule_content)
        result = UploadResult(batch=self._join_or_open_batch(batch_id, collection_name, idempotency, options))
        batch = result.batch.id
        with self._batch_ended_on_refusal(None if batch_id is not None or idempotency.key else batch):
            collection = self._ensure_collection(collection_name)
            options = replace(options, wait_ms=max(options.wait_ms, self._submitter.delay_of_batch(batch)))
            submissions = [
                Submission(
                    kind="fetch",
                    queue=FETCH_QUEUE,
                    spec={
                        "url": url,
                        "name": name,
                        "collection_id": collection.id,
                        "metadata": dict(options.metadata),
                        "replace": options.replace,
                    },
                    owner=self._owner,
                    # The id makes a repeated request idempotent.
                    id=derived_id(JOB, batch, idempotency.key, str(number)) if idempotency.key else new_id(JOB),
                    parent=batch,
                    **_schedule(options),
                )
                for number, (url, name) in enumerate(names.items())
            ]
            self._submitter.submit_jobs(submissions)
        result.fetches = [{"url": str(submission.spec["url"]), "job": submission.id} for submission in submissions]
        if batch_id is None:
            self._submitter.seal_batch(batch)
        return result

    def _file_name(self, url: str, number: int) -> str:
        """The name of the document that a URL becomes."""
        try:
            target = parse(url)
            self._services.url_policy.check_literal(target)
        except AddressRefused as error:
            raise InvalidValue(f"urls.{number}: {error}", param=f"urls.{number}") from None
        return target.file_name

    @contextmanager
    def _batch_ended_on_refusal(self, batch_id: str | None) -> Iterator[None]:
        """Seal a new batch if the request is refused midway. Otherwise it would stay open, and count against the owner's limit, for an
        hour. None stands for a batch that other requests, or a repetition of this one, may continue."""
        try:
            yield
        except EnginehouseError:
            if batch_id is not None:
                self._submitter.seal_batch(batch_id)
            raise

    def _receive_file(self, file: FileStorage, ids: list[str]) -> ReceivedFile:
        document_id, name = new_id(DOCUMENT), file.filename or "unnamed"
        ids.append(document_id)
        stored = self._files.store(document_id, file.stream, limit=self._settings.max_upload_bytes)
        media_type = detect_media_type(self._files.path(document_id, "original"), name)
        return ReceivedFile(document_id=document_id, name=name, stored=stored, media_type=media_type)

    def _upload_to_batch(
        self,
        result: UploadResult,
        collection: Collection,
        received: ReceivedFile,
        options: UploadOptions,
        idempotency: IdempotencyKey,
        number: int,
    ) -> None:
        batch = result.batch.id
        if received.media_type in ARCHIVES:
            job_id = self._submit_unpack(collection, received, batch, options)
            result.archives.append({"name": received.name, "job": job_id})
            return
        # The id makes a repeated request idempotent: content alone does not find a document that could not be read.
        document_id = derived_id(DOCUMENT, batch, idempotency.key, str(number)) if idempotency.key else None
        try:
            result.documents.append(self._register_document(collection, received, options, batch, document_id=document_id))
        except NameTaken as conflict:
            result.name_conflicts.append(conflict)

    def _join_or_open_batch(
        self, batch_id: str | None, collection: str, idempotency: IdempotencyKey, options: UploadOptions
    ) -> SubmissionResult:
        key, fingerprint = idempotency
        if batch_id is not None:
            self._submitter.join_batch(batch_id, self._owner, idempotency_key=key, fingerprint=fingerprint)
            return SubmissionResult(batch_id)
        return self._submitter.open_batch(
            self._owner, spec={"collection": collection}, webhook=options.webhook, idempotency_key=key, fingerprint=fingerprint
        )

    def _ensure_collection(self, name: str) -> Collection:
        return self._documents.ensure_collection(self._owner, name, self._services.catalogue.embedding().name)

    def _register_document(
        self,
        collection: Collection,
        received: ReceivedFile,
        options: UploadOptions,
        batch: str = "",
        *,
        document_id: str | None = None,
        webhook: dict[str, Any] | None = None,
    ) -> tuple[Document, Job | None]:
        """Register a file and submit its ingest. If the collection has the same bytes, or a document with this id, that
        document and its job are returned."""
        try:
            document, _ = self._documents.register(
                collection,
                document_id=document_id or received.document_id,
                name=received.name,
                size=received.stored.size,
                sha256=received.stored.sha256,
                media_type=received.media_type,
                job_id=new_id(JOB),
                metadata=options.metadata,
                replace=options.replace,
                folder=received.document_id,
            )
            job = self._queries.get_job(document.job_id)
            # Either the document is new, or the server died between registering it and submitting its job.
            needs_job = job is None and document.status == "uploaded"
            if needs_job:
                self._files.move_if_absent(received.document_id, document.id)
                self._keep_password(self._files, document.id, options)
        except BaseException:
            # No file may stay on disk without a record that names it, whatever the error is.
            self._files.remove(received.document_id)
            raise
        if needs_job:
            return document, self.submit_ingest(document, batch, webhook, options)
        self._files.remove(received.document_id)
        return document, job

    def submit_ingest(
        self,
        document: Document,
        batch: str,
        webhook: dict[str, Any] | None = None,
        options: UploadOptions | None = None,
    ) -> Job:
        """Submit the job that ingests a registered document."""
        submission = Submission(
            kind="ingest",
            queue=CPU_QUEUE,
            spec={"document_id": document.id, "collection_id": document.collection_id, "name": document.name},
            owner=self._owner,
            id=document.job_id,
            document=document.id,
            parent=batch,
            webhook=webhook,
            **_schedule(options),
        )
        return submit_job(submission).job

    def _submit_unpack(self, collection: Collection, received: ReceivedFile, batch: str, options: UploadOptions) -> str:
        """Move an archive to where it is unpacked and submit that job. The same archive in the same batch has one job."""
        job_id, archive_id = (derived_id(prefix, batch, received.stored.sha256) for prefix in (JOB, DOCUMENT))
        try:
            if self._queries.get_job(job_id) is not None:
                return job_id
            self._files.move(received.document_id, self._archives, archive_id)
        finally:
            # Nothing is left here once it was moved.
            self._discard([received.document_id])
        self._keep_password(self._archives, archive_id, options)
        spec = {
            "archive_id": archive_id,
            "collection_id": collection.id,
            "name": received.name,
            "metadata": dict(options.metadata),
            "replace": options.replace,
        }
        submission = Submission(
            kind="unpack", queue=CPU_QUEUE, spec=spec, owner=self._owner, id=job_id, parent=batch, **_schedule(options)
        )
        return submit_job(submission).job.id

    def _keep_password(self, files: DocumentFiles, document_id: str, options: UploadOptions) -> None:
        if options.password:
            seconds = self._settings.max_queue_seconds + options.wait_ms // 1000
            self._documents.passwords(files, seconds).keep(document_id, options.password)

    def _discard(self, document_ids: Sequence[str]) -> None:
        for document_id in document_ids:
            self._files.remove(document_id)


def _schedule(options: UploadOptions | None) -> dict[str, Any]:
    """The fields of a submission that say when it may start."""
    if options is None:
        return {}
    return {
        "wait_ms": options.wait_ms,
        "concurrency_key": options.concurrency_key,
        "concurrency_limit": options.concurrency_limit,
    }
