"""Data state: which records in Redis belong to which data folder, and with which version of Enginehouse both were written.

Both sides keep an id, a version, and a count of the changes to the set of documents. A Redis that was lost, replaced, or restored from
an older copy has no id, another id, or a lower count than the folder. That is noted in the folder and reported until
``enginehouse collections recover`` has made the missing records.
"""

import json
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import redis
from redis.exceptions import LockNotOwnedError

from shared.documents.descriptions import Description, document_folders, write_description
from shared.documents.files import DocumentFiles
from shared.documents.store import Documents
from shared.redis_connection import PREFIX
from shared.settings import Settings

logger = logging.getLogger(__name__)

DATA_VERSION = 2
"""Version of what is stored in Redis and in the data folder. 0 had no description beside each document, 1 no index of jobs."""

JOB_INDEX_VERSION = 2

KEY = f"{PREFIX}data"
MIGRATION_LOCK = f"{PREFIX}jobs:migration"
MIGRATION_SECONDS = 600.0
FILE = "data.json"
NOTE_SECONDS = 2.0
FIRST_UPLOAD_SECONDS = 60.0

Records = Literal["complete", "lost", "older", "other"]

MESSAGES: dict[Records, str] = {
    "lost": "Redis has lost the records of documents",
    "older": "Redis is older than the documents, so that some have no record",
    "other": "Redis belongs to another data folder",
}
ADVICE = "`enginehouse collections recover` makes the missing records; no document is lost"


class DataVersionError(Exception):
    """The data was written by a newer Enginehouse."""


@dataclass(frozen=True, kw_only=True)
class FolderState:
    """What ``data.json`` in the data folder says. ``records`` is anything but ``complete`` until the records are recovered."""

    id: str
    version: int = DATA_VERSION
    changes: int = 0
    records: Records = "complete"


