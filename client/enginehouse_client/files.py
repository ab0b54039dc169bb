"""Files to upload: which there are, and in which portions they go. They are opened when they are sent, and not before."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader, BytesIO, RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, TypeGuard, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

FileInput: TypeAlias = str | os.PathLike[str] | tuple[str, bytes | os.PathLike[str]]
"""A file, a folder (all files in it and below, but hidden ones), or a name with the bytes or the file that has them."""

MAX_FILES = 100
MAX_BYTES = 64 * 1024 * 1024
PIECE = 64 * 1024


@dataclass(frozen=True)
class Source:
    """One file: its name at the server, and where its bytes are."""

    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def open(self, on_read: Callable[[int], None] | None = None) -> BinaryIO:
        """Its bytes from the start; ``on_read`` is told each time how many have been read. Raises OSError."""
        opened = BytesIO(self.content) if isinstance(self.content, bytes) else self.content.open("rb")
        return opened if on_read is None else BufferedReader(_CountingReader(opened, on_read), PIECE)


class _CountingReader(RawIOBase):
    """A file that tells how far it has been read."""

    def __init__(self, file: BinaryIO, on_read: Callable[[int], None]) -> None:
        self._file = file
        self._on_read = on_read

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: "WriteableBuffer") -> int:
        piece = self._file.read(memoryview(buffer).nbytes)
        memoryview(buffer)[: len(piece)] = piece
        self._on_read(self._file.tell())
        return len(piece)

    def close(self) -> None:
        self._file.close()
        super().close()


def sources(given: FileInput | Iterable[FileInput]) -> Iterator[Source]:
    """The files, those of a folder in order of their names and named by their place in it. Raises FileNotFoundError."""
    for item in [given] if _is_one(given) else cast(Iterable[FileInput], given):
        if isinstance(item, tuple):
            name, content = item
            yield Source(name, content if isinstance(content, bytes) else Path(content))
            continue
        path = Path(item)
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                place = file.relative_to(path)
                if file.is_file() and not any(part.startswith(".") for part in place.parts):
                    yield Source(place.as_posix(), file)
        elif path.exists():
            yield Source(path.name, path)
        else:
            raise FileNotFoundError(f"there is no file or folder {path}")


def portions(files: Iterable[Source], most: int = MAX_FILES, most_bytes: int = MAX_BYTES) -> Iterator[list[Source]]:
    """The files in portions of one request each."""
    portion: list[Source] = []
    size = 0
    for file in files:
        if portion and (len(portion) == most or size + file.size > most_bytes):
            yield portion
            portion, size = [], 0
        portion.append(file)
        size += file.size
    if portion:
        yield portion


def _is_one(given: object) -> TypeGuard[FileInput]:
    if isinstance(given, tuple):
        return len(given) == 2 and isinstance(given[0], str) and isinstance(given[1], bytes | os.PathLike)
    return isinstance(given, str | os.PathLike)
