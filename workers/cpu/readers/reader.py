"""What a reader is, what it gives, and the running text that most formats are read into.

Knows no format.
"""

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Protocol

Source = str | IO[bytes]
"""The path of a file, or the bytes that were taken out of one."""

Heading = tuple[int, int, str]
"""Character offset in the page's text, level from 1, title."""

PAGE_CHARACTERS = 100_000
"""Where a format has no pages of its own, so many characters count as one."""

_CONTROLS = {code: None for code in range(32) if chr(code) not in "\n\t"} | {0xFFFE: "-", 0xFFFF: None}
_CONTROLS |= dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}")


class ReadError(Exception):
    """The file as a whole cannot be read; ``end`` is ``encrypted``, ``unsupported``, ``too_large`` or ``unreadable``."""

    def __init__(self, end: str, reason: str) -> None:
        super().__init__(reason)
        self.end = end


WANTS_PASSWORD = "It opens only with a password. Upload it again with the field `password`, or retry its job with one."
WRONG_PASSWORD = "The password that was given does not open it. Upload it again with the right one."


def password_error(password: str) -> ReadError:
    """What to say of a file that the password did not open."""
    return ReadError("encrypted", WRONG_PASSWORD if password else WANTS_PASSWORD)


@dataclass(frozen=True)
class Content:
    """What a page holds. ``images`` matters where there is no text; ``fault`` says what of the page could not be read."""

    text: str
    images: bool = False
    headings: list[Heading] = field(default_factory=list)
    fault: str = ""


class Reader(Protocol):
    """One way to read one file. ``read`` takes page numbers from 1."""

    name: str
    pages: int
    title: str

    def read(self, number: int) -> Content: ...


class InMemoryReader:
    """A reader that has all pages in memory; formats without random access are read this way."""

    name = ""

    def __init__(self, contents: list[Content], title: str = "") -> None:
        self._contents = contents
        self.pages = len(contents)
        self.title = title

    def read(self, number: int) -> Content:
        return self._contents[number - 1]


class TextBuilder:
    """Running text with headings, cut into pages at the end."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._headings: list[Heading] = []
        self.images = False
        self.fault = ""

    def add(self, text: str) -> None:
        text = clean_text(text)
        self._parts.append(text)
        self._length += len(text)

    def line(self, text: str) -> None:
        """A line, or a paragraph on one."""
        self.add(text.rstrip() + "\n")

    def heading(self, level: int, title: str) -> None:
        """A title on a line of its own."""
        title = " ".join(clean_text(title).split())
        if title:
            self._headings.append((self._length, level, title))
            self.add(title + "\n")

    @property
    def length(self) -> int:
        return self._length

    def mark(self, level: int, title: str) -> None:
        """Say that what comes next stands under a title, without writing it."""
        self._headings.append((self._length, level, title))

    def pages(self, size: int = PAGE_CHARACTERS) -> list[Content]:
        """The text in pieces of at most ``size`` characters, each with its own headings; one page at least."""
        pieces = split_text("".join(self._parts), size)
        starts, place = [], 0
        for piece in pieces:
            starts.append(place)
            place += len(piece)
        headings: list[list[Heading]] = [[] for _ in pieces]
        for offset, level, title in self._headings:
            page = bisect_right(starts, offset) - 1
            headings[page].append((offset - starts[page], level, title))
        contents = [Content(piece, headings=own) for piece, own in zip(pieces, headings, strict=True)]
        contents[0] = replace(contents[0], images=self.images, fault=self.fault)
        return contents


def split_text(text: str, size: int) -> list[str]:
    """Pieces of at most ``size`` characters, at the end of a line where there is one in the second half."""
    pieces, start = [], 0
    while len(text) - start > size:
        newline = text.rfind("\n", start + size // 2, start + size)
        end = newline + 1 if newline >= 0 else start + size
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]]


def clean_text(text: str) -> str:
    """Lines end in a newline; control characters, lone surrogates and non-characters, which no index takes, are gone."""
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_CONTROLS)


def read_source(source: Source) -> bytes:
    return Path(source).read_bytes() if isinstance(source, str) else source.read()
