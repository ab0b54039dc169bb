"""Decoding of text whose encoding is declared, as in web pages and e-mail.

Labels mean what browsers take them to mean: a page that says ISO-8859-1 is Windows-1252. A declaration may also be wrong.
"""

import codecs
from contextlib import suppress

from workers.cpu.readers.reader import ReadError
from workers.cpu.readers.text import decode

# WHATWG's Encoding Standard gives these labels to larger encodings than their names say.
_LABELS = {
    "cp1252": ("ascii", "us-ascii", "iso-8859-1", "iso8859-1", "latin1", "latin-1", "l1", "x-cp1252", "ansi", "x-ansi"),
    "gb18030": ("gb2312", "gb_2312-80", "gbk", "x-gbk", "chinese", "euc-cn", "cn-gb"),
    "cp932": ("shift_jis", "shift-jis", "sjis", "x-sjis", "ms_kanji", "windows-31j"),
    "cp949": ("euc-kr", "ks_c_5601-1987", "ks_c_5601-1989", "ksc5601", "korean", "windows-949", "iso-ir-149"),
    "big5hkscs": ("big5", "big5-hkscs", "x-x-big5", "cn-big5"),
    "cp1254": ("iso-8859-9", "latin5", "l5", "iso8859-9"),
    "cp874": ("tis-620", "iso-8859-11", "windows-874", "dos-874"),
    "utf-8": ("utf8", "unicode-1-1-utf-8", "x-unicode20utf8", "utf-8"),
    "mac_roman": ("macintosh", "mac", "x-mac-roman"),
    "iso8859-8": ("iso-8859-8-i", "iso-8859-8-e", "logical", "visual"),
    "koi8-u": ("koi8-ru",),
    "iso2022_jp_2": ("iso-2022-jp", "csiso2022jp", "iso-2022-jp-1", "iso-2022-jp-2"),
    "iso2022_kr": ("iso-2022-kr", "csiso2022kr"),
}
_CODECS = {label: codec for codec, labels in _LABELS.items() for label in labels}
_MULTIBYTE = frozenset(
    ["utf-8", "utf-8-sig", "utf-16", "gb18030", "cp932", "cp949", "big5hkscs", "euc-jp", "iso-2022-jp", "utf-7"]
)
_NOT_FOR_TEXT = frozenset(
    ["base64", "hex", "rot13", "rot_13", "zip", "bz2", "uu", "quopri", "idna", "punycode", "unicode_escape", "raw_unicode_escape"]
)
# References such as &#146; and wrong labels put these control codes where Windows-1252 has quotes, dashes and the euro sign.
_C1 = {
    code: bytes([code]).decode("cp1252", "replace") for code in range(0x80, 0xA0) if code not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}
_C1.pop(0x85, None)


def decode_declared(data: bytes, label: str) -> str:
    """Decode bytes that are said to be in the encoding ``label``, maybe "". Bytes that are wrong cost one character each."""
    codec = _codec(label)
    for mark, marked in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            codec = marked
    if codec not in _MULTIBYTE and not data.isascii():
        with suppress(UnicodeDecodeError):
            return data.decode("utf-8")  # in other encodings no text looks like that
    if codec:
        text = _decoded(data, codec)
        if codec.startswith("iso2022"):
            return text  # in ASCII alone, so nothing else can be tried
        wrong = text.count("\N{REPLACEMENT CHARACTER}")
        if not wrong or 2 * wrong <= sum(1 for character in text if character > "\x7f") - wrong:
            return text
        western = _decoded(data, "cp1252")
        if _looks_western(western):
            return western
    elif label:
        western = _decoded(data, "cp1252")
        if not data.isascii() and _looks_western(western) and _decoded(data, "utf-8").count("\N{REPLACEMENT CHARACTER}"):
            return western
    try:
        return decode(data)
    except ReadError:
        return _decoded(data, codec or "cp1252")


def repair_controls(text: str) -> str:
    """Text with C1 control codes replaced by what was meant."""
    return text if text.isascii() else text.translate(_C1)


def _codec(label: str) -> str:
    """The codec that browsers use for a label, or ""."""
    label = label.strip().strip("\"'").lower()
    codec = _CODECS.get(label, label)
    if (
        codec.startswith(("utf-16", "utf16", "utf-32", "ucs-2", "iso-10646"))
        or codec.replace("-", "_") in _NOT_FOR_TEXT
        or not codec.isascii()
    ):
        return ""  # a label that could be read as ASCII is not in UTF-16
    try:
        codecs.lookup(codec)
        b"a".decode(codec)  # a codec that is not for text refuses
    except (LookupError, ValueError, AssertionError):
        return ""
    return codec


def _decoded(data: bytes, codec: str) -> str:
    try:
        return data.decode(codec, "replace")
    except (LookupError, ValueError, AssertionError):
        return data.decode("latin-1")


def _looks_western(text: str) -> bool:
    """Whether letters beyond ASCII stand among ASCII letters, as in German or French. In other scripts they stand together."""
    inside = beyond = run = 0
    before = " "
    for number, character in enumerate(text):
        if character > "\x7f" and character.isalpha():
            beyond += 1
            run += 1
            if run > 3:
                return False
            after = text[number + 1 : number + 2]
            inside += _is_ascii_letter(before) or _is_ascii_letter(after)
        else:
            run = 0
        before = character
    return beyond <= inside * 10 // 7 and "\N{REPLACEMENT CHARACTER}" not in text


def _is_ascii_letter(character: str) -> bool:
    return character.isascii() and character.isalpha()
