"""Readers of plain text, source code and Markdown. Form feeds separate pages."""

import re
from dataclasses import replace

from shared.documents.media_types import SUPPORTED
from shared.documents.text_encoding import DecodedText, decode_labelled
from workers.cpu.readers.reader import Content, InMemoryReader, ReadError, Source, read_source
from workers.cpu.readers.text_builder import PAGE_CHARACTERS, TextBuilder, clean_text, split_text

_FENCE = re.compile(r" {0,3}(```|~~~)")
_ATX = re.compile(r" {0,3}(#{1,6})[ \t]+(.*)")
_TERMINAL_CODE = re.compile(r"\x1b\[[0-9;?]{0,40}[A-Za-z]|\x1b[()][A-Z0-9]")
_OVERSTRUCK = re.compile(r"[^\n]\x08")
_UNDERLINE = re.compile(r" {0,3}(=+|-{3,})[ \t]*$")


class TextReader(InMemoryReader):
    """Text, unchanged."""

    name = "text"

    def __init__(self, source: Source, password: str) -> None:
        decoded = decode_text(read_source(source))
        text = without_terminal_codes(normalize_newlines(decoded.text))
        contents = [Content(piece) for page in text.split("\f") for piece in split_text(page, PAGE_CHARACTERS)]
        super().__init__([replace(contents[0], fault=replacement_fault(decoded)), *contents[1:]])


class MarkdownReader(InMemoryReader):
    """Markdown, unchanged, with its headings marked."""

    name = "markdown"

    def __init__(self, source: Source, password: str) -> None:
        contents = []
        decoded = decode_text(read_source(source))
        for page in normalize_newlines(decoded.text).split("\f"):
            builder = TextBuilder()
            add_markdown(builder, page)
            contents += builder.build_pages()
        super().__init__([replace(contents[0], fault=replacement_fault(decoded)), *contents[1:]])


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


def without_terminal_codes(text: str) -> str:
    """Text as a terminal shows it: without the codes of colours, and letters that were printed twice, once."""
    if "\x1b" in text:
        text = _TERMINAL_CODE.sub("", text)
    return _OVERSTRUCK.sub("", text) if "\b" in text else text


def decode(data: bytes, label: str | None = None) -> str:
    """The text of bytes in whatever encoding they are. For a file whose faults are reported, use ``decode_text``."""
    return decode_text(data, label).text


def decode_text(data: bytes, label: str | None = None) -> DecodedText:
    """Decode bytes whose sender says, if he does, that they are encoded as ``label``. Raises ReadError if they are not text."""
    decoded = decode_labelled(data, label)
    if decoded is None:
        raise ReadError("unsupported", f"The file is not text in a known encoding. Supported formats: {SUPPORTED}.")
    return decoded


def replacement_fault(decoded: DecodedText) -> str:
    """The fault of a text some bytes of which could not be decoded, or ""."""
    if not decoded.replaced:
        return ""
    return f"has {decoded.replaced} damaged characters, which are not valid {decoded.codec} and were replaced by \N{REPLACEMENT CHARACTER}"
