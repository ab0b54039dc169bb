"""Text builder: collects running text with headings and divides it into pages. Most formats are read this way."""

from bisect import bisect_right
from dataclasses import replace

from workers.cpu.readers.reader import Content, Heading

PAGE_CHARACTERS = 100_000
"""Length of a page in formats that have no pages of their own."""

MAX_FAULT_CHARACTERS = 2000

CONTROLS: dict[int, str | None] = {code: None for code in range(32) if chr(code) not in "\n\t"}
CONTROLS |= {0xFFFE: "-", 0xFFFF: None}
CONTROLS |= {ord("\v"): "\n", ord("\f"): "\n"}  # they part words
CONTROLS |= dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}")


class TextBuilder:
    """Running text with headings, divided into pages at the end."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._headings: list[Heading] = []
        self._skipped: dict[str, None] = {}
        self.images = False
        self.fault = ""

    @property
    def length(self) -> int:
        return self._length

    @property
    def blank(self) -> bool:
        """Whether there is no text yet."""
        return not any(part.strip() for part in self._parts)

    def skip(self, what: str) -> None:
        """Note that something was not read, such as "images"."""
        if what == "images":
            self.images = True
        self._skipped[what] = None

    def add_fault(self, fault: str) -> None:
        """Note what is wrong with this part of the document, as a verb and what follows it."""
        if fault and fault not in self.fault and len(self.fault) < MAX_FAULT_CHARACTERS:
            self.fault = "; ".join(filter(None, [self.fault, fault]))

    def add_text(self, text: str) -> None:
        text = clean_text(text).replace("\N{SOFT HYPHEN}", "")
        self._parts.append(text)
        self._length += len(text)

    def add_line(self, text: str) -> None:
        """Add a line, or a paragraph as one line."""
        self.add_text(text.rstrip() + "\n")

    def add_heading(self, level: int, title: str) -> None:
        """Add a heading on a line of its own."""
        title = " ".join(clean_text(title).replace("\N{SOFT HYPHEN}", "").split())
        if title:
            self.mark_heading(level, title)
            self.add_text(title + "\n")

    def add_content(self, content: Content) -> None:
        """Add a page of another file that is inside this one."""
        for offset, level, title in content.headings:
            self._headings.append((self._length + offset, level, title))
        self.add_line(content.text)
        self.images = self.images or content.images
        self.add_fault(content.fault)

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
        blank = not any(piece.strip() for piece in pieces)
        contents[0] = replace(contents[0], images=self.images, fault=self._full_fault(blank))
        return contents

    def _full_fault(self, blank: bool) -> str:
        """What is reported of this part. A blank part with images is reported as one that needs OCR."""
        skipped = [what for what in self._skipped if what != "images"] + (["images"] if self.images and not blank else [])
        listed = ", ".join([*skipped[:-2], " and ".join(skipped[-2:])])
        return "; ".join(filter(None, [self.fault, f"contains {listed} that were not read" if skipped else ""]))


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
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.isprintable() else text.translate(CONTROLS)
