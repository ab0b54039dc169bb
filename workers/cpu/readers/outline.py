"""The outline (bookmarks) of a PDF as headings of its pages.

The outline names the page of each section, but rarely a reliable position. So the reader looks for the title in the text of the page, at the
beginning of a line, perhaps after a number. A title that is not found belongs to the beginning of the page, or to the heading before it.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from workers.cpu.readers.reader import Heading

MAX_ENTRIES, MAX_PAGE_ENTRIES = 20_000, 500
MAX_TITLE_CHARACTERS = 200
MAX_TRIES = 20
"""Maximum number of places on a page tried for a title."""

NUMBERING_CHARACTERS = 20
"""What may precede a title in its line, such as ``Chapter 12:`` or ``3.2.1``."""

# Titles that programs make up for every page.
_PAGE_NUMBER = re.compile(r"\W{0,5}(?:page|slide|p)?\W{0,5}\d{0,9}\W{0,5}", re.IGNORECASE)
_NUMBERING = re.compile(r"\s*(?:(?:chapter|appendix|section|part)\s)?[\W\d]*(?:[A-Z]|[IVXLC]{1,7})?[\W\d]*", re.IGNORECASE)

Outline = dict[int, list[tuple[int, str]]]
"""Level, from 1, and title of the sections that begin on a page, by its number."""


def read_outline(document: Any) -> Outline:
    """The outline of a document of pypdfium2; empty if it has none or cannot be read."""
    import pypdfium2

    outline: Outline = {}
    with suppress(pypdfium2.PdfiumError, RecursionError, ValueError):
        for bookmark in islice(document.get_toc(), MAX_ENTRIES):
            title = " ".join(bookmark.get_title().split())[:MAX_TITLE_CHARACTERS]
            target = bookmark.get_dest()
            index = None if target is None else target.get_index()
            if index is not None and not _PAGE_NUMBER.fullmatch(title):
                outline.setdefault(index + 1, []).append((bookmark.level + 1, title))
    return outline


def place_headings(entries: Sequence[tuple[int, str]], text: str) -> list[Heading]:
    """The headings of a page with this text, in the order of the outline. On a page without text, all are at its beginning."""
    letters, offsets = _letters(text)
    headings: list[Heading] = []
    offset = start = 0
    for level, title in entries[:MAX_PAGE_ENTRIES]:
        wanted, _ = _letters(title)
        found = _find_line(wanted, letters, offsets, text, start) if wanted else None
        if found is not None:
            offset, start = found
        headings.append((offset, level, title))
    return headings


def _find_line(wanted: str, letters: str, offsets: Sequence[int], text: str, start: int) -> tuple[int, int] | None:
    """Where the line that begins with ``wanted`` begins in ``text``, and where ``wanted`` ends in ``letters``."""
    for _ in range(MAX_TRIES):
        at = letters.find(wanted, start)
        if at < 0:
            return None
        line = text.rfind("\n", 0, offsets[at]) + 1
        if offsets[at] - line <= NUMBERING_CHARACTERS and _NUMBERING.fullmatch(text, line, offsets[at]):
            return line, at + len(wanted)
        start = at + 1
    return None


def _letters(text: str) -> tuple[str, list[int]]:
    """The letters and digits of a text in lower case, and the offset of each."""
    kept = [(character.lower()[:1], offset) for offset, character in enumerate(text) if character.isalnum()]
    return "".join(character for character, _ in kept), [offset for _, offset in kept]
