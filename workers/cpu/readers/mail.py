"""E-mail reader: the first page is the message with its headers, and each text attachment begins another page.

Attachments of other types are listed as a fault of the first page and not read.
"""

from collections.abc import Sequence
from email.message import EmailMessage, MIMEPart
from email.parser import BytesParser
from email.policy import EmailPolicy

from workers.cpu.readers.markup import add_markup, parse_html
from workers.cpu.readers.reader import Content, InMemoryReader, ReadError, Source, read_source
from workers.cpu.readers.text import decode
from workers.cpu.readers.text_builder import TextBuilder

_HEADERS = ("From", "To", "Cc", "Date", "Subject")
_MAX_PARTS = 1000
_MAX_HEADER_CHARACTERS = 4000


class _ShortHeaders(EmailPolicy):
    """Cuts long headers: the library takes quadratic time for a list of addresses or parameters."""

    def header_source_parse(self, sourcelines: Sequence[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(list(sourcelines))
        return name, value[:_MAX_HEADER_CHARACTERS]


def _parse(data: bytes) -> EmailMessage:
    message = BytesParser(EmailMessage, policy=_ShortHeaders()).parsebytes(data)
    assert isinstance(message, EmailMessage)
    return message


def _header(message: EmailMessage, name: str) -> str:
    """The decoded value of a header or, if it is invalid, its text."""
    try:
        return str(message.get(name) or "")
    except Exception:  # noqa: BLE001 - the library's parser raises IndexError, RecursionError and others
        return next((str(value) for key, value in message.raw_items() if key.lower() == name.lower()), "")


class MailReader(InMemoryReader):
    """A message as sent (RFC 5322), with MIME parts."""

    name = "e-mail"

    def __init__(self, source: Source, password: str) -> None:
        message = _parse(read_source(source))
        first = TextBuilder()
        for name in _HEADERS:
            value = _header(message, name)
            if value:
                first.add_line(f"{name}: {value}")
        first.add_text("\n")
        subject = " ".join(_header(message, "Subject").split())
        body = message.get_body(preferencelist=("plain", "html"))
        if body is not None:
            _add_part(first, body)
        unread: list[str] = []
        attachments: list[Content] = []
        for number, part in enumerate(message.walk()):
            if number > _MAX_PARTS:
                unread.append(f"everything after part {_MAX_PARTS}")
                break
            if part is message or part is body or part.is_multipart():
                continue
            name = " ".join(str(part.get_filename() or part.get_content_type()).split())[:100]
            if part.get_content_maintype() == "text" and part.get_filename():
                builder = TextBuilder()
                builder.add_heading(1, name)
                _add_part(builder, part)
                attachments += builder.build_pages()
            elif part.get_filename() or part.get_content_maintype() != "text":
                unread.append(name)
        if unread:
            first.fault = f"has attachments that were not read: {', '.join(unread[:20])}" + (" …" if len(unread) > 20 else "")
        super().__init__([*first.build_pages(), *attachments], subject)


def _add_part(builder: TextBuilder, part: MIMEPart) -> None:
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return
    if part.get_content_subtype() == "html":
        root = parse_html(data)
        if root is not None:
            add_markup(builder, root)
        return
    try:
        builder.add_text(decode(data, part.get_content_charset()))
    except ReadError:
        builder.add_text(data.decode("latin-1"))


class MhtmlReader(InMemoryReader):
    """A web page saved as one file (.mht, .mhtml): its HTML, without pictures and styles."""

    name = "mhtml"

    def __init__(self, source: Source, password: str) -> None:
        archive = _parse(read_source(source))
        builder = TextBuilder()
        page = archive.get_body(preferencelist=("html", "plain"))
        if page is not None:
            _add_part(builder, page)
        super().__init__(builder.build_pages(), " ".join(_header(archive, "Subject").split()))
