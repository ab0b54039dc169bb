"""Uploads: the bytes go to disk here; everything else about them is a job. An archive's members become documents later."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from flask import Blueprint, Response, g, jsonify, request

from api.request_parsing import form_metadata, form_password, form_webhook, wait_seconds
from api.responses import RETRY_AFTER, Answer, job_json
from api.routes.documents import document_json
from api.routes.webhooks import job_webhook
from api.services import owner, services
from api.submission import Repeatable, idempotency, job_of, submit
from shared.documents.files import DocumentFiles, Stored
from shared.documents.filters import Scalar
from shared.documents.media_types import ARCHIVES, detect_media_type
from shared.documents.models import Collection, Document, check_collection_name
from shared.documents.passwords import Passwords
from shared.errors import BatchSealed, InvalidRequest, InvalidValue, NotFound
from shared.ids import DOCUMENT, JOB, derived_id, new_id
from shared.jobs.celery_broker import CPU_QUEUE
from shared.jobs.models import Job
from shared.jobs.transitions import Submission, Submitted

blueprint = Blueprint("uploads", __name__)

MOST_FILES = 1000


@dataclass(frozen=True)
class Received:
    """A file of the request, on disk under an id of its own but not yet entered."""

    document_id: str
    name: str
    stored: Stored
    kind: str


@dataclass(frozen=True, kw_only=True)
class About:
    """What the request says of all its files."""

    webhook: dict[str, Any] | None
    metadata: Mapping[str, Scalar]
    password: str = field(repr=False)


@blueprint.post("/upload")
def upload() -> Answer:
    """The guide's call: one file into the default collection. Waits for nothing unless ``Prefer: wait=N`` says so."""
    here = services()
    wait = wait_seconds() or 0
    about = _about()
    [received] = _receive(most=1)
    collection = _collection(here.settings.default_collection)
    document: Document | None = None
    if received.kind in ARCHIVES:
        batch = here.lifecycle.open_batch(owner(), spec={"collection": collection.name}, webhook=about.webhook)
        _take_archive(collection, received, batch.id, about)
        here.lifecycle.seal_batch(batch.id)
        job: Job | None = job_of(batch)
    else:
        document, job = _take(collection, received, about, webhook=about.webhook)
    if job is not None and wait:
        job = here.waiting.until_ended(job.id, wait) or job
        document = document and here.documents.get(owner(), document.id)
    ids = [f"{document.id}:{position}" for position in range(document.chunks)] if document and document.status == "ready" else []
    answer = {"message": f"{received.name} was taken", "document_ids": ids, "document": document and document_json(document)}
    return _accepted({**answer, "job": job and job_json(job)}, job)


@blueprint.post("/collections/<collection>/documents")
def add(collection: str) -> Answer:
    """One or many files (multipart, field ``file``): a document and an ingest job for each, and a batch over the jobs, which is one
    that was opened before if ``?batch=`` says so."""
    here = services()
    check_collection_name(collection)
    joined = request.args.get("batch")
    if joined is not None:
        # If the files take long to come, the batch is not sealed meanwhile. A refusal has to wait for them: a client that is still
        # sending would find its connection closed and not hear why.
        with suppress(NotFound, BatchSealed):
            here.lifecycle.join_batch(joined, owner())
    about = _about()
    if joined is not None and about.webhook is not None:
        raise InvalidValue("webhook: the webhook of a batch is given when it is opened, with POST /batches", param="webhook")
    files = _receive(most=MOST_FILES)
    digests = [(received.name, received.stored.sha256) for received in files]
    taken: list[tuple[Document, Job | None]] = []
    archives: list[dict[str, str]] = []
    try:
        repeatable = idempotency([collection, joined, digests, about.webhook, about.metadata])
        batch = _batch(joined, collection, repeatable, about)
        # When this request was sent before and its batch is not whole (the server died, or is still at it), what is there
        # already is found by its id or its content, and what is missing joins.
        place = _collection(collection)
        for number in range(len(files)):
            received = files.pop(0)
            if received.kind in ARCHIVES:
                archives.append({"name": received.name, "job": _take_archive(place, received, batch.id, about)})
                continue
            # A file that was read before this request came a second time would become a second document: none could be found by
            # its content any more if it could not be read.
            again = derived_id(DOCUMENT, batch.id, repeatable.key, str(number)) if repeatable.key else None
            taken.append(_take(place, received, about, batch.id, document_id=again))
    finally:
        for received in files:
            here.files.remove(received.document_id)
    if joined is None:
        here.lifecycle.seal_batch(batch.id)
    g.replayed = batch.replayed
    data = [
        {
            **document_json(document),
            "job": job.id if job else document.job_id,
            "duplicate": job is None or job.parent != batch.id,
        }
        for document, job in taken
    ]
    parent = job_of(batch)
    answer = {"object": "list", "batch": job_json(parent), "data": data, "archives": archives, "has_more": False, "next": None}
    return _accepted(answer, parent)


