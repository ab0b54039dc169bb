"""Plain text, source code and Markdown. A page is what stands between two form feeds."""

import re

from shared.documents.media_types import HEAD, SUPPORTED
from shared.documents.text_encoding import encoding
from workers.cpu.readers.reader import PAGE_CHARACTERS as PAGE
from workers.cpu.readers.reader import (
    Content,
    InMemoryReader,
    ReadError,
    Source,
    TextBuilder,
    clean_text,
    read_source,
    split_text,
)

_FENCE = re.compile(r" {0,3}(```|~~~)")
_ATX = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-{3,})[ \t]*$")


class TextReader(InMemoryReader):
    """Text as it stands."""

    name = "text"

    def __init__(self, source: Source, password: str) -> None:
        text = clean_lines(decode(read_source(source)))
        super().__init__([Content(piece) for sheet in text.split("\f") for piece in split_text(sheet, PAGE)])


class MarkdownReader(InMemoryReader):
    """Text as it stands, with what its lines say of headings."""

    name = "markdown"

    def __init__(self, source: Source, password: str) -> None:
        contents = []
        for sheet in clean_lines(decode(read_source(source))).split("\f"):
            builder = TextBuilder()
            _markdown(builder, sheet.splitlines(keepends=True))
            contents += builder.pages()
        super().__init__(contents)


def _markdown(builder: TextBuilder, lines: list[str]) -> None:
    fence = ""
    for number, line in enumerate(lines):
        opening = _FENCE.match(line)
        if opening and fence in ("", opening[1]):
            fence = "" if fence else opening[1]
        elif not fence:
            titled = _ATX.match(line.rstrip("\n"))
            below = _UNDERLINE.match(lines[number + 1].rstrip("\n")) if number + 1 < len(lines) and line.strip() else None
            if titled and titled[2]:
                builder.mark(len(titled[1]), clean_text(titled[2]))
            elif below and not line.lstrip().startswith(("#", ">", "-", "*", "|")):
                builder.mark(1 if below[1][0] == "=" else 2, clean_text(line.strip()))
        builder.add(line)


def clean_lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def decode(data: bytes) -> str:
    """The text that the bytes are. Raises Rejected when they are not text."""
    codec = encoding(data[:HEAD], whole=len(data) <= HEAD)
    try:
        if codec is not None:
            return data.decode(codec)
    except UnicodeDecodeError as error:
        # The beginning was plain ASCII and told nothing; the encoding shows around the first character that is not.
        codec = encoding(data[max(0, error.start - 64) : error.start + HEAD])
        if codec is not None and not codec.startswith("utf"):
            return data.decode(codec, errors="replace")
    raise ReadError("unsupported", f"It is not text in an encoding that is known. Supported are {SUPPORTED}.")
