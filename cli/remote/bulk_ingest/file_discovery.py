"""Which files an ingest is about, and what each is called at the server."""

import glob
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from cli.errors import CommandError


@dataclass(frozen=True)
class SourceFile:
    """A file, and its name at the server: its place in the folder that was named, or its own name."""

    name: str
    path: Path


def find_files(paths: Iterable[str], *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[SourceFile]:
    """The files of all places: files, folders (with all below them but what is hidden), and patterns such as ``in/**/*.pdf``.

    ``include`` and ``exclude`` are patterns for a file's name or its place in the folder. A file comes once, and no two have one
    name: where they would, their paths tell them apart. Raises Refusal when a place is not there.
    """
    found: dict[Path, SourceFile] = {}
    for place in paths:
        for file in _at(place):
            if _wanted(file.name, include, exclude):
                found.setdefault(file.path.resolve(), file)
    names = Counter(file.name for file in found.values())
    return [file if names[file.name] == 1 else SourceFile(file.path.as_posix(), file.path) for file in found.values()]


def _at(place: str) -> Iterator[SourceFile]:
    path = Path(place)
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            within = file.relative_to(path)
            if file.is_file() and not any(part.startswith(".") for part in within.parts):
                yield SourceFile(within.as_posix(), file)
    elif path.exists():
        yield SourceFile(path.name, path)
    elif glob.has_magic(place):
        for match in sorted(glob.glob(place, recursive=True)):
            if Path(match).is_file():
                yield SourceFile(Path(match).name, Path(match))
    else:
        raise CommandError(f"There is no file or folder {place}.")


def _wanted(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    def fits(pattern: str) -> bool:
        return fnmatch(name, pattern) or fnmatch(name.rpartition("/")[2], pattern)

    return (not include or any(map(fits, include))) and not any(map(fits, exclude))
