"""Readers of plain text, source code and Markdown. Form feeds separate pages."""

import re

from shared.documents.media_types import HEAD, SUPPORTED
from shared.documents.text_encoding import detect_encoding
from workers.cpu.readers.reader import Content, InMemoryReader, ReadError, Source, read_source
from workers.cpu.readers.text_builder import PAGE_CHARACTERS, TextBuilder, clean_text, split_text

_FENCE = re.compile(r" {0,3}(```|~~~)")
_ATX = re.compile(r" {0,3}(#{1,6})[ \t]+(.*)")
_UNDERLINE = re.compile(r" {0,3}(=+|-{3,})[ \t]*$")


class TextReader(InMemoryReader):
    """Text, unchanged."""

    name = "text"

    def __init__(self, source: Source, password: str) -> None:
        text = normalize_newlines(decode(read_source(source)))
        super().__init__([Content(piece) for page in text.split("\f") for piece in split_text(page, PAGE_CHARACTERS)])


class MarkdownReader(InMemoryReader):
    """Markdown, unchanged, with its headings marked."""

    name = "markdown"

    def __init__(self, source: Source, password: str) -> None:
        contents = []
        for page in normalize_newlines(decode(read_source(source))).split("\f"):
            builder = TextBuilder()
            add_markdown(builder, page)
            contents += builder.build_pages()
        super().__init__(contents)


def add_markdown(builder: TextBuilder, text: str) -> None:
    """Add Markdown text unchanged, and mark its headings."""
    lines = text.splitlines(keepends=True)
    fence = ""
    for number, line in enumerate(lines):
        opening = _FENCE.match(line)
        if opening and fence in ("", opening[1]):
            fence = "" if fence else opening[1]
        elif not fence:
            titled = _ATX.match(line)
            title = titled[2].rstrip(" \t").rstrip("#").rstrip(" \t") if titled else ""
            below = _UNDERLINE.match(lines[number + 1].rstrip("\n")) if number + 1 < len(lines) and line.strip() else None
            if titled and title:
                builder.mark_heading(len(titled[1]), clean_text(title))
            elif below and not line.lstrip().startswith(("#", ">", "-", "*", "|")):
                builder.mark_heading(1 if below[1][0] == "=" else 2, clean_text(line.strip()))
        builder.add_text(line)


def normalize_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def decode(data: bytes) -> str:
    """Decode bytes in whatever encoding they are. Raises ReadError if they are not text."""
    codec = detect_encoding(data[:HEAD], whole=len(data) <= HEAD)
    try:
        if codec is not None:
            return data.decode(codec)
    except UnicodeDecodeError as error:
        # The beginning was ASCII and fits any encoding. Detect it around the first byte that is not.
        codec = detect_encoding(data[max(0, error.start - 64) : error.start + HEAD])
        if codec is not None and not codec.startswith("utf"):
            return data.decode(codec, errors="replace")
    raise ReadError("unsupported", f"The file is not text in a known encoding. Supported formats: {SUPPORTED}.")
