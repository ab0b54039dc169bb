"""Responses with files of the web page, with their security headers, ETags and compression."""

import gzip
from functools import cached_property

from flask import Response, request

from api.compression import accepts

PAGE_HEADERS = {
    # Trusted types block every way from text to markup, so a document that contains a script stays a document.
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Most file names stay the same from version to version: the browser keeps the files and revalidates them each time.
REVALIDATED = "no-cache"
IMMUTABLE = "public, max-age=31536000, immutable"
MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


def page_response(content: str | bytes, content_type: str, cache_control: str = REVALIDATED) -> Response:
    """A file of the web page, or 304 if the browser has it already."""
    response = Response(content, content_type=content_type, headers={**PAGE_HEADERS, "Cache-Control": cache_control})
    # The ETag is made from the bytes: times and sizes of installed files can be the same for two versions.
    response.add_etag()
    response.make_conditional(request)
    return response


class PageFile:
    """A file of the web page in memory, compressed with gzip when it is first requested. Brotli is only sent if it was built."""

    def __init__(self, content: bytes, suffix: str, *, brotli: bytes | None = None, immutable: bool = False) -> None:
        self._content = content
        self._brotli = brotli
        self._content_type = f"{MEDIA_TYPES[suffix]}; charset=utf-8"
        self._cache_control = IMMUTABLE if immutable else REVALIDATED

    @cached_property
    def _gzip(self) -> bytes:
        # Without a time, so that every process computes the same bytes, and with them the same ETag.
        return gzip.compress(self._content, mtime=0)

    def response(self) -> Response:
        content, encoding = self._encoded()
        response = page_response(content, self._content_type, self._cache_control)
        response.headers["Vary"] = "Accept-Encoding"
        if encoding is not None:
            response.headers["Content-Encoding"] = encoding
        return response

    def _encoded(self) -> tuple[bytes, str | None]:
        if self._brotli is not None and accepts("br"):
            return self._brotli, "br"
        if accepts("gzip"):
            return self._gzip, "gzip"
        return self._content, None
