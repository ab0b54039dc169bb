"""Pages as they are shown: the stored text of a page, and a cache of its picture and of the boxes of its characters.

A worker draws a page when it is first asked for (``workers/cpu/pages``). What it drew is kept in the document's folder, so it is deleted
with the document, and is dropped when it was not used for a day or when the document has too much of it.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.documents.files import DocumentFiles
from shared.ids import DOCUMENT, is_id

FOLDER = "page-drawings"
MAX_CACHED_BYTES = 64 * 1024 * 1024
MAX_CACHED_FILES = 500
CACHE_SECONDS = 86_400.0
SWEEP_SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True)
class PageLayout:
    """The size of a page in points, and [offset, left, top, right, bottom] of its characters in units of ``page_boxes.SCALE``."""

    width: float
    height: float
    boxes: Sequence[Sequence[int]]


def read_page_text(files: DocumentFiles, document_id: str, page: int) -> str | None:
    """The stored text of a page, or None if the document has no such page or was not read."""
    try:
        with files.path(document_id, "pages.jsonl").open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if number == page:
                    return str(json.loads(line)["text"])
    except FileNotFoundError:
        pass
    return None


def read_ocr_lines(files: DocumentFiles, document_id: str, page: int) -> list[list[int]]:
    """[start, end, left, top, right, bottom] of the lines of a page that OCR read: characters of its stored text, and the place in units of
    ``page_boxes.SCALE``."""
    try:
        with files.path(document_id, "ocr-boxes.jsonl").open("rb") as entries:
            for entry in map(json.loads, entries):
                if entry["page"] == page:
                    return list(entry["lines"])
    except FileNotFoundError:
        pass
    return []


class PageDrawings:
    """What was drawn of the pages of one document."""

    def __init__(self, files: DocumentFiles, document_id: str) -> None:
        self._folder = files.path(document_id, "original").parent / FOLDER

    def layout(self, page: int, text: str) -> PageLayout | None:
        """The layout of a page with this text."""
        data = self._read(self._layout_name(page, text))
        return None if data is None else PageLayout(**json.loads(data))

    def picture(self, page: int, text: str, width: int, start: int, end: int) -> bytes | None:
        """The PNG of a page with this text, this many pixels wide, with the characters from ``start`` to ``end`` marked."""
        return self._read(self._picture_name(page, text, width, start, end))

    def store_layout(self, page: int, text: str, layout: PageLayout) -> None:
        fields: dict[str, Any] = {"width": layout.width, "height": layout.height, "boxes": layout.boxes}
        self._write(self._layout_name(page, text), json.dumps(fields, separators=(",", ":")).encode())

    def store_picture(self, page: int, text: str, width: int, start: int, end: int, picture: bytes) -> None:
        self._write(self._picture_name(page, text, width, start, end), picture)

    def shrink(self, max_bytes: int = MAX_CACHED_BYTES, max_files: int = MAX_CACHED_FILES) -> None:
        """Delete what was used longest ago, until the rest is within the limits."""
        used = _by_last_use(self._folder)
        size = sum(entry.st_size for _, entry in used)
        while used and (size > max_bytes or len(used) > max_files):
            path, entry = used.pop(0)
            path.unlink(missing_ok=True)
            size -= entry.st_size

    def _read(self, name: str) -> bytes | None:
        path = self._folder / name
        try:
            data = path.read_bytes()
            os.utime(path)
        except FileNotFoundError:
            return None
        return data

    def _write(self, name: str, data: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = self._folder / f".{name}.{os.urandom(4).hex()}"
        try:
            with open(draft, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as target:
                target.write(data)
            draft.replace(self._folder / name)
        finally:
            draft.unlink(missing_ok=True)

    @staticmethod
    def _layout_name(page: int, text: str) -> str:
        return f"{page}.{_digest(text)}.json"

    @staticmethod
    def _picture_name(page: int, text: str, width: int, start: int, end: int) -> str:
        return f"{page}.{width}.{start}-{end}.{_digest(text)}.png"


class PageDrawingsCleaner:
    """Maintenance: deletes what was not used for a day, once an hour."""

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._root = root
        self._clock = clock
        self._next_sweep = 0.0

    def run_once(self, now: float) -> None:
        if now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP_SECONDS
        for document in self._root.iterdir() if self._root.exists() else ():
            if not is_id(DOCUMENT, document.name):
                continue
            for path, entry in _by_last_use(document / FOLDER):
                if entry.st_mtime >= self._clock() - CACHE_SECONDS:
                    break
                path.unlink(missing_ok=True)


def _by_last_use(folder: Path) -> list[tuple[Path, os.stat_result]]:
    """The files of a folder, if it exists, with those that were used longest ago first."""
    found = []
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            with suppress(FileNotFoundError):
                found.append((path, path.stat()))
    return sorted(found, key=lambda each: each[1].st_mtime)


def _digest(text: str) -> str:
    """Stored text may change: a chunk is deleted, or the file is read again."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
