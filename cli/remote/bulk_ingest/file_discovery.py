"""Find the files to ingest, and the name of each on the server."""

import glob
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Protocol

from cli.errors import CommandError
from enginehouse_client.files import escape_name


class InputFile(Protocol):
    """What can be sent: its name on the server, and its content as a file of this machine for the length of a ``with`` block. OSError
    if it cannot be read."""

    @property
    def name(self) -> str: ...

    def local(self) -> AbstractContextManager[Path]: ...


@dataclass(frozen=True)
class SourceFile:
    """A file and its name on the server: its path inside the given folder, or its own file name."""

    name: str
    path: Path

    @contextmanager
    def local(self) -> Iterator[Path]:
        yield self.path


def find_files(
    paths: Iterable[str], *, include: Sequence[str] = (), exclude: Sequence[str] = (), prefix: str = ""
) -> list[SourceFile]:
    """Expand files, folders (recursively, without hidden files) and patterns such as ``in/**/*.pdf``.

    ``include`` and ``exclude`` are patterns for a file's name or for its path inside the folder. Each file is returned once, and
    names are unique: files that would share a name are named by their full paths. ``prefix`` is put before all names. Raises
    CommandError if a path does not exist.
    """
    found: dict[Path, SourceFile] = {}
    for path in paths:
        for file in _expand(path):
            if is_selected(file.name, include, exclude):
                found.setdefault(file.path.resolve(), file)
    names = Counter(file.name for file in found.values())
    return [
        SourceFile(prefix + (file.name if names[file.name] == 1 else escape_name(file.path.as_posix())), file.path)
        for file in found.values()
    ]


def _expand(text: str) -> Iterator[SourceFile]:
    path = Path(text)
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            relative = file.relative_to(path)
            if file.is_file() and not any(part.startswith(".") for part in relative.parts):
                yield SourceFile(escape_name(relative.as_posix()), file)
    elif path.exists():
        yield SourceFile(escape_name(path.name), path)
    elif glob.has_magic(text):
        for match in sorted(glob.glob(text, recursive=True)):
            if Path(match).is_file():
                yield SourceFile(escape_name(Path(match).name), Path(match))
    else:
        raise CommandError(f"There is no file or folder {text}.")


def is_selected(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether a name, or the last part of it, matches one of the patterns ``include``, if there are any, and none of ``exclude``."""

    def matches(pattern: str) -> bool:
        return fnmatch(name, pattern) or fnmatch(name.rpartition("/")[2], pattern)

    return (not include or any(map(matches, include))) and not any(map(matches, exclude))
