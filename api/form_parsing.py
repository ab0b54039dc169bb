"""Multipart forms: file names keep every byte, and a form that cannot be read is an error.

Names are bytes to a file system, and clients send what they find there. Werkzeug rejects a form with a name that is not UTF-8,
without saying so, and replaces bytes of ``filename*`` that it cannot decode, so that two names may become one. Here such a byte
stays in the name as ``\\xe9`` (``shared.documents.models.escape_name``).

Werkzeug's parser takes no decoder as a parameter, so the class is replaced in its module. tests/redis/test_http_names.py tests what
is relied on.
"""

import re
from dataclasses import replace
from typing import Any
from urllib.parse import unquote_to_bytes

from flask import Request
from werkzeug import formparser
from werkzeug.datastructures import Headers
from werkzeug.formparser import FormDataParser
from werkzeug.sansio.multipart import Event, File, MultipartDecoder

from shared.documents.models import escape_name
from shared.errors import MalformedBody

CONTINUATION = re.compile(rb"(?:\r\n|\n|\r)[ \t]")
# A parameter of Content-Disposition: its name, and its value with the quotes.
PARAMETER = re.compile(r';[ \t]*([^ \t=;"]+)[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^;]*)')
# charset'language'value, where the value is percent-encoded (RFC 8187).
EXTENDED_VALUE = re.compile(r"\"?([^'\"]*)'[^'\"]*'([^\"]*)\"?")


class BytePreservingDecoder(MultipartDecoder):
    """A decoder that accepts file names in any encoding."""

    def next_event(self) -> Event:
        event = super().next_event()
        if not isinstance(event, File):
            return event
        extended = extended_file_name(event.headers["content-disposition"])
        return replace(event, filename=escape_name(event.filename if extended is None else extended))

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


def extended_file_name(disposition: str) -> str | None:
    """The file name in the parameter ``filename*``, which takes precedence over ``filename`` (RFC 6266), if there is one."""
    parameters = {match[1].lower(): match[2].strip() for match in PARAMETER.finditer(disposition)}
    match = EXTENDED_VALUE.fullmatch(parameters.get("filename*", ""))
    if match is None:
        return None
    charset = "iso-8859-1" if match[1].lower() == "iso-8859-1" else "utf-8"
    return unquote_to_bytes(match[2].encode("utf-8", "surrogateescape")).decode(charset, "surrogateescape")


formparser.MultipartDecoder = BytePreservingDecoder  # type: ignore[misc]
