"""Outlook reader (.msg): headers, body and text attachments. An attached message begins a page. Attached pictures are noted for OCR; other
attachments are listed.

The properties of a message are streams of an OLE container, named by their numbers in [MS-OXPROPS].
"""

import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from workers.cpu.readers.alternatives import html_says_more, missing_lines
from workers.cpu.readers.charset import decode_declared, repair_controls
from workers.cpu.readers.markup import add_markup, parse_html
from workers.cpu.readers.picture import is_icon
from workers.cpu.readers.reader import PICTURE_SUFFIXES, Content, InMemoryReader, ReadError, Source
from workers.cpu.readers.rtf import RtfReader
from workers.cpu.readers.text_builder import TextBuilder

_SUBJECT, _BODY, _HTML, _RTF = "0037", "1000", "1013", "1009"
_FROM, _ADDRESS, _SMTP, _TO, _CC = "0C1A", "0C1F", "5D01", "0E04", "0E03"
_LONG_NAME, _NAME, _DISPLAY_NAME, _MIME, _DATA = "3707", "3704", "3001", "370E", "3701"
_CONTENT_ID = "3712"
_SENT, _DELIVERED = 0x00390040, 0x0E060040
_CODE_PAGES = (0x3FFD0003, 0x3FDE0003)
_TEXT_SUFFIXES = (".txt", ".md", ".csv", ".tsv", ".log", ".html", ".htm")
_MAX_DEPTH = 8
_MAX_STREAM = 64 * 1024 * 1024
# [MS-OXRTFCP]: what the dictionary of a compressed body holds at first.
_RTF_DICTIONARY = (
    b"{\\rtf1\\ansi\\mac\\deff0\\deftab720{\\fonttbl;}{\\f0\\fnil \\froman \\fswiss \\fmodern \\fscript \\fdecor MS Sans SerifSymbol"
    b"ArialTimes New RomanCourier{\\colortbl\\red0\\green0\\blue0\r\n\\par \\pard\\plain\\f0\\fs20\\b\\i\\u\\tab\\tx"
)