class DataState:
    """The state of the data folder ``settings.data_dir`` and of the Redis behind ``client``.

    ``index_jobs`` enters jobs of older versions into their index and returns their number. Processes that only read need none.
    """

    def __init__(self, client: redis.Redis, settings: Settings, *, index_jobs: Callable[[], int] | None = None) -> None:
        self._index_jobs = index_jobs
        self._redis: Any = client
        self._client = client
        self._settings = settings
        self._files = DocumentFiles(settings.documents_dir)

    def records(self) -> Records:
        """Whether the records in Redis are those of the folder, now and since the last recovery."""
        folder = read_folder(self._settings.data_dir)
        if folder is None:
            return "complete"
        return folder.records if folder.records != "complete" else self._compare(folder, self._redis.hgetall(KEY))

    def check_versions(self) -> None:
        """Raise DataVersionError if Redis or the folder was written by a newer Enginehouse."""
        check_folder_version(self._settings.data_dir)
        _check_version(int(self._redis.hget(KEY, "version") or 0), "The data in Redis")

    def note_changes(self) -> Records:
        """Write the id and the count of changes where they are missing or behind, and note a Redis that is not that of the folder."""
        folder, remote = read_folder(self._settings.data_dir), self._redis.hgetall(KEY)
        self._migrate_jobs(int(remote.get("version") or 0))
        if folder is None:
            folder = self._adopt(remote)
        records = folder.records
        if records == "complete":
            records = self._compare(folder, remote)
        if records != folder.records:
            logger.error("%s (%s): %s", MESSAGES[records], self._settings.data_dir, ADVICE)
            write_folder(self._settings.data_dir, replace(folder, records=records))
        elif records == "complete":
            self._write_both(folder, remote)
        return records

    def accept_records(self) -> None:
        """Declare the records in Redis complete, after a recovery."""
        folder, changes = read_folder(self._settings.data_dir), int(self._redis.hget(KEY, "changes") or 0)
        folder = folder or FolderState(id=secrets.token_hex(8))
        changes = max(changes, folder.changes) + 1
        self._redis.hset(KEY, mapping={"id": folder.id, "version": DATA_VERSION, "changes": changes})
        write_folder(self._settings.data_dir, replace(folder, version=DATA_VERSION, changes=changes, records="complete"))

    def _migrate_jobs(self, version: int) -> None:
        """Index the jobs of a version before 2, while jobs run. One process does it; if it dies, another starts over."""
        if self._index_jobs is None or version >= JOB_INDEX_VERSION:
            return
        lock = self._client.lock(MIGRATION_LOCK, timeout=MIGRATION_SECONDS, blocking=False)
        if not lock.acquire():
            return
        try:
            # Another process may have finished since the version was read.
            if int(self._redis.hget(KEY, "version") or 0) >= JOB_INDEX_VERSION:
                return
            indexed = self._index_jobs()
            self._redis.hset(KEY, "version", DATA_VERSION)
        finally:
            # After a long migration, another process may hold the lock. This does no harm: jobs are entered once.
            with suppress(LockNotOwnedError):
                lock.release()
        if indexed:
            logger.warning("the jobs in Redis were migrated to version %d: %d jobs are in the index now", DATA_VERSION, indexed)

    def _compare(self, folder: FolderState, remote: dict[str, str]) -> Records:
        if not remote.get("id"):
            unused = folder.changes == 0 and not self._has_old_folder()
            return "complete" if unused else "lost"
        if remote["id"] != folder.id:
            return "other"
        return "older" if int(remote.get("changes", 0)) < folder.changes else "complete"

    def _adopt(self, remote: dict[str, str]) -> FolderState:
        """The state of a folder that has none: a new one, or one of version 0, whose documents get descriptions."""
        has_records = any(True for _ in self._redis.scan_iter(f"{PREFIX}collections:*", count=1000))
        folder = FolderState(id=remote.get("id") or secrets.token_hex(8))
        if not has_records and self._has_old_folder():
            folder = replace(folder, records="lost", changes=1)
            logger.error("%s (%s): %s", MESSAGES["lost"], self._settings.data_dir, ADVICE)
        elif has_records and (described := self._describe_documents()):
            logger.warning(
                "the data folder %s was migrated from version 0 to version %d: %d documents have a description now",
                self._settings.data_dir,
                DATA_VERSION,
                described,
            )
        write_folder(self._settings.data_dir, folder)
        return folder

    def _has_old_folder(self) -> bool:
        """Whether a document has a folder that is not that of an upload right after the first start."""
        root = self._settings.documents_dir
        return any(time.time() - (root / name).stat().st_mtime > FIRST_UPLOAD_SECONDS for name in document_folders(root))

    def _describe_documents(self) -> int:
        documents, described = Documents(self._client, self._settings), 0
        for collection in documents.every_collection():
            for document_id in documents.document_ids(collection.id):
                document = documents.find(document_id)
                folder_exists = self._files.path(document_id, "original").parent.exists()
                if document is None or not folder_exists or self._files.path(document_id, "document.json").exists():
                    continue
                description = Description.of_upload(
                    collection,
                    name=document.name,
                    size=document.size,
                    sha256=document.sha256,
                    media_type=document.media_type,
                    created_at=document.created_at,
                    metadata=document.metadata,
                    version=document.version,
                    file_id=document.file_id,
                )
                write_description(self._files, document_id, description)
                described += 1
        return described

    def _write_both(self, folder: FolderState, remote: dict[str, str]) -> None:
        if not remote.get("id"):
            self._redis.hset(KEY, mapping={"id": folder.id, "version": DATA_VERSION})
        changes = int(remote.get("changes", 0))
        if changes > folder.changes or folder.version != DATA_VERSION:
            write_folder(self._settings.data_dir, replace(folder, changes=changes, version=DATA_VERSION))


class DataStateService:
    """Maintenance: notes changes in the data folder every two seconds. Only workers with a data folder that all share run it."""

    def __init__(self, state: DataState) -> None:
        self._state = state
        self._noted_at: float | None = None

    def run_once(self, now: float) -> None:
        if self._noted_at is None or now - self._noted_at >= NOTE_SECONDS:
            self._noted_at = now
            self._state.note_changes()


def check_folder_version(folder: Path) -> None:
    """Raise DataVersionError if the data folder was written by a newer Enginehouse."""
    state = read_folder(folder)
    _check_version(state.version if state else 0, f"The data folder {folder}")


def read_folder(folder: Path) -> FolderState | None:
    """What ``data.json`` says; None if it does not exist or was damaged."""
    try:
        fields = json.loads((folder / FILE).read_text())
        return FolderState(
            id=str(fields["id"]),
            version=int(fields["version"]),
            changes=int(fields.get("changes", 0)),
            records=cast(Records, fields.get("records", "complete")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_folder(folder: Path, state: FolderState) -> None:
    draft = folder / f".{FILE}.{secrets.token_hex(4)}"
    try:
        draft.write_text(json.dumps(asdict(state)) + "\n")
        draft.replace(folder / FILE)
    finally:
        draft.unlink(missing_ok=True)


def _check_version(version: int, what: str) -> None:
    if version > DATA_VERSION:
        raise DataVersionError(
            f"{what} has version {version} and was written by a newer Enginehouse; this one supports versions up to {DATA_VERSION}. "
            "Install the newer release again, or restore a backup that was made before the update."
        )
