"""Document deletion: submits the jobs that delete the data of documents and collections that their owner can no longer restore."""

import logging

from shared.documents.store import Documents
from shared.errors import EnginehouseError
from shared.jobs.queue_names import IO_QUEUE
from shared.jobs.submission import JobSubmitter, Submission

logger = logging.getLogger(__name__)

LOOK_SECONDS = 3.0
BATCH = 200
AGAIN_SECONDS = 60.0
"""After this time, a job is submitted once more for what still exists: its job may have been cancelled or refused."""


class DocumentDeletion:
    """Looks every few seconds for documents and collections whose time is over."""

    def __init__(self, documents: Documents, submitter: JobSubmitter) -> None:
        self._documents = documents
        self._submitter = submitter
        self._next_look = 0.0

    def run_once(self, now: float) -> None:
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        for document_id, collection_id, owner in self._documents.due_deletions(BATCH, again_seconds=AGAIN_SECONDS):
            self._submit(document_id, {"document_id": document_id, "collection_id": collection_id}, owner)
        for collection_id, owner in self._documents.due_collections(BATCH, again_seconds=AGAIN_SECONDS):
            self._submit(collection_id, {"collection_id": collection_id}, owner)

    def _submit(self, object_id: str, spec: dict[str, str], owner: str) -> None:
        try:
            self._submitter.submit_job(Submission(kind="delete", queue=IO_QUEUE, spec=spec, owner=owner))
        except EnginehouseError as error:
            logger.warning("%s is not deleted yet (%s); trying again in a minute", object_id, error.code)
