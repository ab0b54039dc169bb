"""Multipart forms: file names keep every byte, and a form that cannot be read is an error.

Names are bytes to a file system, and clients send what they find there. Werkzeug rejects a form with a name that is not UTF-8,
without saying so; it replaces bytes of ``filename*`` that it cannot decode, drops the backslashes that browsers leave in names, and
takes a file for a text field if its name is not ASCII and has no quotes. Two names may then become one. Here every byte counts: one that
is not UTF-8 stays in the name as ``\\xe9`` (``shared.documents.models.escape_name``).

Werkzeug's parser takes no decoder as a parameter, so the class is replaced in its module. tests/redis/test_http_names.py tests what
is relied on.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import unquote_to_bytes

from flask import Request
from werkzeug import formparser
from werkzeug.datastructures import Headers
from werkzeug.formparser import FormDataParser
from werkzeug.sansio.multipart import Event, Field, File, MultipartDecoder

from shared.documents.models import escape_name
from shared.errors import MalformedBody

CONTINUATION = re.compile(rb"(?:\r\n|\n|\r)[ \t]")
# A parameter of Content-Disposition: its name, and its value with the quotes.
PARAMETER = re.compile(r';[ \t]*([^ \t=;"]+)[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^;]*)')
ESCAPED_CHARACTER = re.compile(r'\\([\\"])')
# charset'language'value, where the value is percent-encoded (RFC 8187).
EXTENDED_VALUE = re.compile(r"\"?([^'\"]*)'[^'\"]*'([^\"]*)\"?")


class BytePreservingDecoder(MultipartDecoder):
    """A decoder that accepts file names in any encoding."""

    def next_event(self) -> Event:
        event = super().next_event()
        if not isinstance(event, Field | File):
            return event
        name = file_name(event.headers["content-disposition"])
        if name is None:
            # What the header has may be a name in several parts (RFC 2231).
            return replace(event, filename=escape_name(event.filename)) if isinstance(event, File) else event
        return File(name=event.name, headers=event.headers, filename=escape_name(name))

    def _parse_headers(self, data: bytes | bytearray) -> Headers:
        headers = Headers()
        for line in CONTINUATION.sub(b" ", data).splitlines():
            name, _, value = line.decode("utf-8", "surrogateescape").partition(":")
            if name.strip(" \t"):
                headers.add(name.strip(" \t"), value.strip(" \t"))
        return headers


class StrictFormParser(FormDataParser):
    """A parser that says why a form cannot be read. Werkzeug's returns an empty form instead."""

    def parse(self, *args: Any, **options: Any) -> Any:
        self.silent = False
        try:
            return super().parse(*args, **options)
        except ValueError as error:
            raise MalformedBody(f"The form cannot be read: {error}. Send it as multipart/form-data (RFC 7578).") from None


class FormRequest(Request):
    """A request whose forms are parsed like this."""

    form_data_parser_class = StrictFormParser

    # Where the files of the form are written as they arrive; if None, in memory or a temporary file.
    open_file: Callable[[], Any] | None = None

    def _get_file_stream(self, *arguments: Any, **options: Any) -> Any:
        return super()._get_file_stream(*arguments, **options) if self.open_file is None else self.open_file()


def file_name(disposition: str) -> str | None:
    """The file name in a Content-Disposition, or None. ``filename*`` takes precedence over ``filename`` (RFC 6266)."""
    parameters = {match[1].lower(): match[2].strip() for match in PARAMETER.finditer(disposition)}
    match = EXTENDED_VALUE.fullmatch(parameters.get("filename*", ""))
    if match is None:
        return _unquote(parameters["filename"]) if "filename" in parameters else None
    charset = "iso-8859-1" if match[1].lower() == "iso-8859-1" else "utf-8"
    return unquote_to_bytes(match[2].encode("utf-8", "surrogateescape")).decode(charset, "surrogateescape")


def _unquote(value: str) -> str:
    """The text of a parameter. Programs write a quote as ``\\"``, browsers as %22; only programs double a backslash."""
    if len(value) < 2 or not value.startswith('"') or not value.endswith('"'):
        return value
    return ESCAPED_CHARACTER.sub(r"\1", value[1:-1]).replace("%22", '"')


formparser.MultipartDecoder = BytePreservingDecoder  # type: ignore[attr-defined]
