"""Headers and footers: removes lines that most pages of a document have at their beginning or end, except on the first such page.

The first pass counts the lines at the edges of all pages, and the second one removes those that repeat. A number that grows with
the pages may differ: "Page 7 of 90" repeats "Page 6 of 90". Other numbers may not: the last line of an invoice is its sum.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from workers.cpu.parsing.parser import Page

EDGE_LINES = 3
"""Lines at the beginning and at the end of a page that may be headers and footers."""

MIN_REPEATS = 4
MIN_SHARE, MIN_SIDE_SHARE = 0.5, 0.7
"""Share of all pages, or else of the left or right pages, on which a line must be."""

MAX_COUNTED_PAGES = 2000
MAX_LINE_CHARACTERS = 200

_NUMBER = re.compile(r"(?<!\d)[0-9]{1,6}(?!\d)")
_MAX_NUMBERS = 3

_Key = tuple[str, str]
"""The edge, ``top`` or ``bottom``, and a line in which one number may be replaced by its distance to the number of the page."""


class RepeatedLines:
    """The repeated lines of one document. Its pages are counted first, and then passed to ``remove`` in order."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[_Key, int]] = Counter()
        self._pages = [0, 0]
        self._kept: set[_Key] = set()

    def count(self, number: int, text: str) -> None:
        """Count the lines at the edges of a page. Beyond MAX_COUNTED_PAGES, pages are like those before."""
        if sum(self._pages) >= MAX_COUNTED_PAGES or not text.strip():
            return
        self._pages[number % 2] += 1
        keys = {
            key
            for edge in ("top", "bottom")
            for start, end in _edge_lines(text, edge)
            for key in _keys(edge, text[start:end], number)
        }
        self._counts.update((key, number % 2) for key in keys)

    def remove(self, page: Page) -> Page:
        """The page without lines that an earlier page has. Nothing is removed from a page that has no other text."""
        text = page.text
        start, end, removed = 0, len(text), 0
        for edge in ("top", "bottom"):
            for line_start, line_end in _edge_lines(text, edge):
                repeated = [key for key in _keys(edge, text[line_start:line_end], page.number) if self._is_repeated(key)]
                is_known = not self._kept.isdisjoint(repeated)
                self._kept.update(repeated)
                if not is_known:
                    break
                removed += 1
                start, end = (line_end + 1, end) if edge == "top" else (start, line_start)
        if not removed or not text[start:end].strip():
            return page
        headings = [(max(0, offset - start), level, title) for offset, level, title in page.headings]
        return dataclasses.replace(page, text=text[start:end], headings=headings, removed_lines=removed)

    def found_any(self) -> bool:
        return any(self._is_repeated(key) for key, _ in self._counts)

    def _is_repeated(self, key: _Key) -> bool:
        counts = [self._counts[key, side] for side in (0, 1)]
        return any(
            count >= MIN_REPEATS and count > share * pages
            for count, pages, share in (
                (sum(counts), sum(self._pages), MIN_SHARE),
                *((count, pages, MIN_SIDE_SHARE) for count, pages in zip(counts, self._pages, strict=True)),
            )
        )


def _edge_lines(text: str, edge: str) -> Sequence[tuple[int, int]]:
    """The first or last lines of a text that are not blank, from the edge inwards."""
    found: list[tuple[int, int]] = []
    position = 0 if edge == "top" else len(text)
    while len(found) < EDGE_LINES and 0 <= position <= len(text):
        if edge == "top":
            end = text.find("\n", position)
            start, end = position, len(text) if end < 0 else end
            position = end + 1
        else:
            start, end = text.rfind("\n", 0, position) + 1, position
            position = start - 1
        if text[start:end].strip():
            found.append((start, end))
    return found


def _keys(edge: str, line: str, number: int) -> Iterator[_Key]:
    if len(line) > MAX_LINE_CHARACTERS:
        return
    line = " ".join(line.split())
    yield edge, line
    for digits, _ in zip(_NUMBER.finditer(line), range(_MAX_NUMBERS), strict=False):
        yield edge, f"{line[: digits.start()]}\0{int(digits[0]) - number}\0{line[digits.end() :]}"
