"""Files of ``/v1/files``: bytes in the data folder, records in Redis.

``eh:file:<id>`` is a hash: id, owner, filename, purpose, bytes, created_at, expires_at (Unix milliseconds). ``eh:owner:<owner>:files``
lists the files of an owner, and ``eh:files:expiring`` is a sorted set of files by the time at which they expire.

A file is written as a draft, recorded, and then renamed. If the process dies before the record, maintenance removes the draft; if it
dies after it, the next reader of the file renames the draft.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import redis

from shared.disk_space import DiskSpace, is_disk_full
from shared.errors import BodyTooLarge, DiskFull, NotFound, QuotaExceeded
from shared.ids import is_id, new_id
from shared.openai.scripts import OpenAIScripts
from shared.redis_connection import PREFIX, redis_time_ms
from shared.redis_lists import list_page
from shared.settings import Settings

FILE = "file"
Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
BATCH_OUTPUT = "batch_output"
# As OpenAI has it, files of batches expire after 30 days unless the request says otherwise.
BATCH_FILE_SECONDS = 30 * 24 * 3600
MAX_EXPIRED = 100
# A draft that nobody has recorded for this long belongs to a process that died.
DRAFT_SECONDS = 24 * 3600
CHECKED_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file of an owner. Times are Unix milliseconds; ``expires_at`` is None for a file that stays."""

    id: str
    owner: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    expires_at: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The file as OpenAI describes one."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at // 1000,
            "expires_at": None if self.expires_at is None else self.expires_at // 1000,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


class FileDraft:
    """A file that is being written. Leaving the ``with`` block without ``FileStore.add`` removes it."""

    def __init__(self, path: Path, id: str, disk_space: DiskSpace, limit: int) -> None:
        self.id = id
        self.size = 0
        self.path = path
        self._disk_space = disk_space
        self._limit = limit
        self._unchecked = CHECKED_BYTES
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self.is_added = False

    def write(self, data: bytes) -> int:
        """Append bytes. Raises BodyTooLarge above the limit, and DiskFull if the disk is full or its reserve would be used."""
        self.size += len(data)
        if self.size > self._limit:
            raise BodyTooLarge(f"The file exceeds the limit of {self._limit} bytes.")
        self._unchecked += len(data)
        if self._unchecked >= CHECKED_BYTES:
            self._disk_space.require(len(data))
            self._unchecked = 0
        try:
            return self._stream.write(data)
        except OSError as error:
            raise _disk_error(error) from error

    def seek(self, offset: int) -> None:
        """Do nothing: a form parser rewinds the file that it has written."""

    def close(self) -> None:
        self._stream.close()

    def sync(self) -> None:
        """Flush everything to the disk. Raises DiskFull."""
        try:
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise _disk_error(error) from error

    def discard(self) -> None:
        """Close the file, and remove it unless it was added."""
        with suppress(OSError):
            self._stream.close()
        if not self.is_added:
            self.path.unlink(missing_ok=True)