def _batch(joined: str | None, collection: str, repeatable: Repeatable, about: About) -> Submitted:
    """The batch that the jobs of this request belong to."""
    lifecycle, (key, fingerprint) = services().lifecycle, repeatable
    if joined is not None:
        lifecycle.join_batch(joined, owner(), idempotency_key=key, fingerprint=fingerprint)
        return Submitted(joined)
    spec = {"collection": collection}
    return lifecycle.open_batch(owner(), spec=spec, webhook=about.webhook, idempotency_key=key, fingerprint=fingerprint)


def _about() -> About:
    # Reading one field reads them all, so the limit must hold by now.
    request.max_content_length = services().settings.max_upload_bytes
    return About(webhook=job_webhook(form_webhook()), metadata=form_metadata(), password=form_password())


def _collection(name: str) -> Collection:
    here = services()
    return here.documents.ensure_collection(owner(), name, here.catalogue.embedding().name)


def _receive(*, most: int) -> list[Received]:
    """Store the files of the request. Nothing stays when one of them is refused."""
    here = services()
    request.max_content_length = here.settings.max_upload_bytes
    files = request.files.getlist("file")
    if not files:
        raise InvalidRequest(
            "file: send at least one file as multipart/form-data in the field `file`", code="file_missing", param="file"
        )
    if len(files) > most:
        raise InvalidValue(f"file: at most {most} in one request, not {len(files)}", param="file")
    received: list[Received] = []
    try:
        for file in files:
            document_id, name = new_id(DOCUMENT), (file.filename or "unnamed")[:255]
            stored = here.files.store(document_id, file.stream, limit=here.settings.max_upload_bytes)
            received.append(Received(document_id, name, stored, "application/octet-stream"))
            kind = detect_media_type(here.files.path(document_id, "original"), name)
            received[-1] = Received(document_id, name, stored, kind)
    except BaseException:
        for earlier in received:
            here.files.remove(earlier.document_id)
        raise
    return received


def _take(
    collection: Collection,
    received: Received,
    about: About,
    batch: str = "",
    *,
    document_id: str | None = None,
    webhook: dict[str, Any] | None = None,
) -> tuple[Document, Job | None]:
    """Enter one file and submit its ingest; the job is the earlier one when the same bytes are known, or there is a document of
    this id."""
    here = services()
    try:
        document, _ = here.documents.register(
            collection,
            document_id=document_id or received.document_id,
            name=received.name,
            size=received.stored.size,
            sha256=received.stored.sha256,
            media_type=received.kind,
            job_id=new_id(JOB),
            metadata=about.metadata,
        )
        job = here.lifecycle.get_job(document.job_id)
        # It is new, or the server died between entering the document and submitting its job, and this upload makes up for it.
        fresh = job is None and document.status == "uploaded"
        if fresh:
            here.files.give(received.document_id, document.id)
            if about.password:
                _passwords(here.files).keep(document.id, about.password)
    except BaseException:
        # Whatever stopped it (a bad state, Redis away): no file may stay that no record names.
        here.files.remove(received.document_id)
        raise
    if fresh:
        return document, _submit_ingest(document, batch, webhook)
    here.files.remove(received.document_id)
    return document, job


def _submit_ingest(document: Document, batch: str, webhook: dict[str, Any] | None) -> Job:
    spec = {"document_id": document.id, "collection_id": document.collection_id}
    options: dict[str, Any] = {"id": document.job_id, "document": document.id, "parent": batch, "webhook": webhook}
    return submit(Submission(kind="ingest", queue=CPU_QUEUE, spec=spec, owner=owner(), **options), 0)


def _take_archive(collection: Collection, received: Received, batch: str, about: About) -> str:
    """Put an archive where it is unpacked, and submit that; the id of its job, the same for the same archive in a batch."""
    here = services()
    archives = DocumentFiles(here.settings.archives_dir)
    job_id, archive_id = (derived_id(prefix, batch, received.stored.sha256) for prefix in (JOB, DOCUMENT))
    if here.lifecycle.get_job(job_id) is not None:
        here.files.remove(received.document_id)
        return job_id
    here.files.move(received.document_id, archives, archive_id)
    if about.password:
        _passwords(archives).keep(archive_id, about.password)
    spec = {"archive_id": archive_id, "collection_id": collection.id, "name": received.name, "metadata": dict(about.metadata)}
    return submit(Submission(kind="unpack", queue=CPU_QUEUE, spec=spec, owner=owner(), id=job_id, parent=batch), 0).id


def _passwords(files: DocumentFiles) -> Passwords:
    here = services()
    return here.documents.passwords(files, here.settings.max_queue_seconds)


def _accepted(answer: dict[str, Any], job: Job | None) -> Answer:
    response: Response = jsonify(answer)
    if g.get("replayed"):
        response.headers["Idempotent-Replay"] = "true"
    if job is None or job.status.final:
        return response
    response.headers["Location"] = f"/jobs/{job.id}"
    response.headers["Retry-After"] = RETRY_AFTER
    return response, 202
