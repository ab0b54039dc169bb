"""E-mail reader: the first page is the message with its headers. Each text attachment begins another page, and so does each
message that is attached or forwarded.

Images are noted where they are shown, for OCR. Attachments of other types are listed as a fault of the page of their message.
"""

import base64
import binascii
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import EmailMessage, Message
from email.parser import BytesParser
from email.policy import EmailPolicy
from functools import partial
from itertools import islice
from typing import Any

from workers.cpu.readers.alternatives import html_says_more, missing_lines
from workers.cpu.readers.charset import decode_declared, repair_controls
from workers.cpu.readers.markup import add_markup, parse_html
from workers.cpu.readers.picture import MAX_ICON_BYTES, is_icon
from workers.cpu.readers.reader import PICTURE_SUFFIXES, Content, InMemoryReader, Source, read_source
from workers.cpu.readers.rtf import RtfReader
from workers.cpu.readers.text_builder import TextBuilder, clean_text

_HEADERS = ("From", "Reply-To", "To", "Cc", "Bcc", "Date", "Subject")
_MAX_REPEATED_HEADERS = 20
_MAX_PARTS = 1000
_MAX_HEADER_CHARACTERS = 4000
_MAX_PARAMETER_CHARACTERS = 1000  # parsed again each time that the type or the name of a part is needed
_MAX_FORWARDED = 20
_PREAMBLE = re.compile(r"MIME|multi-?part", re.IGNORECASE)  # what programs write there for programs before 1996
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=]")
_UNUSUAL = ("text/x-amp-html", "text/watch-html", "text/enriched")
_TEXT_SUFFIXES = (".txt", ".md", ".csv", ".tsv", ".log", ".html", ".htm", ".ics", ".vcf")
_CALENDAR = {"SUMMARY": "Event", "DTSTART": "Start", "DTEND": "End", "LOCATION": "Location", "DESCRIPTION": "Description"}
_CALENDAR |= {"ORGANIZER": "Organizer", "ATTENDEE": "Attendee", "RRULE": "Repeats", "STATUS": "Status", "DUE": "Due"}
_CALENDAR |= {"COMMENT": "Comment", "CONTACT": "Contact", "CATEGORIES": "Categories", "RESOURCES": "Resources", "URL": "Address"}
_NOT_PICTURES = ("image/svg+xml", "image/emf", "image/wmf", "image/x-emf", "image/x-wmf")
_CALLED = re.compile(r";CN=(?:\"([^\"]+)\"|([^;:\"]+))", re.IGNORECASE)


