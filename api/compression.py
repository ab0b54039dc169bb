"""Compression of responses: JSON and text of some size, with gzip, for clients that accept it.

Event streams and files that are sent in pieces are left as they are: compressing them would hold pieces back.
"""

import gzip

from flask import Flask, Response, request

# What fits into one packet arrives no sooner when it is shorter.
MIN_BYTES = 1400
# Half as long as the default takes, for a few per cent more bytes.
LEVEL = 4
MEDIA_TYPES = ("application/json", "text/html", "text/plain")


def accepts(encoding: str) -> bool:
    """Whether the client of this request accepts an encoding. ``br;q=0`` refuses it."""
    return request.accept_encodings.quality(encoding) > 0


def compress_responses(app: Flask) -> None:
    """Compress the responses of an application."""

    @app.after_request
    def compress(response: Response) -> Response:
        if not _is_compressible(response):
            return response
        response.vary.add("Accept-Encoding")
        if accepts("gzip"):
            etag, is_weak = response.get_etag()
            response.set_data(gzip.compress(response.get_data(), LEVEL, mtime=0))
            response.headers["Content-Encoding"] = "gzip"
            if etag is not None and not is_weak:
                # The same text in other bytes.
                response.set_etag(etag, weak=True)
        return response


def _is_compressible(response: Response) -> bool:
    return (
        response.mimetype in MEDIA_TYPES
        and not response.is_streamed
        and not response.direct_passthrough
        and response.status_code not in (204, 206, 304)
        and "Content-Encoding" not in response.headers
        and "Content-Range" not in response.headers
        and request.method != "HEAD"
        and len(response.get_data()) >= MIN_BYTES
    )
