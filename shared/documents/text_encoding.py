"""Text encodings: what some bytes are, and their text with as little lost as possible.

Unicode comes first, because a legacy encoding can be mistaken for another but hardly ever for UTF-8. A file that is Unicode except
for a few bytes loses those bytes only. What is not Unicode is in a legacy encoding, and that has to be guessed.

``detect_unicode`` and ``is_plain_text`` take linear time and import nothing, so the API can use them on untrusted files. Only
sandboxed processes call ``decode_text``: it guesses from a bounded sample, and holds a whole file to the guess.
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # starts with the UTF-16 mark, so it is tested first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

# Controls that texts contain: bell and backspace, white space, shifts of ISO-2022 encodings, the end mark of DOS, and escape.
_TEXT_CONTROLS = "\a\b\t\n\v\f\r\x0e\x0f\x1a\x1b"
_BINARY_CONTROLS = bytes(code for code in range(32) if chr(code) not in _TEXT_CONTROLS)
_ASCII = bytes(range(128))
_PRINTABLE = bytes(range(32, 127))
_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_MAX_CONTROL_SHARE = 0.01

# Most characters of a text are of these blocks; those of other data, read as UTF-16, are of all blocks.
_COMMON = re.compile(
    "[\t\n\r -~\u00a0-\u052f\u0590-\u06ff\u0900-\u097f\u0e00-\u0e7f\u2010-\u2026\u20ac\u3000-\u30ff\u4e00-\u9fff\uac00-\ud7a3\uff01-\uff9f]+"
)
_MIN_COMMON_SHARE = 0.9

_SAMPLE_BYTES = 64 * 1024
_SAMPLE_PLACES = 16
_CONTEXT_BYTES = 256
_PLAUSIBILITY_CHARACTERS = 4000
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_BOUNDARY = re.compile(rb"[\t-/]")
_NOT_BOUNDARIES = bytes(code for code in range(256) if not _BOUNDARY.match(bytes([code])))
_ESCAPED = ((re.compile(rb"\x1b[$(]"), "iso2022_jp_2"), (re.compile(rb"\x1b\$\)C"), "iso2022_kr"))

OF_PAIRS = frozenset(["big5hkscs", "gb18030", "cp932", "euc-jp", "cp949"])
_WEB = [
    "cp1250",
    "cp1251",
    "cp1252",
    "cp1253",
    "cp1254",
    "cp1255",
    "cp1256",
    "cp1257",
    "iso8859-1",
    "iso8859-2",
    "koi8-r",
    "koi8-u",
    "cp874",
    "tis-620",
    "big5hkscs",
    "gb18030",
    "cp932",
    "shift_jis_2004",
    "euc_jis_2004",
    "cp949",
    "euc_kr",
]
_RARE = [
    "cp437",
    "cp850",
    "cp852",
    "cp866",
    "iso8859-5",
    "iso8859-7",
    "iso8859-8",
    "iso8859-9",
    "iso8859-15",
    "iso8859-16",
    "mac-cyrillic",
    "mac-roman",
]

_SURE_OF_WEB, _SURE_OF_RARE = 0.03, 0.12
"""Confidences of chardet below which a choice is no better than chance, for common encodings and for rare ones."""

# What is decoded instead, as the Encoding Standard of the WHATWG says: the name of a subset is used for its superset.
_SUPERSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "shift-jis": "cp932",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc-kr": "cp949",
    "ksc5601": "cp949",
    "shift-jis-2004": "cp932",
    "euc-jis-2004": "euc-jp",
    "big5": "big5hkscs",
    "cp950": "big5hkscs",
}

# Labels that Python does not know, or takes for a smaller encoding.
_ALIASES = {
    "ansi": "cp1252",
    "x-ansi": "cp1252",
    "cn-big5": "big5",
    "x-x-big5": "big5",
    "cn-gb": "gbk",
    "windows-31j": "cp932",
    "koi8-ru": "koi8-u",
    "logical": "iso8859-8",
    "visual": "iso8859-8",
    "iso-8859-8-e": "iso8859-8",
    "iso-2022-jp": "iso2022_jp_2",
    "csiso2022jp": "iso2022_jp_2",
}
_NOT_FOR_TEXT = ("unicode-escape", "raw-unicode-escape", "punycode", "idna", "undefined")

# Letters of other scripts than Latin, and signs that do not stand between two letters.
_OTHER_SCRIPTS = "\u0370-\u052f\u0590-\u08ff\u0e00-\u0eff\ufb50-\ufdff\ufe70-\ufeff"
_MIXED_WORD = re.compile(f"[A-Za-z][{_OTHER_SCRIPTS}]|[{_OTHER_SCRIPTS}][A-Za-z]")
_OTHER_LETTERS = re.compile(f"[{_OTHER_SCRIPTS}]+")
_SIGN_IN_WORD = re.compile(
    "[^\\W\\d_][\u00a1-\u00a9\u00ac\u00ae-\u00b3\u00b5\u00b6\u00b8\u00b9\u00bc-\u00bf\u02b0-\u02ff\u2020\u2021\u2030\u2122\u2200-\u25ff](?=[^\\W\\d_])"
)
_NEVER_IN_TEXT = re.compile("[\x80-\x9f\u2500-\u257f\u2580-\u259f\ue000-\uf8ff\ufffd]")
_C1_CONTROL = re.compile("[\x80-\x84\x86-\x9f]")
_LEADING_MARK = re.compile("(?<![\u0e00-\u0eff])[\u0e31\u0e34-\u0e3a\u0e47-\u0e4e]")


@dataclass(frozen=True)
class DecodedText:
    """A text, the codec that it was in, and how many characters are replacements for bytes that this codec does not have."""

    text: str
    codec: str
    replaced: int = 0


def detect_unicode(data: bytes, *, whole: bool = True) -> str | None:
    """The Unicode codec that decodes ``data``, perhaps except for a few bytes, or None.

    Pass ``whole=False`` if ``data`` is only the beginning of a file and may end in the middle of a character.
    """
    if not whole:
        data = data[: len(data) // 4 * 4]
    for mark, codec in _BYTE_ORDER_MARKS:
        if data.startswith(mark) and _is_text(text := data.decode(codec, "replace"), text.count(_REPLACEMENT)):
            return codec
    if any(data.startswith(mark) for mark, _ in _BYTE_ORDER_MARKS):
        return None
    if b"\0" in data.rstrip(b"\0") and (wide := _wide_codec(data)):
        return wide
    return "utf-8" if _mostly_utf8(data) is not None else None


def is_plain_text(data: bytes) -> bool:
    """Whether ``data`` may be text in a legacy encoding: it has no byte order mark and no control characters."""
    marked = any(data.startswith(mark) for mark, _ in _BYTE_ORDER_MARKS)
    return not marked and len(data.translate(None, _BINARY_CONTROLS)) == len(data)


def decode_text(data: bytes) -> DecodedText | None:
    """The text of ``data`` in whatever encoding it is, or None if it is not text."""
    head = data[:_SAMPLE_BYTES]
    codec = detect_unicode(head, whole=len(head) == len(data))
    if codec not in (None, "utf-8"):
        text = data.decode(codec, "replace")
        return DecodedText(text, codec, text.count(_REPLACEMENT))
    for pattern, escaped in _ESCAPED if data.isascii() else ():
        if pattern.search(data):
            text = data.decode(escaped, "replace")
            replaced = text.count(_REPLACEMENT)
            if not text.isascii() and replaced * 50 <= len(text):
                return DecodedText(text, escaped, replaced)
    if (found := _mostly_utf8(data)) is not None:
        return found
    return _decode_legacy(data) if is_plain_text(head) else None


def standard_codec(label: str) -> str | None:
    """The codec that a label of an encoding stands for on the web, or None if the label is unknown.

    By the WHATWG's Encoding Standard, ``iso-8859-1`` and ``ascii`` stand for Windows-1252, for example.
    """
    name = label.strip().strip("\"'").lower()
    name = _ALIASES.get(name, name)
    for spelling in (name, name.removeprefix("x-"), name.replace("windows-", "cp"), name.removesuffix("-i")):
        try:
            codec = codecs.lookup(spelling).name.replace("_", "-")
        except (LookupError, ValueError):
            continue
        return None if codec in _NOT_FOR_TEXT else _SUPERSETS.get(codec, codec)
    return None


def decode_labelled(data: bytes, label: str | None) -> DecodedText | None:
    """The text of ``data``, whose sender says that it is encoded as ``label``. None if it is not text.

    The label is wrong if the bytes are UTF-8 all the same, or if many of them do not fit it.
    """
    codec = standard_codec(label) if label else None
    # UTF-16 shows what it is, and a label in a page that could be read as ASCII is wrong.
    if codec is None or codec.startswith(("utf-16", "utf-32")) or any(data.startswith(mark) for mark, _ in _BYTE_ORDER_MARKS):
        return decode_text(data)
    if not codec.startswith(("utf-7", "iso2022")):
        utf8 = _mostly_utf8(data)
        if utf8 is not None and (codec == "utf-8" or not data.isascii()):
            return utf8
    if codec == "utf-8":
        return decode_text(data)
    try:
        text = data.decode(codec, "replace")
    except (LookupError, ValueError):  # not a codec for text, such as base64
        return decode_text(data)
    replaced = text.count(_REPLACEMENT)
    return DecodedText(text, codec, replaced) if replaced * 50 <= len(text) else decode_text(data)


def _mostly_utf8(data: bytes) -> DecodedText | None:
    """UTF-8 in which a few bytes may be wrong. Two thirds of what is not ASCII must be right, as no legacy text is by chance.

    A last character that is cut counts as right, because files are cut at any byte.
    """
    padded, data = data, data.rstrip(b"\0")
    if padded and not data:
        return None
    controls = len(data) - len(data.translate(None, _BINARY_CONTROLS))
    if controls > len(data) * _MAX_CONTROL_SHARE or b"\0" in data:
        return None
    text = data.decode("utf-8", "replace")
    beyond = len(data.translate(None, _ASCII))
    if not beyond:
        return DecodedText(text, "utf-8")
    replaced = text.count(_REPLACEMENT) - data.count(_REPLACEMENT.encode())
    right = len(text) - (len(data) - beyond) - replaced
    wrong = replaced - _is_cut(data)
    return DecodedText(text, "utf-8", replaced) if right >= 2 * wrong else None


def _is_cut(data: bytes) -> bool:
    """Whether the last character is the beginning of a longer one, of at least two bytes or after other UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data[-16:])
    pending = decoder.getstate()[0]
    return len(pending) > 1 or (len(pending) == 1 and not data[:-1].isascii())