class OutlookReader(InMemoryReader):
    """Messages as Outlook saves them."""

    name = "outlook"

    def __init__(self, source: Source, password: str) -> None:
        import olefile

        self._pages: list[Content] = []
        self._truncated = False
        with olefile.OleFileIO(source) as container:
            self._container = container
            self._streams = {"/".join(path) for path in container.listdir()}
            self._storages = ["/".join(path) for path in container.listdir(streams=False, storages=True)]
            if "__properties_version1.0" not in self._streams:
                raise ReadError("unreadable", "outlook: the file has no message")
            subject = self._text("", _SUBJECT)
            self._add_message("", 0)
        if self._truncated:
            self._pages[0] = replace(self._pages[0], fault="; ".join(filter(None, [self._pages[0].fault, "is truncated"])))
        super().__init__(self._pages, " ".join(subject.split()))

    def _add_message(self, folder: str, depth: int) -> None:
        builder = TextBuilder()
        if depth:
            builder.add_heading(1, f"Forwarded message: {self._text(folder, _SUBJECT)}")
        addresses = (self._text(folder, _SMTP) or self._text(folder, _ADDRESS)).strip()
        sender = self._text(folder, _FROM).strip()
        shown = f" <{addresses}>" if "@" in addresses and addresses != sender else ""
        for header, value in (
            ("From", sender + shown),
            ("To", self._text(folder, _TO)),
            ("Cc", self._text(folder, _CC)),
            ("Date", self._date(folder)),
            ("Subject", self._text(folder, _SUBJECT)),
        ):
            if value.strip("\0 "):
                builder.add_line(f"{header}: {value}")
        builder.add_text("\n")
        attachments = dict(self._attachments(folder))
        pictures = {
            # Those of icons are "": OCR would find no word in them.
            place: "" if is_icon(self._bytes(place, f"{_DATA}0102")) else f"{place}{name.replace('/', '_')}"
            for place, name in attachments.items()
            if name.lower().endswith(PICTURE_SUFFIXES)
        }
        self._add_body(builder, folder, {f"cid:{self._text(place, _CONTENT_ID)}": name for place, name in pictures.items()})
        later: list[Content] = []
        unread: list[str] = []
        inner = []
        for place, name in attachments.items():
            message = f"{place}__substg1.0_{_DATA}000D"
            if message in self._storages and f"{message}/__properties_version1.0" in self._streams and depth < _MAX_DEPTH:
                inner.append(f"{message}/")
            elif name.lower().endswith(_TEXT_SUFFIXES):
                later += self._text_attachment(place, name)
            elif place not in pictures:
                unread.append(name)
            elif picture := pictures[place]:
                builder.add_picture(picture)
        if unread:
            listed = ", ".join(unread[:20]) + (" …" if len(unread) > 20 else "")
            builder.add_fault(f"has attachments that were not read: {listed}")
        self._pages += [*builder.build_pages(), *later]
        for message in inner:
            self._add_message(message, depth + 1)

    def _attachments(self, folder: str) -> Iterator[tuple[str, str]]:
        """Where each attachment of a message is in the file, and its name."""
        for storage in self._storages:
            if storage.startswith(f"{folder}__attach_version1.0_") and "/" not in storage[len(folder) :]:
                place = f"{storage}/"
                name = (
                    self._text(place, _LONG_NAME) or self._text(place, _NAME) or self._text(place, _DISPLAY_NAME) or "attachment"
                )
                yield place, " ".join(name.split())[:100]

    def _add_body(self, builder: TextBuilder, folder: str, pictures: Mapping[str, str]) -> None:
        plain = self._text(folder, _BODY)
        page = self._bytes(folder, f"{_HTML}0102") or self._text(folder, _HTML).encode()
        rich = TextBuilder()
        root = parse_html(page, label=self._code_page(folder)) if page.strip(b"\0 \r\n") else None
        if root is not None:
            add_markup(rich, root, pictures)
        page_content = rich.build_pages(size=max(1, rich.length))[0]
        if not rich.blank and html_says_more(plain, page_content.text):
            builder.add_content(page_content)
        elif plain.strip() or not self._bytes(folder, f"{_RTF}0102"):
            builder.add_line(repair_controls(plain))
            builder.add_text(missing_lines(plain, page_content.text))
        else:
            packed = decompress_rtf(self._bytes(folder, f"{_RTF}0102"))
            inner = RtfReader(io.BytesIO(packed), "")
            for number in range(1, inner.pages + 1):
                builder.add_content(inner.read_page(number))

    def _text_attachment(self, folder: str, name: str) -> list[Content]:
        builder = TextBuilder()
        builder.add_heading(1, name)
        data = self._bytes(folder, f"{_DATA}0102")
        root = parse_html(data) if name.lower().endswith((".html", ".htm")) else None
        if root is not None:
            add_markup(builder, root)
        else:
            builder.add_line(decode_declared(data, ""))
        return builder.build_pages()

    def _bytes(self, folder: str, tag: str) -> bytes:
        path = f"{folder}__substg1.0_{tag}"
        if path not in self._streams:
            return b""
        with self._container.openstream(path) as stream:
            data: bytes = stream.read(_MAX_STREAM)
        # The library returns what there is of a stream whose end is missing.
        self._truncated = self._truncated or len(data) < min(self._container.get_size(path), _MAX_STREAM)
        return data

    def _text(self, folder: str, tag: str) -> str:
        wide = self._bytes(folder, f"{tag}001F")
        if wide:
            return wide.decode("utf-16-le", "replace").rstrip("\0")
        narrow = self._bytes(folder, f"{tag}001E").rstrip(b"\0")
        return decode_declared(narrow, self._code_page(folder)) if narrow else ""

    def _properties(self, folder: str) -> dict[int, bytes]:
        """The properties of fixed length, by their numbers and types."""
        path = f"{folder}__properties_version1.0"
        if path not in self._streams:
            return {}
        with self._container.openstream(path) as stream:
            data = stream.read(_MAX_STREAM)
        start = 24 if folder else 32  # of the entries: the header of the outermost message is longer
        entries = (data[at : at + 16] for at in range(start, len(data) - 15, 16))
        return {int.from_bytes(entry[:4], "little"): entry[8:] for entry in entries}

    def _code_page(self, folder: str) -> str:
        properties = self._properties(folder if folder.endswith("000D/") else "")
        for number in _CODE_PAGES:
            page = int.from_bytes(properties.get(number, b"")[:4], "little")
            if page:
                return {65001: "utf-8", 20127: "ascii", 28591: "iso-8859-1"}.get(page, f"cp{page}")
        return ""

    def _date(self, folder: str) -> str:
        properties = self._properties(folder)
        value: Any = properties.get(_SENT) or properties.get(_DELIVERED) or b""
        ticks = int.from_bytes(value[:8], "little") // 10
        if not 0 < ticks < 300_000_000_000_000_000:
            return ""
        return (datetime(1601, 1, 1, tzinfo=UTC) + timedelta(microseconds=ticks)).strftime("%Y-%m-%d %H:%M UTC")


def open_attachment(container: Any, picture: str) -> Any:
    """The bytes of an attached picture as a stream, by the name that ``OutlookReader`` gives it."""
    return container.openstream(f"{picture.rpartition('/')[0]}/__substg1.0_{_DATA}0102")


def decompress_rtf(data: bytes) -> bytes:
    """A body in RTF from its compressed form ([MS-OXRTFCP])."""
    if data[8:12] == b"MELA":
        return data[16:]
    size = min(int.from_bytes(data[4:8], "little"), _MAX_STREAM)
    window, output, at = bytearray(_RTF_DICTIONARY.ljust(4096, b"\0")), bytearray(), 16
    place = len(_RTF_DICTIONARY)
    while at < len(data) and len(output) < size:
        flags = data[at]
        at += 1
        for bit in range(8):
            if flags >> bit & 1:
                pair = int.from_bytes(data[at : at + 2], "big")
                at += 2
                start, count = pair >> 4, (pair & 15) + 2
                if start == place or at > len(data):
                    return bytes(output)
                piece = bytearray()
                for step in range(count):
                    byte = window[(start + step) % 4096]
                    piece.append(byte)
                    window[place] = byte
                    place = (place + 1) % 4096
                output += piece
            elif at < len(data):
                window[place] = data[at]
                output.append(data[at])
                place = (place + 1) % 4096
                at += 1
    return bytes(output)
