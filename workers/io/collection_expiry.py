"""Collection expiry: deletes vector stores of ``/v1`` whose ``expires_after`` is over."""

import logging

from shared.documents.models import Collection
from shared.documents.store import Documents
from shared.errors import EnginehouseError, NotFound
from shared.jobs.queue_names import IO_QUEUE
from shared.jobs.submission import JobSubmitter, Submission

logger = logging.getLogger(__name__)

EXPIRY_SECONDS = 600.0


class CollectionExpiry:
    """Looks at all collections every ten minutes. Each is hidden at once, and a job deletes its documents, as when a client deletes it."""

    def __init__(self, documents: Documents, submitter: JobSubmitter) -> None:
        self._documents = documents
        self._submitter = submitter
        self._next = 0.0

    def run_once(self, now: float) -> None:
        if now < self._next:
            return
        self._next = now + EXPIRY_SECONDS
        now_ms = self._documents.now_ms()
        for collection in self._documents.every_collection():
            if collection.expires_at is not None and collection.expires_at <= now_ms:
                self._delete(collection, now_ms)

    def _delete(self, listed: Collection, now_ms: int) -> None:
        try:
            collection = self._documents.collection_by_id(listed.id)
            if collection.expires_at is None or collection.expires_at > now_ms:  # used a moment ago
                return
            # The job comes first: if it is rejected, a hidden collection would keep its data forever.
            spec = {"collection_id": collection.id}
            self._submitter.submit_job(Submission(kind="delete", queue=IO_QUEUE, spec=spec, owner=collection.owner))
            self._documents.drop_collection(collection)
        except NotFound:
            return
        except EnginehouseError as error:
            logger.warning("collection %s has expired and cannot be deleted now: %s", listed.id, error.message)
        else:
            logger.info("collection %s has expired and is deleted", listed.id)
