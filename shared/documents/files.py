"""Document files: the uploaded bytes, the text of the pages, and the chunks. Each document has its own folder.

Paths contain only generated ids; file names from clients never reach the file system.
"""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Protocol

from shared.disk_space import DiskSpace, is_disk_full
from shared.errors import BodyTooLarge, DiskFull
from shared.ids import DOCUMENT, is_id

FileName = Literal[
    "original",
    "document.json",
    "pages.jsonl",
    "ocr.jsonl",
    "ocr-boxes.jsonl",
    "chunks.jsonl",
    "embedded.json",
    "indexed.json",
    "unpacked.json",
    "pad",
]

BLOCK = 1024 * 1024


class ByteSource(Protocol):
    """A source of bytes, such as the stream of an upload."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class StoredFile:
    """Size in bytes and SHA-256 (hexadecimal) of a stored file."""

    size: int
    sha256: str


class DocumentFiles:
    """The folders of all documents, under ``root`` (``settings.documents_dir``). What ``store`` writes leaves the reserve of
    ``disk_space``."""

    def __init__(self, root: Path, disk_space: DiskSpace | None = None) -> None:
        self._root = root
        self._disk_space = disk_space

    def path(self, document_id: str, name: FileName) -> Path:
        """Path of a file. Raises ValueError if ``document_id`` is not a document id."""
        return self._folder(document_id) / name

    def store(self, document_id: str, source: ByteSource, *, limit: int) -> StoredFile:
        """Write the uploaded bytes and flush them to disk.

        Raises BodyTooLarge above ``limit`` bytes and DiskFull if the disk is full or the next bytes would use its reserve. After these and any error of ``source``,
        no file remains.
        """
        digest, size = hashlib.sha256(), 0
        try:
            with self.replace(document_id, "original") as target:
                while block := source.read(BLOCK):
                    size += len(block)
                    if size > limit:
                        raise BodyTooLarge(f"The file exceeds the limit of {limit} bytes per document.")
                    if self._disk_space is not None:
                        self._disk_space.require(len(block))
                    digest.update(block)
                    target.write(block)
        except BaseException as error:
            self.remove(document_id)
            if is_disk_full(error):
                raise DiskFull(
                    "The server's disk is full, so the file was not stored. Contact the operator of the server.", retry_after=30
                ) from error
            raise
        return StoredFile(size, digest.hexdigest())

    def link(self, document_id: str, source: Path) -> StoredFile:
        """Make a file of this data folder the original of a document, without a second copy where the file system has links.

        Neither of the two is ever changed, and each may be removed without the other. Raises what ``store`` raises.
        """
        target = self.path(document_id, "original")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                self.remove(document_id)
                raise
            with source.open("rb") as stream:
                return self.store(document_id, stream, limit=source.stat().st_size)
        with target.open("rb") as stream:
            return StoredFile(target.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest())

    @contextmanager
    def replace(self, document_id: str, name: FileName) -> Iterator[IO[bytes]]:
        """Replace a file atomically. Readers see either the old or the new file; after an error the old one remains."""
        path = self.path(document_id, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        # A unique name keeps a stale attempt and its successor from writing to the same file.
        draft = path.with_name(f".{name}.{secrets.token_hex(4)}")
        try:
            with open(draft, "wb", opener=_open_private) as target:
                yield target
                target.flush()
                os.fsync(target.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    def move(self, document_id: str, other: "DocumentFiles", other_id: str) -> None:
        """Move a document's folder to another store, replacing the folder of ``other_id`` there."""
        other.remove(other_id)
        target = other._folder(other_id)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._folder(document_id).rename(target)

    def move_if_absent(self, document_id: str, other_id: str) -> None:
        """Rename this document's folder to that of another document. If that one already has a folder, remove this one instead."""
        try:
            self._folder(document_id).rename(self._folder(other_id))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            self.remove(document_id)

    def move_out(self, document_id: str, target: Path) -> None:
        """Move a document's folder to ``target``, replacing what is there."""
        with suppress(FileNotFoundError):
            shutil.rmtree(target)
        self._folder(document_id).rename(target)

    def move_in(self, document_id: str, source: Path) -> bool:
        """Make ``source`` the folder of a document; return False if it has one already."""
        target = self._folder(document_id)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            return False
        source.rename(target)
        return True

    def remove(self, document_id: str) -> None:
        """Remove the folder of a document, if it exists."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self._folder(document_id))

    def _folder(self, document_id: str) -> Path:
        if not is_id(DOCUMENT, document_id):
            raise ValueError(f"not the id of a document: {document_id[:80]!r}")
        return self._root / document_id


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
