"""Text builder: collects running text with headings and divides it into pages. Most formats are read this way."""

from bisect import bisect_right
from dataclasses import replace

from workers.cpu.readers.reader import Content, Heading

PAGE_CHARACTERS = 100_000
"""Length of a page in formats that have no pages of their own."""

_CONTROLS = {code: None for code in range(32) if chr(code) not in "\n\t"} | {0xFFFE: "-", 0xFFFF: None}
_CONTROLS |= dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}")


class TextBuilder:
    """Running text with headings, divided into pages at the end."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._headings: list[Heading] = []
        self.images = False
        self.fault = ""

    @property
    def length(self) -> int:
        return self._length

    def add_text(self, text: str) -> None:
        text = clean_text(text)
        self._parts.append(text)
        self._length += len(text)

    def add_line(self, text: str) -> None:
        """Add a line, or a paragraph as one line."""
        self.add_text(text.rstrip() + "\n")

    def add_heading(self, level: int, title: str) -> None:
        """Add a heading on a line of its own."""
        title = " ".join(clean_text(title).split())
        if title:
            self.mark_heading(level, title)
            self.add_text(title + "\n")

    def mark_heading(self, level: int, title: str) -> None:
        """Put the text that follows under a heading, without adding the heading to the text."""
        self._headings.append((self._length, level, title))

    def build_pages(self, size: int = PAGE_CHARACTERS) -> list[Content]:
        """The text as pages of at most ``size`` characters, each with its own headings; at least one page."""
        pieces = split_text("".join(self._parts), size)
        starts, offset = [], 0
        for piece in pieces:
            starts.append(offset)
            offset += len(piece)
        headings: list[list[Heading]] = [[] for _ in pieces]
        for offset, level, title in self._headings:
            page = bisect_right(starts, offset) - 1
            headings[page].append((offset - starts[page], level, title))
        contents = [Content(piece, headings=own) for piece, own in zip(pieces, headings, strict=True)]
        contents[0] = replace(contents[0], images=self.images, fault=self.fault)
        return contents


def split_text(text: str, size: int) -> list[str]:
    """Pieces of at most ``size`` characters, split after the last newline in the second half of a piece if there is one."""
    pieces, start = [], 0
    while len(text) - start > size:
        newline = text.rfind("\n", start + size // 2, start + size)
        end = newline + 1 if newline >= 0 else start + size
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]]


def clean_text(text: str) -> str:
    """Normalise line ends to ``\\n``; remove control characters, lone surrogates and non-characters, which no index accepts."""
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_CONTROLS)
