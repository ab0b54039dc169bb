"""The outline (bookmarks) of a PDF as headings of its pages.

The outline names the page of each section, but rarely a reliable position. So the reader looks for the title in the text of the page, at the
beginning of a line, perhaps after a number. A title that is not found belongs to the beginning of the page, or to the heading before it.
"""

import ctypes
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import compress, islice
from typing import Any

from workers.cpu.readers.reader import Heading

MAX_ENTRIES, MAX_PAGE_ENTRIES, MAX_LEVELS = 20_000, 500, 15
MAX_TITLE_CHARACTERS = 200
MAX_TRIES = 20
"""Maximum number of places on a page tried for a title."""

NUMBERING_CHARACTERS = 20
"""What may precede a title in its line, such as ``Chapter 12:`` or ``3.2.1``."""

# Titles that programs make up for every page.
_PAGE_NUMBER = re.compile(r"\W{0,5}(?:page|slide|p)?\W{0,5}\d{0,9}\W{0,5}", re.IGNORECASE)
_TITLE_BYTES = 1024
_WIDE = re.compile(r"[^\0-\xff]")
_LATIN_LOWER = bytes(ord(chr(code).lower()) for code in range(256))
_LATIN_IS_LETTER = bytes(chr(code).isalnum() for code in range(256))
_LATIN_SIGNS = bytes(code for code in range(256) if not chr(code).isalnum())
_NUMBERING = re.compile(r"\s*(?:(?:chapter|appendix|section|part)\s)?[\W\d]*(?:[A-Z]|[IVXLC]{1,7})?[\W\d]*", re.IGNORECASE)

Outline = dict[int, list[tuple[int, str]]]
"""Level, from 1, and title of the sections that begin on a page, by its number."""


def read_outline(document: Any) -> Outline:
    """The outline of a document of pypdfium2; empty if it has none or cannot be read."""
    from pypdfium2 import raw

    # Called directly, because the library's objects for bookmarks cost as much as a tenth of the text of a manual.
    outline: Outline = {}
    buffer = ctypes.create_string_buffer(_TITLE_BYTES)
    with suppress(ValueError):
        for level, bookmark in islice(_bookmarks(raw, document.raw, None, 1, set()), MAX_ENTRIES):
            length = raw.FPDFBookmark_GetTitle(bookmark, buffer, _TITLE_BYTES)
            if length > _TITLE_BYTES:
                whole = ctypes.create_string_buffer(length)
                raw.FPDFBookmark_GetTitle(bookmark, whole, length)
            else:
                whole = buffer
            title = " ".join(str(memoryview(whole)[: max(0, length - 2)], "utf-16-le").split())[:MAX_TITLE_CHARACTERS]
            target = raw.FPDFBookmark_GetDest(document.raw, bookmark)
            index = raw.FPDFDest_GetDestPageIndex(document.raw, target) if target else -1
            if index >= 0 and not _PAGE_NUMBER.fullmatch(title):
                outline.setdefault(index + 1, []).append((level, title))
    return outline


def _bookmarks(raw: Any, document: Any, parent: Any, level: int, seen: set[int]) -> Iterator[tuple[int, Any]]:
    """Level and bookmark below ``parent``, each before those inside it. One that is its own descendant ends its level."""
    bookmark = raw.FPDFBookmark_GetFirstChild(document, parent)
    while bookmark and (address := ctypes.addressof(bookmark.contents)) not in seen:
        seen.add(address)
        yield level, bookmark
        if level < MAX_LEVELS:
            yield from _bookmarks(raw, document, bookmark, level + 1, seen)
        bookmark = raw.FPDFBookmark_GetNextSibling(document, bookmark)


def place_headings(entries: Sequence[tuple[int, str]], text: str) -> list[Heading]:
    """The headings of a page with this text, in the order of the outline. On a page without text, all are at its beginning."""
    page = _Letters(text)
    headings: list[Heading] = []
    offset = start = 0
    for level, title in entries[:MAX_PAGE_ENTRIES]:
        wanted = _Letters(title).lower
        found = _find_line(wanted, page, start) if wanted else None
        if found is not None:
            offset, start = found
        headings.append((offset, level, title))
    return headings


def _find_line(wanted: str, page: "_Letters", start: int) -> tuple[int, int] | None:
    """Where the line that begins with ``wanted`` begins in the text of the page, and where ``wanted`` ends among its letters."""
    for _ in range(MAX_TRIES):
        at = page.lower.find(wanted, start)
        if at < 0:
            return None
        offset = page.offsets[at]
        line = page.text.rfind("\n", 0, offset) + 1
        if offset - line <= NUMBERING_CHARACTERS and _NUMBERING.fullmatch(page.text, line, offset):
            return line, at + len(wanted)
        start = at + 1
    return None


class _Letters:
    """The letters and digits of a text, in lower case, and the offset of each.

    Texts whose letters are all in Latin-1, as those of most pages are, are taken as bytes, which needs a tenth of the time.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._latin = None if any(map(str.isalnum, _WIDE.findall(text))) else text.encode("latin-1", "replace")
        if self._latin is None:
            self.lower = "".join(character.lower()[:1] for character in text if character.isalnum())
        else:
            self.lower = self._latin.translate(_LATIN_LOWER, _LATIN_SIGNS).decode("latin-1")

    @cached_property
    def offsets(self) -> list[int]:
        is_letter = map(str.isalnum, self.text) if self._latin is None else self._latin.translate(_LATIN_IS_LETTER)
        return list(compress(range(len(self.text)), is_letter))
