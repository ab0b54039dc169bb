"""Text builder: collects running text with headings and divides it into pages. Most formats are read this way."""

import re
from bisect import bisect_right
from dataclasses import replace

from workers.cpu.readers.reader import UNREAD_IMAGES, Content, Heading, Picture

PAGE_CHARACTERS = 100_000
"""Length of a page in formats that have no pages of their own."""

MAX_FAULT_CHARACTERS = 2000

MAX_PICTURES, MAX_PICTURE_NAME = 100, 200
"""Pictures that are kept of a part of a document for OCR, and the length of their names. Others are reported as images that were not read."""

CONTROLS: dict[int, str | None] = {code: None for code in range(32) if chr(code) not in "\n\t"}
CONTROLS |= {0xFFFE: "-", 0xFFFF: None}
CONTROLS |= {ord("\v"): "\n", ord("\f"): "\n"}  # they part words
CONTROLS |= dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}")
_CONTROL = re.compile(r"[\0-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]")


class TextBuilder:
    """Running text with headings, divided into pages at the end."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._headings: list[Heading] = []
        self._pictures: dict[str, int] = {}
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

    def add_picture(self, name: str) -> None:
        """Note that a picture is shown here, which OCR may read. Only its first place counts."""
        if len(name) > MAX_PICTURE_NAME or name != clean_text(name) or len(self._pictures) >= MAX_PICTURES:
            self.skip("images")
            return
        self.images = True
        self._pictures.setdefault(name, self._length)

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
        for offset, name in content.pictures:
            self._pictures.setdefault(name, self._length + offset)
        self.add_line(content.text)
        if content.images and not content.pictures:
            self.skip("images")
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
        pictures: list[list[Picture]] = [[] for _ in pieces]
        for offset, level, title in self._headings:
            page = bisect_right(starts, offset) - 1
            headings[page].append((offset - starts[page], level, title))
        for name, offset in sorted(self._pictures.items(), key=lambda picture: picture[1]):
            page = bisect_right(starts, offset) - 1
            pictures[page].append((offset - starts[page], name))
        contents = [
            Content(piece, headings=own, pictures=shown) for piece, own, shown in zip(pieces, headings, pictures, strict=True)
        ]
        blank = not any(piece.strip() for piece in pieces)
        contents[0] = replace(contents[0], images=self.images, fault=self._full_fault(blank))
        return contents

    def _full_fault(self, blank: bool) -> str:
        """What is reported of this part. A blank part with images is reported as one that needs OCR."""
        skipped = [what for what in self._skipped if what != "images"]
        if "images" in self._skipped and not blank and UNREAD_IMAGES not in self.fault:
            skipped.append("images")
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
    # Hardly any text has them, and to look for them takes a tenth of the time of replacing them.
    return text.translate(CONTROLS) if _CONTROL.search(text) else text
