"""Text of servers, files and arguments, made safe to print, and standard streams that accept all bytes.

A name may contain escape sequences, which would make a terminal hide text, retitle its window or worse. They are printed as ``\\x1b``.
"""

import codecs
import io
import re
import sys

from cli.errors import CommandError

# C0 and C1 controls without tab and line feed; the controls that reorder text; halves of characters, as which Python reads bytes that
# are not UTF-8.
_UNSAFE = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_CONTROLS = re.compile(f"[{_UNSAFE}]|\r(?!\n)")
_COLOUR_OR_CONTROL = re.compile(f"(\x1b\\[[0-9;]*m)|[{_UNSAFE}]|\r(?!\n)")
_LINE_BREAKS = re.compile("[\t\r\n\u2028\u2029]+")
# JSON that Python writes has escapes for C0 already.
_NOT_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def safe_text(text: str) -> str:
    """The text with escapes for control characters; it may have several lines."""
    return _CONTROLS.sub(_escape, text)


def safe_line(text: str) -> str:
    """The text on one line, such as a name, with escapes for control characters."""
    return safe_text(_LINE_BREAKS.sub(" ", text))


def safe_log(text: str) -> str:
    """A line of a log with its colours, and escapes for other control characters."""
    return _COLOUR_OR_CONTROL.sub(lambda match: match[1] or _escape(match), text)


def safe_json(text: str) -> str:
    """The same JSON, with escapes for characters that a terminal would obey."""
    return _NOT_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def check_utf8(text: str, subject: str) -> str:
    """Return the text unchanged. Raises CommandError if it was read from bytes that are not UTF-8."""
    if _SURROGATE.search(text):
        raise CommandError(f"{subject} is not UTF-8: {safe_line(_shorten(text))}")
    return text


def accept_all_bytes() -> None:
    """Configure the standard streams so that no byte that is read and no character that is printed raises an exception."""
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
    # What is not ASCII can then only be UTF-8.
    if isinstance(sys.stdin, io.TextIOWrapper) and codecs.lookup(sys.stdin.encoding).name == "ascii":
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    if 0xDC80 <= number <= 0xDCFF:  # a byte that is not UTF-8
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def _shorten(text: str) -> str:
    position = match.start() if (match := _SURROGATE.search(text)) else 0
    return text[max(0, position - 30) : position + 30]
