"""Trash: folders of documents that a repair found without a record. They are kept for a time and can be moved back.

Each day has a folder, so that an operator sees how old the contents are. What a client deletes never gets here:
``Documents.delete_later`` hides it where it is until it is deleted.
"""

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from shared.documents.files import DocumentFiles
from shared.errors import Conflict, NotFound
from shared.ids import DOCUMENT, is_id

logger = logging.getLogger(__name__)

DAY_SECONDS = 86_400
CLEAN_SECONDS = 3600.0
_DAY_FORMAT = "%Y-%m-%d"


@dataclass(frozen=True)
class TrashedFolder:
    """A folder in the trash. ``trashed_on`` is the date (UTC) on which it was moved there."""

    document_id: str
    trashed_on: str
    path: Path


class Trash:
    """The trash in ``folder`` (``settings.trash_dir``)."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock

    def add(self, files: DocumentFiles, document_id: str) -> Path:
        """Move a document's folder here; return where it is now."""
        target = self._folder / datetime.fromtimestamp(self._clock(), UTC).strftime(_DAY_FORMAT)
        target.mkdir(parents=True, exist_ok=True)
        files.move_out(document_id, target / document_id)
        return target / document_id

    def folders(self) -> Iterator[TrashedFolder]:
        """Everything in the trash, oldest first."""
        for day in sorted(self._folder.iterdir()) if self._folder.exists() else ():
            if _day_start(day.name) is not None:
                for path in sorted(day.iterdir()):
                    if is_id(DOCUMENT, path.name):
                        yield TrashedFolder(path.name, day.name, path)

    def restore(self, files: DocumentFiles, document_id: str) -> None:
        """Move a folder back to the documents. Raises NotFound, and Conflict if the document has a folder again."""
        found = [folder for folder in self.folders() if folder.document_id == document_id]
        if not found:
            raise NotFound(f"Document {document_id[:80]} is not in the trash: `enginehouse trash list` shows what is.")
        if not files.move_in(document_id, found[-1].path):
            raise Conflict(f"Document {document_id} has a folder already, so the one in the trash was left there.")

    def empty(self, *, older_than: float = 0.0) -> int:
        """Delete what has been here for more than ``older_than`` seconds, counted from the end of its day; return how many folders."""
        removed = 0
        for day in list(self._folder.iterdir()) if self._folder.exists() else ():
            start = _day_start(day.name)
            if start is None or (older_than and start + DAY_SECONDS > self._clock() - older_than):
                continue
            removed += sum(1 for path in day.iterdir() if is_id(DOCUMENT, path.name))
            shutil.rmtree(day)
        return removed


def _day_start(name: str) -> float | None:
    try:
        return datetime.strptime(name, _DAY_FORMAT).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


class TrashCleaner:
    """Maintenance: deletes what has been in the trash for longer than ``seconds``, once an hour."""

    def __init__(self, trash: Trash, seconds: float) -> None:
        self._trash = trash
        self._seconds = seconds
        self._next_run = 0.0

    def run_once(self, now: float) -> None:
        if now < self._next_run:
            return
        self._next_run = now + CLEAN_SECONDS
        if removed := self._trash.empty(older_than=self._seconds):
            logger.info("%d folders of documents left the trash, where they were for more than %g s", removed, self._seconds)
