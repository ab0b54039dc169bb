"""E-mail: the first page is the letter with its headers; each text that is attached begins another.

Attachments of other kinds are named and not read.
"""

from email import policy
from email.message import EmailMessage, MIMEPart
from email.parser import BytesParser

from workers.cpu.readers.markup import add_markup, tree
from workers.cpu.readers.reader import Content, InMemoryReader, Source, TextBuilder, read_source
from workers.cpu.readers.text import decode

_SHOWN = ("From", "To", "Cc", "Date", "Subject")
_MOST_PARTS = 1000


class MailReader(InMemoryReader):
    """A letter as it was sent (RFC 5322), with MIME."""

    name = "e-mail"

    def __init__(self, source: Source, password: str) -> None:
        letter = BytesParser(EmailMessage, policy=policy.default).parsebytes(read_source(source))
        first = TextBuilder()
        for name in _SHOWN:
            value = letter.get(name)
            if value:
                first.line(f"{name}: {value}")
        first.add("\n")
        subject = " ".join(str(letter.get("Subject") or "").split())
        chosen = letter.get_body(preferencelist=("plain", "html"))
        if chosen is not None:
            _add_part(first, chosen)
        unread: list[str] = []
        further: list[Content] = []
        for number, part in enumerate(letter.walk()):
            if number > _MOST_PARTS:
                unread.append(f"all that comes after part {_MOST_PARTS}")
                break
            if part is letter or part is chosen or part.is_multipart():
                continue
            name = " ".join(str(part.get_filename() or part.get_content_type()).split())[:100]
            if part.get_content_maintype() == "text" and part.get_filename():
                builder = TextBuilder()
                builder.heading(1, name)
                _add_part(builder, part)
                further += builder.pages()
            elif part.get_filename() or part.get_content_maintype() != "text":
                unread.append(name)
        if unread:
            first.fault = f"attached and not read: {', '.join(unread[:20])}" + (" …" if len(unread) > 20 else "")
        super().__init__([*first.pages(), *further], subject)


def _add_part(builder: TextBuilder, part: MIMEPart) -> None:
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return
    if part.get_content_subtype() == "html":
        root = tree(data)
        if root is not None:
            add_markup(builder, root)
        return
    charset = part.get_content_charset()
    try:
        builder.add(data.decode(charset) if charset else decode(data))
    except (LookupError, UnicodeDecodeError):
        builder.add(data.decode("latin-1"))