class _ShortHeaders(EmailPolicy):
    """Cuts long headers: the library takes quadratic time for a list of addresses or parameters."""

    def header_source_parse(self, sourcelines: Sequence[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(list(sourcelines))
        limit = _MAX_PARAMETER_CHARACTERS if name.lower().startswith("content-") else _MAX_HEADER_CHARACTERS
        return name, value if len(value) <= limit else f"{value[:limit]} …"


def _parse(data: bytes) -> EmailMessage:
    message = BytesParser(EmailMessage, policy=_ShortHeaders()).parsebytes(data)
    assert isinstance(message, EmailMessage)
    return message


def _header(message: Message, name: str) -> str:
    """The decoded values of a header, which may be there more than once."""
    values = (str(value) for key, value in message.raw_items() if key.lower() == name.lower())
    return ", ".join(dict.fromkeys(_header_value(message, name, raw) for raw in islice(values, _MAX_REPEATED_HEADERS)))


def _header_value(message: Message, name: str, raw: str) -> str:
    """A decoded value or, if it is invalid, its text."""
    try:
        value = str(message.policy.header_fetch_parse(name, raw))
    except Exception:  # noqa: BLE001 - the library's parser raises IndexError, RecursionError and others
        value = ""
    if "\N{REPLACEMENT CHARACTER}" in value and "=?" in raw:
        # The library takes labels literally: it does not know that gb2312 stands for GB 18030.
        value = _decoded_words(raw)
    if not value or (not raw.isascii() and "=?" not in raw):
        # Many writers put text in UTF-8 or their own encoding where only ASCII is allowed.
        value = decode_declared(raw.encode("utf-8", "surrogateescape"), "utf-8")
    return " ".join(repair_controls(value).split())


def _decoded_words(raw: str) -> str:
    try:
        pieces = decode_header(raw)
    except (HeaderParseError, ValueError):
        return raw
    return "".join(piece if isinstance(piece, str) else decode_declared(piece, label or "utf-8") for piece, label in pieces)


class MailReader(InMemoryReader):
    """A message as sent (RFC 5322), with MIME parts."""

    name = "e-mail"

    def __init__(self, source: Source, password: str) -> None:
        message = _parse(read_source(source))
        self._parts = self._forwarded = 0
        parts = list(_all_parts(message))
        # Those of icons are "": OCR would find no word in them.
        self._pictures = {
            id(part): "" if _is_icon(part) else f"{number}/{_picture_name(part)}"
            for number, part in enumerate(parts)
            if _is_picture(part)
        }
        self._pictures_by_address = {
            f"cid:{_content_id(part)}": self._pictures[id(part)] for part in parts if id(part) in self._pictures
        }
        self._pages: list[Content] = []
        self._add_message(message, "")
        super().__init__(self._pages, _header(message, "Subject"))

    def _add_message(self, message: Message, title: str) -> None:
        builder = TextBuilder()
        if title:
            builder.add_heading(1, f"Forwarded message: {title}")
        for name in _HEADERS:
            value = _header(message, name)
            if value:
                builder.add_line(f"{name}: {value}")
        builder.add_text("\n")
        preamble = message.preamble if isinstance(message.preamble, str) else ""
        if preamble.strip() and not _PREAMBLE.search(preamble):
            builder.add_line(preamble)
        unread: list[str] = []
        later: list[tuple[str, Message]] = []
        for part in self._parts_of(message, unread):
            name = part_name(part)
            if part.get_content_type() == "message/rfc822":
                later.append((name, part))
            elif id(part) in self._pictures:
                if picture := self._pictures[id(part)]:
                    builder.add_picture(picture)
            elif not _is_text(part, name):
                unread.append(name)
            elif part is not message and (part.get_filename() or part.get_content_disposition() == "attachment"):
                later.append((name, part))
            else:
                _add_part(builder, part, self._pictures_by_address)
                builder.add_text("\n")
        if isinstance(message.epilogue, str) and message.epilogue.strip():
            builder.add_line(message.epilogue)  # mailing lists put notes after the last part
        if unread:
            listed = ", ".join(unread[:20]) + (" …" if len(unread) > 20 else "")
            builder.add_fault(f"has attachments that were not read: {listed}")
        self._pages += builder.build_pages()
        for name, part in later:
            self._add_attachment(name, part)

    def _add_attachment(self, name: str, part: Message) -> None:
        if part.get_content_type() == "message/rfc822":
            inner = part.get_payload(0) if part.is_multipart() else None
            self._forwarded += 1
            if isinstance(inner, Message) and not inner.keys():
                inner = _decoded_message(inner, part)
            if isinstance(inner, Message) and self._forwarded <= _MAX_FORWARDED:
                self._add_message(inner, _header(inner, "Subject") or name)
                return
        builder = TextBuilder()
        builder.add_heading(1, name)
        if part.get_content_type() == "message/rfc822":
            builder.add_fault("has a forwarded message that was not read")
        else:
            _add_part(builder, part)
        self._pages += builder.build_pages()

    def _parts_of(self, part: Message, unread: list[str]) -> Iterator[Message]:
        """The parts of a message in order, with one of the alternatives of the same text. Messages inside are not entered."""
        pending = [part]
        while pending:
            part = pending.pop()
            self._parts += 1
            if self._parts > _MAX_PARTS:
                unread.append(f"everything after part {_MAX_PARTS}")
                return
            payload: Any = part.get_payload()
            if part.get_content_maintype() == "message" or not isinstance(payload, list):
                yield part
            elif part.get_content_type() == "multipart/alternative":
                pending += reversed(_best_alternatives(payload))
            else:
                pending += reversed(payload)


def _all_parts(message: Message) -> Iterator[Message]:
    """The parts of a message and of the messages inside it, in the order of the file, up to the limit."""
    pending, count = [message], 0
    while pending and count < _MAX_PARTS:
        count += 1
        part = pending.pop()
        yield part
        payload: Any = part.get_payload()
        if isinstance(payload, list):
            pending += reversed(payload)


def read_pictures(data: bytes) -> Mapping[str, Callable[[], bytes]]:
    """The pictures in a message, by the names that ``MailReader`` gives them."""
    parts = enumerate(_all_parts(_parse(data)))
    return {f"{number}/{_picture_name(part)}": partial(_part_data, part) for number, part in parts if _is_picture(part)}


def _is_picture(part: Message) -> bool:
    kind = part.get_content_type()
    if kind in _NOT_PICTURES or isinstance(part.get_payload(), list):
        return False
    return part.get_content_maintype() == "image" or (
        kind == "application/octet-stream" and part_name(part).lower().endswith(PICTURE_SUFFIXES)
    )


def _is_icon(part: Message) -> bool:
    encoded = part.get_payload()
    return isinstance(encoded, str) and len(encoded) <= 2 * MAX_ICON_BYTES and is_icon(_part_data(part))


def _picture_name(part: Message) -> str:
    return clean_text(part_name(part)).replace("/", "_")


def _content_id(part: Message) -> str:
    raw = next((str(value) for key, value in part.raw_items() if key.lower() == "content-id"), "")
    return raw.strip().strip("<>")


def _decoded_message(inner: Message, part: Message) -> Message:
    """A forwarded message that was encoded as a whole, which the standard forbids and programs do."""
    wrapper = EmailMessage()
    wrapper["Content-Transfer-Encoding"] = str(part.get("Content-Transfer-Encoding") or "7bit")
    payload = inner.get_payload()
    wrapper.set_payload(payload if isinstance(payload, str) else "")
    data = wrapper.get_payload(decode=True)
    return _parse(data) if isinstance(data, bytes) else inner


def part_name(part: Message) -> str:
    try:
        name = part.get_filename()
    except Exception:  # noqa: BLE001 - the library's parser of parameters raises many things
        name = None
    return " ".join(str(name or part.get_content_type()).split())[:100]


def _is_text(part: Message, name: str) -> bool:
    kind = part.get_content_type()
    return (
        part.get_content_maintype() in ("text", "multipart")
        or kind in ("message/delivery-status", "message/disposition-notification", "application/ics", "application/rtf")
        or (kind == "application/octet-stream" and name.lower().endswith(_TEXT_SUFFIXES))
    )


def _best_alternatives(parts: list[Any]) -> list[Any]:
    """The HTML if that says much more, else the plain text with the lines of the HTML that have other words; and every part that
    is neither, such as an invitation."""
    parts = [part for part in parts if part.get_content_type() not in _UNUSUAL] or parts
    plain = next((part for part in parts if part.get_content_type() == "text/plain"), None)
    rich = next((part for part in reversed(parts) if _rich_part(part) is not None), None)
    if plain is None or rich is None:
        return list(parts)
    html = _rich_part(rich)
    texts = [_part_text(part) for part in (plain, html)]
    if html_says_more(*texts):
        return [part for part in parts if part is not plain]
    kept = [part for part in parts if part is not rich]
    if missing := missing_lines(*texts):
        kept.insert(kept.index(plain) + 1, _plain_part(missing))
    return kept + list(_attachments_in(rich))


def _plain_part(text: str) -> Message:
    part = EmailMessage()
    part["Content-Type"] = "text/plain; charset=utf-8"
    part["Content-Transfer-Encoding"] = "base64"
    part.set_payload(base64.b64encode(text.encode()).decode())
    return part


def _attachments_in(part: Any) -> Iterator[Message]:
    """Files packed together with an alternative that is left out."""
    pending = [part]
    while pending:
        part = pending.pop()
        payload = part.get_payload()
        if isinstance(payload, list) and part.get_content_maintype() == "multipart":
            pending += reversed(payload)
        elif part.get_content_disposition() == "attachment" or part.get_content_maintype() != "text":
            yield part


def _rich_part(part: Any) -> Any:
    """The HTML of an alternative, which may be packed together with its images."""
    if part.get_content_type() == "text/html":
        return part
    if part.get_content_type() in ("multipart/related", "multipart/mixed") and isinstance(part.get_payload(), list):
        return next((inner for inner in part.get_payload() if inner.get_content_type() == "text/html"), None)
    return None


def _part_text(part: Any) -> str:
    builder = TextBuilder()
    _add_part(builder, part)
    return "".join(content.text for content in builder.build_pages())


def _part_data(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    raw = part.get_payload()
    if isinstance(raw, str) and str(part.get("Content-Transfer-Encoding") or "").strip().lower() == "base64":
        return _decoded_base64(raw)
    if isinstance(payload, bytes):
        return payload
    # a multipart message without parts, or the fields of a delivery report
    return str(raw if isinstance(raw, str) else "\n".join(map(str, raw or ()))).encode("utf-8", "surrogateescape")


def _add_part(builder: TextBuilder, part: Message, pictures: Mapping[str, str] | None = None) -> None:
    data = _part_data(part)
    kind, name = part.get_content_type(), part_name(part).lower()
    charset = part.get_content_charset() or ""
    if kind == "text/html" or name.endswith((".html", ".htm")):
        root = parse_html(data, label=charset)
        if root is not None:
            add_markup(builder, root, pictures)
    elif kind in ("text/rtf", "text/richtext", "application/rtf") and data.lstrip().startswith(b"{\\rtf"):
        rich = RtfReader(io.BytesIO(data), "")
        for number in range(1, rich.pages + 1):
            builder.add_content(rich.read_page(number))
    elif kind in ("text/calendar", "application/ics") or name.endswith(".ics"):
        add_calendar(builder, decode_declared(data, charset))
    else:
        builder.add_line(repair_controls(decode_declared(data, charset)))


def _decoded_base64(text: str) -> bytes:
    """The bytes of base64 that may be damaged, cut, of several pieces, or followed by plain text, as mailing lists add it."""
    pieces: list[str] = []
    ended = blank = False
    lines = text.splitlines()
    for number, line in enumerate(lines):
        line = line.strip()
        spaced, foreign = len(line.split()) > 1, _NOT_BASE64.search("".join(line.split())) is not None
        if (spaced and foreign) or ((ended or blank) and (spaced or foreign)):
            after = "\n".join(["", *lines[number:]])
            return _decoded_pieces("".join(pieces)) + after.encode("utf-8", "surrogateescape")
        ended = line.endswith("=") or (ended and not line)
        blank = not line and number > 0
        pieces.append(_NOT_BASE64.sub("", line))
    return _decoded_pieces("".join(pieces))


def _decoded_pieces(text: str) -> bytes:
    """Each piece ends with its padding. Of four letters, one alone says nothing."""
    pieces = (piece[: len(piece) - (len(piece) % 4 == 1)] for piece in text.split("="))
    return b"".join(binascii.a2b_base64(piece + "=" * (-len(piece) % 4)) for piece in pieces if piece)


def add_calendar(builder: TextBuilder, text: str) -> None:
    """Add the events of a calendar (RFC 5545)."""
    unfolded = text.replace("\r\n", "\n").replace("\n ", "").replace("\n\t", "")
    for line in unfolded.split("\n"):
        name, value = _property(line)
        label = _CALENDAR.get(name.partition(";")[0].upper())
        called = _CALLED.search(name)
        if called and (called[1] or called[2]) not in value:
            value = f"{called[1] or called[2]} <{value.removeprefix('mailto:').removeprefix('MAILTO:')}>"
        if label and value.strip():
            value = value.replace("\\n", "\n").replace("\\N", "\n").replace("\\,", ",").replace("\\;", ";")
            builder.add_line(f"{label}: {value.removeprefix('mailto:').removeprefix('MAILTO:')}")


def _property(line: str) -> tuple[str, str]:
    """The name of a property with its parameters, which may have colons in quotes, and its value."""
    start = 0
    while (colon := line.find(":", start)) >= 0:
        if line.count('"', start, colon) % 2 == 0:
            return line[:colon], line[colon + 1 :]
        quote = line.find('"', colon)
        if quote < 0:
            break
        start = quote + 1
    name, _, value = line.partition(":")
    return name, value


class MhtmlReader(InMemoryReader):
    """A web page saved as one file (.mht, .mhtml): its HTML, without pictures and styles."""

    name = "mhtml"

    def __init__(self, source: Source, password: str) -> None:
        archive = _parse(read_source(source))
        builder = TextBuilder()
        pages = [part for part in archive.walk() if part.get_content_type() in ("text/html", "application/xhtml+xml")]
        page = next(iter(pages), None) or archive.get_body(preferencelist=("html", "plain"))
        if page is not None:
            _add_part(builder, page)
        if len(pages) > 1:
            builder.skip("embedded pages")
        super().__init__(builder.build_pages(), _header(archive, "Subject"))
