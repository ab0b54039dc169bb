"""File maintenance: removes files of ``/v1/files`` that have expired, publishes the output of batches that have failed, and removes what
processes that died have left in their folders."""

import logging
import shutil
import time

import redis

from shared.disk_space import DiskSpace
from shared.openai.files import DRAFT_SECONDS, FileStore
from shared.redis_connection import PREFIX
from shared.settings import Settings
from workers.io.request_batches.unpublished import UnpublishedOutput

logger = logging.getLogger(__name__)

EXPIRY_SECONDS = 5.0
LEFTOVER_SECONDS = 3600.0


class FileMaintenance:
    """These duties, each at its own interval."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._redis = client
        self._root = settings.request_batches_dir
        disk_space = DiskSpace(settings.data_dir, settings.min_free_bytes)
        self._files = FileStore(client, settings, disk_space)
        self._unpublished = UnpublishedOutput(client, settings, disk_space)
        self._next_expiry = self._next_leftovers = 0.0

    def run_once(self, now: float) -> None:
        if now >= self._next_expiry:
            self._next_expiry = now + EXPIRY_SECONDS
            if count := self._files.remove_expired():
                logger.info("%d files of /v1/files have expired", count)
            if count := self._unpublished.publish():
                logger.info("the output of %d batches that have failed was published", count)
        if now >= self._next_leftovers:
            self._next_leftovers = now + LEFTOVER_SECONDS
            self._files.remove_stale_drafts()
            self.remove_leftover_batches()

    def remove_leftover_batches(self) -> None:
        """Remove the folders of request batches whose job is gone."""
        if not self._root.is_dir():
            return
        for folder in self._root.iterdir():
            is_old = folder.stat().st_mtime < time.time() - DRAFT_SECONDS
            if is_old and not self._redis.exists(f"{PREFIX}job:{folder.name}"):
                shutil.rmtree(folder, ignore_errors=True)
