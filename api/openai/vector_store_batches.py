"""File batches of vector stores: batches of uploads whose files are those of ``/v1/files``."""

from collections import Counter
from typing import Any

from api.openai.vector_stores import contents
from api.services import owner, services
from shared.documents.models import Collection, Document
from shared.errors import NotFound
from shared.jobs.models import Job
from shared.openai.vector_stores import FILE_STATUSES, file_batch_id, file_status, job_of_file_batch, store_id


def find_file_batch(collection: Collection, batch: str) -> Job:
    """The job of a file batch of this vector store. Raises NotFound."""
    job_id = job_of_file_batch(batch)
    job = services().queries.get_job(job_id) if job_id else None
    if job is None or job.owner != owner() or (job.vector_store or {}).get("collection_id") != collection.id:
        raise NotFound(
            f"batch_id: No file batch found with id '{batch[:80]}' in vector store '{store_id(collection.id)}'. It is kept as "
            "long as its job.",
            code="file_batch_not_found",
            param="batch_id",
        )
    return job


def documents_of_batch(job: Job) -> list[Document]:
    """The documents of a file batch that have not been deleted, in the order of its files."""
    target = job.vector_store or {}
    return contents().documents_of_files(target["collection_id"], target["files"])


def describe_file_batch(job: Job) -> dict[str, Any]:
    """A file batch as OpenAI describes one. Files that were removed from the vector store count as cancelled."""
    target = job.vector_store or {}
    documents = documents_of_batch(job)
    counts = Counter(file_status(document.status, document.reason) for document in documents)
    counts["cancelled"] += len(target["files"]) - len(documents)
    status = "cancelled" if job.cancel_requested_at or job.status == "cancelled" else "completed"
    return {
        "id": file_batch_id(job.id),
        "object": "vector_store.files_batch",
        "created_at": job.created_at // 1000,
        "vector_store_id": store_id(target["collection_id"]),
        "status": "in_progress" if counts["in_progress"] else status,
        "file_counts": {**{name: counts[name] for name in FILE_STATUSES}, "total": len(target["files"])},
        "job_id": job.id,
    }