class FileStore:
    """The files of all owners. Safe to use from many threads and processes."""

    def __init__(self, client: redis.Redis, settings: Settings, disk_space: DiskSpace) -> None:
        self._redis: Any = client
        self._settings = settings
        self._root = settings.files_dir
        self._disk_space = disk_space
        self._scripts = OpenAIScripts(client)

    def new_draft(self) -> FileDraft:
        """A draft of a new file. The caller must ``discard`` it."""
        id = new_file_id()
        return FileDraft(self._draft_path(id), id, self._disk_space, self._settings.max_upload_bytes)

    def add(self, draft: FileDraft, owner: str, *, filename: str, purpose: str, expires_seconds: int | None) -> StoredFile:
        """Make a draft a file of the owner. Raises QuotaExceeded and DiskFull; the draft is then no file."""
        draft.sync()
        record = _record(owner, filename, purpose, draft.size, expires_seconds)
        outcome, *limit = self._scripts.add_file(id=draft.id, byte_limit=self._settings.max_stored_bytes, record=record)
        if outcome == "full":
            raise QuotaExceeded("stored_bytes", int(limit[0]))
        draft.is_added = True
        draft.close()
        self._publish(draft.id)
        return self.get(draft.id, owner)

    def adopt(self, path: Path, id: str, owner: str, *, filename: str, purpose: str, expires_seconds: int | None) -> None:
        """Make what is stored at ``path`` a file with this id, over the owner's limit if need be. Repeating it changes nothing."""
        if path.exists():
            self._root.mkdir(parents=True, exist_ok=True)
            path.rename(self._draft_path(id))
        draft = self._draft_path(id)
        if draft.exists():
            record = _record(owner, filename, purpose, draft.stat().st_size, expires_seconds)
            self._scripts.add_file(id=id, byte_limit=None, record=record)
            self._publish(id)

    def get(self, id: str, owner: str) -> StoredFile:
        """The owner's file. Raises NotFound, also for another owner's file."""
        record = self._redis.hgetall(_key(id)) if is_file_id(id) else {}
        if not record or record["owner"] != owner or self._is_expired(record):
            raise NotFound(f"No such File object: {id[:80]}", code="file_not_found", param="id")
        return _stored_file(record)

    def path(self, file: StoredFile) -> Path:
        """Where the bytes of a file are. Raises NotFound if they are gone, such as after the restore of an older data folder."""
        self._publish(file.id)
        path = self._root / file.id
        if not path.exists():
            raise NotFound(
                f"The bytes of file {file.id} are gone. Delete it, and upload it again.", code="file_not_found", param="id"
            )
        return path

    def list_files(
        self, owner: str, *, limit: int, after: str | None, ascending: bool, purpose: str | None
    ) -> tuple[list[StoredFile], bool]:
        """A page of the owner's files, newest first or ``ascending``, and whether more follow."""

        def read(ids: list[str]) -> list[StoredFile]:
            with self._redis.pipeline(transaction=False) as pipeline:
                for id in ids:
                    pipeline.hgetall(_key(id))
                return [_stored_file(record) for record in pipeline.execute() if record and not self._is_expired(record)]

        page, cursor = list_page(
            self._redis,
            _index(owner),
            read,
            limit=limit,
            after=after,
            matches=lambda file: purpose in (None, file.purpose),
            ascending=ascending,
        )
        return page, cursor is not None

    def remove(self, id: str, owner: str) -> None:
        """Delete the owner's file. Raises NotFound."""
        self._remove(self.get(id, owner).id)

    def remove_expired(self) -> int:
        """Delete files whose time is over, a limited number; return how many."""
        expired = self._redis.zrangebyscore(
            f"{PREFIX}files:expiring", "-inf", redis_time_ms(self._redis), start=0, num=MAX_EXPIRED
        )
        for id in expired:
            self._remove(id)
        return len(expired)

    def remove_stale_drafts(self) -> None:
        """Delete what processes that died have begun to write."""
        for path in self._drafts():
            with suppress(FileNotFoundError):
                is_old = path.stat().st_mtime < time.time() - DRAFT_SECONDS
                if is_old and not self._redis.exists(_key(path.name.removeprefix("."))):
                    path.unlink()

    def _remove(self, id: str) -> None:
        # As a draft without a record it is removed later, should this process die in between.
        with suppress(FileNotFoundError):
            (self._root / id).rename(self._draft_path(id))
        self._scripts.remove_file(id=id)
        for path in (self._root / id, self._draft_path(id)):
            path.unlink(missing_ok=True)

    def _drafts(self) -> Iterator[Path]:
        return self._root.glob(".file-*")

    def _publish(self, id: str) -> None:
        """Rename the draft of a recorded file, unless that has happened."""
        with suppress(FileNotFoundError):
            self._draft_path(id).rename(self._root / id)

    def _draft_path(self, id: str) -> Path:
        if not is_file_id(id):
            raise ValueError(f"not the id of a file: {id[:80]!r}")
        return self._root / f".{id}"

    def _is_expired(self, record: Mapping[str, str]) -> bool:
        return bool(record.get("expires_at")) and int(record["expires_at"]) <= redis_time_ms(self._redis)


def new_file_id() -> str:
    """An id such as ``file-01k9w3c5…``. Ids sort by the time of their creation."""
    return f"file-{new_id(FILE).partition('_')[2]}"


def is_file_id(text: str) -> bool:
    return text.startswith("file-") and is_id(FILE, text.replace("-", "_", 1))


def copy_blocks(stream: BinaryIO, size: int = CHECKED_BYTES) -> Iterator[bytes]:
    """The content of a file in blocks. Closes it."""
    with stream:
        while block := stream.read(size):
            yield block


def _record(owner: str, filename: str, purpose: str, size: int, expires_seconds: int | None) -> dict[str, str | int]:
    expires_ms = "" if expires_seconds is None else 1000 * expires_seconds
    return {"owner": owner, "filename": filename, "purpose": purpose, "bytes": size, "expires_ms": expires_ms}


def _stored_file(record: Mapping[str, str]) -> StoredFile:
    return StoredFile(
        id=record["id"],
        owner=record["owner"],
        filename=record["filename"],
        purpose=record["purpose"],
        bytes=int(record["bytes"]),
        created_at=int(record["created_at"]),
        expires_at=int(record["expires_at"]) if record.get("expires_at") else None,
    )


def _key(id: str) -> str:
    return f"{PREFIX}file:{id}"


def _index(owner: str) -> str:
    return f"{PREFIX}owner:{owner}:files"


def _disk_error(error: OSError) -> OSError | DiskFull:
    if not is_disk_full(error):
        return error
    return DiskFull("The server's disk is full, so the file was not stored. Contact the operator of the server.", retry_after=30)
