"""Text encoding detection: the codec of some bytes, or None if they are not text.

``detect_unicode`` and ``is_plain_text`` take linear time. Guessing a legacy encoding does not, so only sandboxed processes call
``detect_encoding``.
"""

import codecs

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # starts with the UTF-16 mark, so it is tested first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WHITE_SPACE = "\t\n\v\f\r\x1b"  # includes escape, because terminal logs are text too
_CONTROL_BYTES = bytes(code for code in range(32) if chr(code) not in _WHITE_SPACE)
_SAMPLE_BYTES = 64 * 1024


def detect_encoding(data: bytes, *, whole: bool = True) -> str | None:
    """The codec that decodes ``data``, Unicode or a legacy one, or None if it is not text.

    Pass ``whole=False`` if ``data`` is only the beginning of a file and may end in the middle of a character.
    """
    codec = detect_unicode(data, whole=whole)
    return codec or (_legacy_encoding(data, whole) if is_plain_text(data) else None)


def detect_unicode(data: bytes, *, whole: bool = True) -> str | None:
    """The Unicode codec that decodes ``data``, or None. For ``whole`` see ``detect_encoding``."""
    marked = [codec for mark, codec in _BYTE_ORDER_MARKS if data.startswith(mark)]
    if marked:
        return next((codec for codec in marked if _decodes(data, codec, whole)), None)
    if b"\0" in data:
        return _wide_encoding(data, whole)
    return "utf-8" if _decodes(data, "utf-8", whole) else None


def is_plain_text(data: bytes) -> bool:
    """Whether ``data`` may be text in a legacy encoding: it has no byte order mark and no control characters."""
    marked = any(data.startswith(mark) for mark, _ in _BYTE_ORDER_MARKS)
    return not marked and len(data.translate(None, _CONTROL_BYTES)) == len(data)


def _wide_encoding(data: bytes, whole: bool) -> str | None:
    """UTF-16 without a byte order mark: in Latin letters and spaces every second byte is zero, always on the same side."""
    even, odd = data[::2].count(0), data[1::2].count(0)
    if min(even, odd) * 20 > max(even, odd) or max(even, odd) * 10 < len(data) // 2:
        return None
    codec = "utf-16-le" if odd > even else "utf-16-be"
    return codec if _decodes(data, codec, whole) else None


def _legacy_encoding(data: bytes, whole: bool) -> str | None:
    from charset_normalizer import from_bytes

    # ASCII lines fit any encoding; many of them would hide the lines that decide.
    sample = b"\n".join(line for line in data.splitlines() if not line.isascii())
    best = from_bytes(sample[:_SAMPLE_BYTES]).best()
    return best.encoding if best is not None and _decodes(data, best.encoding, whole) else None


def _decodes(data: bytes, codec: str, whole: bool) -> bool:
    try:
        text = codecs.getincrementaldecoder(codec)().decode(data, whole)
    except UnicodeDecodeError:
        return False
    return not any(character < " " and character not in _WHITE_SPACE for character in text)
