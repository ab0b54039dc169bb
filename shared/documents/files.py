"""The files of a document: the bytes as uploaded, the text of its pages, its chunks. One folder a document.

Paths are made from our own ids alone; no name that a client gave reaches the file system.
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

from shared.errors import BodyTooLarge, Unavailable
from shared.ids import DOCUMENT, is_id

FileName = Literal["original", "pages.jsonl", "chunks.jsonl", "pad"]

BLOCK = 1024 * 1024


class Readable(Protocol):
    """A source of bytes, such as the stream of an upload."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Stored:
    """What was written: size in bytes, and SHA-256 in hexadecimal."""

    size: int
    sha256: str


class DocumentFiles:
    """The folders of all documents, under ``root`` (``settings.documents_dir``)."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, document_id: str, name: FileName) -> Path:
        """Where the file lies. Raises ValueError when ``document_id`` is not one of our ids."""
        return self._folder(document_id) / name

    def store(self, document_id: str, source: Readable, *, limit: int) -> Stored:
        """Write the uploaded bytes, and have them on disk when this returns.

        Raises BodyTooLarge past ``limit`` bytes and Unavailable when the disk is full; then, as after a fault of
        ``source``, nothing is left behind.
        """
        digest, size = hashlib.sha256(), 0
        try:
            with self.replace(document_id, "original") as target:
                while block := source.read(BLOCK):
                    size += len(block)
                    if size > limit:
                        raise BodyTooLarge(f"The file is larger than {limit} bytes, the most that one document may have.")
                    digest.update(block)
                    target.write(block)
        except BaseException as error:
            self.remove(document_id)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Unavailable("The server's disk is full; nothing was stored. Tell its operator.") from error
            raise
        return Stored(size, digest.hexdigest())

    @contextmanager
    def replace(self, document_id: str, name: FileName) -> Iterator[IO[bytes]]:
        """Write a file as a whole: readers see the old one or the new one, and after a fault the old one stays."""
        path = self.path(document_id, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own keeps a stale attempt and its successor out of each other's half-written file.
        draft = path.with_name(f".{name}.{secrets.token_hex(4)}")
        try:
            with draft.open("wb") as target:
                yield target
                target.flush()
                os.fsync(target.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    def move(self, document_id: str, other: "DocumentFiles", other_id: str) -> None:
        """Give the folder of a document to other files, over what they have under that id."""
        other.remove(other_id)
        target = other._folder(other_id)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._folder(document_id).rename(target)

    def give(self, document_id: str, other_id: str) -> None:
        """Let another document have this one's folder; when it has one already, this one is removed."""
        try:
            self._folder(document_id).rename(self._folder(other_id))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            self.remove(document_id)

    def remove(self, document_id: str) -> None:
        """Remove the folder with all that is in it; nothing happens when there is none."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self._folder(document_id))

    def _folder(self, document_id: str) -> Path:
        if not is_id(DOCUMENT, document_id):
            raise ValueError(f"not the id of a document: {document_id[:80]!r}")
        return self._root / document_id
