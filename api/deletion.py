"""Deletion jobs of collections, documents and chunks, and the responses of the calls that submit them."""

import re
import time
from collections.abc import Sequence
from typing import Any

from flask import jsonify

from api.responses import RouteResponse, accepted_response
from api.services import owner, services
from api.submission import short_job_error, submit_job
from shared.documents.models import Document
from shared.errors import NotFound, TooMany, Unavailable
from shared.ids import DOCUMENT, is_id
from shared.jobs.models import Job, Status
from shared.jobs.queue_names import IO_QUEUE
from shared.jobs.submission import Submission

_CHUNK_ID = re.compile(r"(doc_[0-9a-z]{26}):([0-9]{1,9})")


def submit_deletion(spec: dict[str, Any], after: str = "") -> Job:
    """Submit a deletion job, which runs once the job ``after`` has ended."""
    return submit_job(Submission(kind="delete", queue=IO_QUEUE, spec=spec, owner=owner(), after=after)).job


def deletion_response(job: Job, object_id: str, object_type: str, timeout: float) -> RouteResponse:
    """Wait for the deletion job of one object: 200 if it completed in time, else 202 with the job. Raises if it failed."""
    return wait_for_deletions([job], timeout) or jsonify({"id": object_id, "object": object_type, "deleted": True})


def submit_deletions(ids: Sequence[str]) -> dict[str, Job]:
    """Submit deletions of chunks and documents by id. Ids that do not exist are skipped."""
    jobs: dict[str, Job] = {}
    last_job: dict[str, str] = {}
    for object_id in dict.fromkeys(ids):
        spec = _deletion_spec(object_id)
        if spec is not None:
            # Jobs of one document run one after another, because each rewrites the document's files.
            job = submit_deletion(spec, last_job.get(spec["document_id"], ""))
            last_job[spec["document_id"]] = job.id
            jobs[object_id] = job
    return jobs


def wait_for_deletions(jobs: Sequence[Job], timeout: float) -> RouteResponse | None:
    """Wait for deletion jobs: None when all completed, else the 202 of the first that still runs. Raises if one failed."""
    deadline = time.monotonic() + timeout
    for submitted in jobs:
        job = _wait_for(submitted, max(0.0, deadline - time.monotonic()))
        if not job.status.final:
            return accepted_response(job)
        if job.status is not Status.COMPLETED:
            raise short_job_error(job)
    return None


def find_chunk(chunk_id: str) -> tuple[Document, int] | None:
    """The ready document and the position that a chunk id names."""
    match = _CHUNK_ID.fullmatch(chunk_id)
    document = _find_document(match[1]) if match else None
    return (document, int(match[2])) if match and document is not None and document.status == "ready" else None


def index_name(document: Document) -> str:
    """The index that holds the chunks of a document."""
    return services().documents.collection_by_id(document.collection_id).index


def chunk_deletion_spec(document: Document, position: int) -> dict[str, Any] | None:
    """The spec of a chunk's deletion, or None if there is no such chunk."""
    if not services().text_index.load_chunks(index_name(document), [(document.id, position)]):
        return None
    return {"document_id": document.id, "collection_id": document.collection_id, "position": position}


def _wait_for(job: Job, timeout: float) -> Job:
    """The job once it has ended, or its state now if too many clients are waiting: the deletion is accepted either way."""
    try:
        return services().job_waiter.wait_until_final(job.id, timeout) or job
    except (Unavailable, TooMany):
        return job


def _deletion_spec(object_id: str) -> dict[str, Any] | None:
    chunk = find_chunk(object_id)
    if chunk is not None:
        return chunk_deletion_spec(*chunk)
    document = _find_document(object_id) if is_id(DOCUMENT, object_id) else None
    return None if document is None else {"document_id": document.id, "collection_id": document.collection_id}


def _find_document(document_id: str) -> Document | None:
    try:
        return services().documents.get(owner(), document_id)
    except NotFound:
        return None
