"""Index monitor: finds collections that have to be reindexed, before somebody searches them and finds too little.

The reasons are noted in Redis for ``/health/ready`` and in the log. ``enginehouse collections check`` looks at every document; this looks
only at what each search needs.
"""

import logging

import redis

from shared.documents.index_health import list_problems
from shared.documents.models import Collection
from shared.documents.store import Documents
from shared.errors import IndexUnavailable, ReindexNeeded
from workers.index.search_index import SearchIndex

logger = logging.getLogger(__name__)

CHECK_SECONDS = 300.0
RETRY_SECONDS = 5.0


class IndexMonitor:
    """Checks the index of every collection at start and every five minutes."""

    def __init__(self, client: redis.Redis, documents: Documents, search_index: SearchIndex) -> None:
        self._redis = client
        self._documents = documents
        self._search_index = search_index
        self._next_check = 0.0

    def run_once(self, now: float) -> None:
        if now < self._next_check:
            return
        self._next_check = now + RETRY_SECONDS
        try:
            self.check_collections()
        except IndexUnavailable as error:
            logger.debug("indexes were not checked: %s", error.message)
            return
        self._next_check = now + CHECK_SECONDS

    def check_collections(self) -> None:
        """Note which collections have to be reindexed. Raises IndexUnavailable if the Chroma server cannot be used."""
        noted, collections = list_problems(self._redis), list(self._documents.every_collection())
        for collection in collections:
            reason = self._reason(collection)
            if reason:
                self._documents.note_index_problem(collection.id, reason)
            elif collection.id in noted:
                self._documents.clear_index_problem(collection.id)
        for collection_id in noted.keys() - {collection.id for collection in collections}:
            self._documents.clear_index_problem(collection_id)

    def _reason(self, collection: Collection) -> str:
        try:
            self._search_index.require_index(collection)
            if self._search_index.has_old_words(collection.index):
                return "Its keyword index was made by an older version, so that some words are not found."
        except ReindexNeeded as error:
            return error.message
        return ""
