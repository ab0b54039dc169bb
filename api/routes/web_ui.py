"""The page that a person sees at ``/``: the files of ``web/``, as they are.

Knows nothing of jobs or documents; the page calls the same API as every other client.
"""

from pathlib import Path

from flask import Blueprint, Response, request

from shared.errors import NotFound
from shared.packaged_files import CODE_ROOT

blueprint = Blueprint("page", __name__)

MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

WEB = CODE_ROOT / "web"
# Listed once: a name from a client is looked up here and never becomes a path.
STATIC = {path.name: path for path in (WEB / "static").iterdir() if path.suffix in MEDIA_TYPES}

HEADERS = {
    # Trusted types refuse every way from text to markup, so a document that holds a script stays a document.
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Names stay the same from version to version: the browser keeps the files and asks each time whether they hold.
    "Cache-Control": "no-cache",
}


@blueprint.get("/")
def index() -> Response:
    """The one HTML file."""
    return _file(WEB / "index.html", "text/html")


@blueprint.get("/static/<name>")
def static(name: str) -> Response:
    """A style sheet, module or picture of the page. Raises NotFound."""
    path = STATIC.get(name)
    if path is None:
        raise NotFound(f"the page has no file {name[:80]!r}", code="route_not_found")
    return _file(path, MEDIA_TYPES[path.suffix])


def _file(path: Path, media_type: str) -> Response:
    response = Response(path.read_bytes(), content_type=f"{media_type}; charset=utf-8", headers=HEADERS)
    # From the bytes: times and sizes of installed files may be the same for two versions.
    response.add_etag()
    response.make_conditional(request)
    return response
