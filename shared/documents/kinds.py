"""What kind of file a document is, judged by its content; its name is only a name.

Tells PDF, text and the rest apart. Opens no PDF.
"""

import codecs
from pathlib import Path
from typing import Literal

MediaType = Literal["application/pdf", "text/plain", "application/octet-stream"]

PDF: MediaType = "application/pdf"
TEXT: MediaType = "text/plain"
UNSUPPORTED: MediaType = "application/octet-stream"

SUPPORTED = "PDF and plain text (UTF-8, UTF-16 with a byte order mark, or a common 8-bit or East Asian encoding)"

HEAD = 64 * 1024
"""Bytes looked at: what a file is shows at its beginning."""

_BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_WHITE_SPACE = "\t\n\v\f\r\x1b"  # escape: terminal logs are text too


def media_type(path: Path) -> MediaType:
    """The kind of the file at ``path``; an empty file is text."""
    with path.open("rb") as source:
        head = source.read(HEAD)
    if b"%PDF-" in head[:1024]:  # readers accept a PDF that begins with up to 1 kB of something else
        return PDF
    return TEXT if encoding(head, whole=len(head) < HEAD) is not None else UNSUPPORTED


def encoding(data: bytes, *, whole: bool = True) -> str | None:
    """The codec that reads ``data`` as text, or None when it is not text.

    ``whole`` is false when ``data`` is only the beginning, which may end in the middle of a character.
    """
    for mark, codec in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return codec if _reads(data, codec, whole) else None
    if b"\0" in data:
        return None
    return "utf-8" if _reads(data, "utf-8", whole) else _legacy_encoding(data, whole)


def _legacy_encoding(data: bytes, whole: bool) -> str | None:
    # Imported only here: most text is UTF-8, and the API should not carry the tables of every code page.
    from charset_normalizer import from_bytes

    # Lines of plain ASCII say nothing about an encoding, and many of them drown those that do.
    telling = b"\n".join(line for line in data.splitlines() if not line.isascii())
    best = from_bytes(telling[:HEAD]).best()
    return best.encoding if best is not None and _reads(data, best.encoding, whole) else None


def _reads(data: bytes, codec: str, whole: bool) -> bool:
    try:
        text = codecs.getincrementaldecoder(codec)().decode(data, whole)
    except UnicodeDecodeError:
        return False
    return not any(character < " " and character not in _WHITE_SPACE for character in text)
