"""Reader interface: how the pages of a file are read, whatever its format."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

Source = str | IO[bytes]
"""The path of a file, or its bytes, for example after decryption."""

Heading = tuple[int, int, str]
"""Character offset in the page's text, level from 1, title."""

Picture = tuple[int, str]
"""Character offset in the page's text at which the page shows a picture, and the name by which ``ocr/embedded.py`` finds it in the file."""

PASSWORD_REQUIRED = "The file needs a password. Upload it again with the field `password`, or retry its job with a password."
WRONG_PASSWORD = "The password does not open the file. Upload it again with the right one."


PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif")

NEEDS_OCR = "is a picture of a page with a few words of text on it and needs OCR"
"""The fault of a page whose text is not what it shows. A document of such pages only is not searchable without OCR."""

ONLY_NOTES = "is a picture of a page, of which only comments and form fields could be read"
"""The fault of a page whose text is all that is kept beside its picture."""

UNREAD_IMAGES = "contains images that were not read"

NO_OCR_TEXT = "is a picture in which OCR found no text"


class ReadError(Exception):
    """The whole file cannot be read; ``code`` is ``encrypted``, ``unsupported``, ``too_large`` or ``unreadable``."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def password_error(password: str) -> ReadError:
    """The error for an encrypted file that ``password`` (maybe "") did not open."""
    return ReadError("encrypted", WRONG_PASSWORD if password else PASSWORD_REQUIRED)


@dataclass(frozen=True)
class Content:
    """Contents of one page. ``images`` matters only if there is no text; ``fault`` says what could not be read, except for
    ``pictures``, which OCR may still read."""

    text: str
    images: bool = False
    headings: list[Heading] = field(default_factory=list)
    fault: str = ""
    pictures: list[Picture] = field(default_factory=list)


class Reader(Protocol):
    """An open file of one format. Page numbers start at 1."""

    name: str
    pages: int
    title: str

    def read_page(self, number: int) -> Content: ...


class InMemoryReader:
    """Reader that holds all pages in memory, for formats without random access."""

    name = ""

    def __init__(self, contents: list[Content], title: str = "") -> None:
        self._contents = contents
        self.pages = len(contents)
        self.title = title

    def read_page(self, number: int) -> Content:
        return self._contents[number - 1]


def read_source(source: Source) -> bytes:
    return Path(source).read_bytes() if isinstance(source, str) else source.read()
