"""Document deletion: submits the jobs that delete the data of documents whose owner can no longer restore them."""

import logging

from shared.documents.store import Documents
from shared.errors import EnginehouseError
from shared.jobs.queue_names import IO_QUEUE
from shared.jobs.submission import JobSubmitter, Submission

logger = logging.getLogger(__name__)

LOOK_SECONDS = 3.0
BATCH = 200
AGAIN_SECONDS = 60.0
"""After this time, a job is submitted once more for a document that still exists: its job may have been cancelled or refused."""


class DocumentDeletion:
    """Looks every few seconds for documents whose time is over."""

    def __init__(self, documents: Documents, submitter: JobSubmitter) -> None:
        self._documents = documents
        self._submitter = submitter
        self._next_look = 0.0

    def run_once(self, now: float) -> None:
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        for document_id, collection_id, owner in self._documents.due_deletions(BATCH, again_seconds=AGAIN_SECONDS):
            spec = {"document_id": document_id, "collection_id": collection_id}
            try:
                self._submitter.submit_job(Submission(kind="delete", queue=IO_QUEUE, spec=spec, owner=owner))
            except EnginehouseError as error:
                logger.warning("document %s is not deleted yet (%s); trying again in a minute", document_id, error.code)
