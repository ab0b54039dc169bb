"""Responses with files of the web page, with their security headers and ETags."""

from flask import Response, request

PAGE_HEADERS = {
    # Trusted types block every way from text to markup, so a document that contains a script stays a document.
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # File names stay the same from version to version: the browser keeps the files and revalidates them each time.
    "Cache-Control": "no-cache",
}


def page_response(content: str | bytes, content_type: str) -> Response:
    """A file of the web page, or 304 if the browser has it already."""
    response = Response(content, content_type=content_type, headers=PAGE_HEADERS)
    # The ETag is made from the bytes: times and sizes of installed files can be the same for two versions.
    response.add_etag()
    response.make_conditional(request)
    return response
