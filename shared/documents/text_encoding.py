"""In which encoding some bytes are text, if they are text at all."""

import codecs

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like UTF-16's, so it comes first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WHITE_SPACE = "\t\n\v\f\r\x1b"  # escape: terminal logs are text too
_LOOKED_AT = 64 * 1024


def encoding(data: bytes, *, whole: bool = True) -> str | None:
    """The codec that reads ``data`` as text, or None when it is not text.

    ``whole`` is false when ``data`` is only the beginning, which may end in the middle of a character.
    """
    marked = [codec for mark, codec in _BYTE_ORDER_MARKS if data.startswith(mark)]
    if marked:
        return next((codec for codec in marked if _reads(data, codec, whole)), None)
    if b"\0" in data:
        return _wide_encoding(data, whole)
    return "utf-8" if _reads(data, "utf-8", whole) else _legacy_encoding(data, whole)


def _wide_encoding(data: bytes, whole: bool) -> str | None:
    """UTF-16 without a mark: every second byte of its Latin letters and spaces is zero, and always on the same side."""
    even, odd = data[::2].count(0), data[1::2].count(0)
    if min(even, odd) * 20 > max(even, odd) or max(even, odd) * 10 < len(data) // 2:
        return None
    codec = "utf-16-le" if odd > even else "utf-16-be"
    return codec if _reads(data, codec, whole) else None


def _legacy_encoding(data: bytes, whole: bool) -> str | None:
    # Imported only here: most text is UTF-8, and the API should not carry the tables of every code page.
    from charset_normalizer import from_bytes

    # Lines of plain ASCII say nothing about an encoding, and many of them drown those that do.
    telling = b"\n".join(line for line in data.splitlines() if not line.isascii())
    best = from_bytes(telling[:_LOOKED_AT]).best()
    return best.encoding if best is not None and _reads(data, best.encoding, whole) else None


def _reads(data: bytes, codec: str, whole: bool) -> bool:
    try:
        text = codecs.getincrementaldecoder(codec)().decode(data, whole)
    except UnicodeDecodeError:
        return False
    return not any(character < " " and character not in _WHITE_SPACE for character in text)
