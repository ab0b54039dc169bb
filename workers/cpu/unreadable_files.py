"""Unread originals: files that could not be read are deleted after a time, while their documents keep the reason.

Until then, a client can retry the job, for example with a password.
"""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from shared.documents.models import UNREADABLE
from shared.documents.store import Documents
from shared.ids import DOCUMENT, is_id

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 600.0
BATCH = 500


class UnreadableFiles:
    """Deletes originals in ``folder`` that are older than ``seconds`` and whose documents could not be read."""

    def __init__(self, folder: Path, documents: Documents, seconds: float, *, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._documents = documents
        self._seconds = seconds
        self._clock = clock
        self._swept_at: float | None = None

    def run_once(self, now: float) -> None:
        """Look at all folders, every ten minutes."""
        if self._swept_at is not None and now - self._swept_at < SWEEP_SECONDS:
            return
        self._swept_at = now
        candidates = list(self._unread_originals())
        for start in range(0, len(candidates), BATCH):
            batch = {path.parent.name: path for path in candidates[start : start + BATCH]}
            for document_id, status in self._documents.statuses(batch).items():
                if status in UNREADABLE:
                    batch[document_id].unlink(missing_ok=True)
                    logger.info("document %s: its file was deleted, as it could not be read", document_id)

    def _unread_originals(self) -> Iterator[Path]:
        """Old originals without chunks. Only these are looked up in Redis."""
        for folder in self._folder.iterdir() if self._folder.exists() else ():
            original, chunks = folder / "original", folder / "chunks.jsonl"
            try:
                old = is_id(DOCUMENT, folder.name) and original.stat().st_mtime < self._clock() - self._seconds
            except OSError:  # it is being written or deleted
                continue
            if old and not (chunks.exists() and chunks.stat().st_size):
                yield original
