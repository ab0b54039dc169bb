"""Files to upload, and how they are grouped into requests. Files are opened only when they are sent."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader, BytesIO, RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, TypeGuard, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

FileInput: TypeAlias = str | os.PathLike[str] | tuple[str, bytes | os.PathLike[str]]
"""A file, a folder (recursive, without hidden files), or a name with its bytes or its file."""

MAX_FILES = 100
MAX_BYTES = 64 * 1024 * 1024
PIECE = 64 * 1024


def escape_name(name: str) -> str:
    """The name of a file, with each byte that is not UTF-8 as ``\\xe9``; Python reads such bytes as surrogates."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a character that a program has split
        return name.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class Source:
    """One file: its name on the server and its content."""

    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def open(self, on_read: Callable[[int], None] | None = None) -> BinaryIO:
        """Open the content; ``on_read`` receives the number of bytes read so far. Raises OSError."""
        opened = BytesIO(self.content) if isinstance(self.content, bytes) else self.content.open("rb")
        return opened if on_read is None else BufferedReader(_CountingReader(opened, on_read), PIECE)


class _CountingReader(RawIOBase):
    """A file that reports its read position."""

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


def sources(files: FileInput | Iterable[FileInput]) -> Iterator[Source]:
    """Expand files and folders. Files of a folder come sorted, named by their path inside it. Raises FileNotFoundError."""
    for item in [files] if _is_single(files) else cast(Iterable[FileInput], files):
        if isinstance(item, tuple):
            name, content = item
            yield Source(escape_name(name), content if isinstance(content, bytes) else Path(content))
            continue
        path = Path(item)
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                relative = file.relative_to(path)
                if file.is_file() and not any(part.startswith(".") for part in relative.parts):
                    yield Source(escape_name(relative.as_posix()), file)
        elif path.exists():
            yield Source(escape_name(path.name), path)
        else:
            raise FileNotFoundError(f"there is no file or folder {path}")


def split_into_requests(
    files: Iterable[Source], max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES
) -> Iterator[list[Source]]:
    """Group the files, one group per request."""
    group: list[Source] = []
    size = 0
    for file in files:
        if group and (len(group) == max_files or size + file.size > max_bytes):
            yield group
            group, size = [], 0
        group.append(file)
        size += file.size
    if group:
        yield group


def _is_single(files: object) -> TypeGuard[FileInput]:
    if isinstance(files, tuple):
        return len(files) == 2 and isinstance(files[0], str) and isinstance(files[1], bytes | os.PathLike)
    return isinstance(files, str | os.PathLike)
