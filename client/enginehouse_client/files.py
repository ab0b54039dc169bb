"""Files to upload: which there are, and in which portions they go. They are opened when they are sent, and not before."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, TypeAlias, TypeGuard, cast

Given: TypeAlias = str | os.PathLike[str] | tuple[str, bytes]
"""A file, a folder (all files in it and below, but hidden ones), or a name with the bytes."""

MOST_FILES = 100
MOST_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Source:
    """One file: its name at the server, and where its bytes are."""

    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def open(self) -> BinaryIO:
        """Its bytes from the start. Raises OSError."""
        return BytesIO(self.content) if isinstance(self.content, bytes) else self.content.open("rb")


def sources(given: Given | Iterable[Given]) -> Iterator[Source]:
    """The files, those of a folder in order of their names and named by their place in it. Raises FileNotFoundError."""
    for item in [given] if _is_one(given) else cast(Iterable[Given], given):
        if isinstance(item, tuple):
            yield Source(*item)
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


def portions(files: Iterable[Source], most: int = MOST_FILES, most_bytes: int = MOST_BYTES) -> Iterator[list[Source]]:
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


def _is_one(given: object) -> TypeGuard[Given]:
    if isinstance(given, tuple):
        return len(given) == 2 and isinstance(given[1], bytes)
    return isinstance(given, str | os.PathLike)