def _is_text(text: str, replaced: int) -> bool:
    controls = sum(text.count(chr(code)) for code in _BINARY_CONTROLS)
    return replaced + controls <= len(text) * _MAX_CONTROL_SHARE + (len(text) > 20)


def _wide_codec(data: bytes) -> str | None:
    """UTF-16 or UTF-32 without a byte order mark: the codec by which nearly all characters are of common blocks."""
    if not data.translate(None, b"\0\t\n\r" + _PRINTABLE) and data.count(0) * 4 < len(data):
        return None  # pairs of ASCII letters would be Chinese
    best, best_score = None, 0.0
    for codec in _WIDE:
        text = data[: len(data) // 4 * 4 if "32" in codec else len(data) // 2 * 2].decode(codec, "replace")
        if not text or text.count(_REPLACEMENT) * 50 > len(text):
            continue
        common = 1 - len(_COMMON.sub("", text)) / len(text)
        # The letters of UTF-16 in the wrong order are common Chinese characters, so ASCII counts twice.
        score = common + sum(character < "\x7f" for character in text[:_PLAUSIBILITY_CHARACTERS]) / len(text)
        if common >= _MIN_COMMON_SHARE and score > best_score:
            best, best_score = codec, score
    return best


def _decode_legacy(data: bytes) -> DecodedText | None:
    """The first likely encoding that has all bytes of the file, or the likeliest one with replacements for the others."""
    likely = list(dict.fromkeys(_likely_codecs(_sample_lines(data))))
    for codec in likely[:4]:
        text = data.decode(codec, "replace")
        replaced = text.count(_REPLACEMENT)
        # Almost any bytes are valid in an encoding of single bytes, and few are in one of pairs: there, a damaged or cut
        # character does not make the encoding doubtful.
        tolerated = 1 + len(text) // 1000 if codec in OF_PAIRS else 0
        if replaced <= tolerated and not _C1_CONTROL.search(text):
            return DecodedText(text, codec, replaced)
    text = data.decode(likely[0], "replace")
    return DecodedText(text, likely[0], text.count(_REPLACEMENT))


def _likely_codecs(sample: bytes) -> Iterator[str]:
    """Codecs in the order of their likelihood, ending with Windows-1252, the most common one of all."""
    import chardet

    found = chardet.detect_all(sample, compat_names=False, ignore_threshold=True, include_encodings=[*_WEB, *_RARE])
    beyond = len(sample.translate(None, _ASCII))
    letters = len(sample) - len(sample.translate(None, _LETTERS))
    western = _is_plausible(sample, "cp1252") and (beyond <= 3 or beyond <= letters)
    for guess in found:
        codec = standard_codec(guess["encoding"] or "")
        if codec is None:
            continue
        if western and guess["confidence"] < (_SURE_OF_WEB if guess["encoding"] in _WEB else _SURE_OF_RARE):
            continue
        if _is_plausible(sample, codec):
            yield codec
    if not western:
        yield from (codec for guess in found if (codec := standard_codec(guess["encoding"] or "")))
    yield "cp1252"


def _is_plausible(sample: bytes, codec: str) -> bool:
    text = sample[:_PLAUSIBILITY_CHARACTERS].decode(codec, "replace").rstrip(_REPLACEMENT)  # the last character may be cut
    return count_oddities(text) * 10 <= sum(character > "\x7f" for character in text)


def count_oddities(text: str) -> int:
    """How often words do not look like words: of one script, without signs or capitals inside."""
    odd = len(_MIXED_WORD.findall(text)) + len(_SIGN_IN_WORD.findall(text))
    odd += len(_NEVER_IN_TEXT.findall(text)) + len(_LEADING_MARK.findall(text))
    odd += sum(first.islower() and second.isupper() and not (first + second).isascii() for first, second in pairwise(text))
    runs = _OTHER_LETTERS.findall(text)
    if runs and max(map(len, runs)) < 3 and sum(character.isalpha() and character.isascii() for character in text) > 3:
        odd += len(runs)  # single letters of another script between Latin words
    return odd


def _sample_lines(data: bytes) -> bytes:
    """Lines that are not ASCII, from all parts of the file. ASCII fits any encoding and would hide the lines that decide."""
    lines: list[bytes] = []
    part = max(_SAMPLE_BYTES // _SAMPLE_PLACES, -(-len(data) // _SAMPLE_PLACES))
    for place in range(0, len(data), part):
        room, at = min(part, _SAMPLE_BYTES // _SAMPLE_PLACES), place
        if place:  # no character of two bytes begins or ends with such a byte, so a line or a word begins behind it
            boundary = _BOUNDARY.search(data, place - 1, place + room)
            at = boundary.end() if boundary else place + part
        while room > 0 and (found := _NOT_ASCII.search(data, at, place + part)):
            start = data.rfind(b"\n", max(at, found.start() - _CONTEXT_BYTES), found.start()) + 1 or max(at, found.start() - 1)
            end = data.find(b"\n", found.start(), found.start() + room) + 1 or found.start() + room
            line = data[start:end]
            if end < len(data) and not line.endswith(b"\n"):
                line = line.rstrip(_NOT_BOUNDARIES)
                if not line and not lines:  # one line without spaces, as in Chinese: only the end of the sample may be cut
                    return data[start:end]
            lines.append(line)
            room, at = room - (end - start), end
    return b"\n".join(lines)
