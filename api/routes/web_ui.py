"""``/``: the web page, which calls the same API as every other client."""

from flask import Blueprint

from api.openapi.operation import UNCHANGED, Operation, Reply, describe, in_path
from api.responses import RouteResponse
from api.routes.page_response import page_response
from shared.errors import NotFound
from shared.packaged_files import CODE_ROOT

blueprint = Blueprint("web_ui", __name__)

TAG = "Web pages"
MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

WEB = CODE_ROOT / "web"
# Listed once at start: a name from a client is looked up here and never becomes a path.
STATIC_FILES = {path.name: path for path in (WEB / "static").iterdir() if path.suffix in MEDIA_TYPES}


@blueprint.get("/")
@describe(
    Operation(
        tag=TAG,
        summary="Get the web page: chat, documents, jobs",
        replies={200: Reply(description="HTML.", media_type="text/html"), 304: UNCHANGED},
        open=True,
    )
)
def show_page() -> RouteResponse:
    return page_response((WEB / "index.html").read_bytes(), "text/html; charset=utf-8")


@blueprint.get("/static/<name>")
@describe(
    Operation(
        tag=TAG,
        summary="Get a file of the web page",
        parameters=(in_path("name", "Name of the file.", "mark.svg"),),
        replies={200: Reply(description="The file.", media_type="*/*"), 304: UNCHANGED},
        open=True,
    )
)
def show_file(name: str) -> RouteResponse:
    path = STATIC_FILES.get(name)
    if path is None:
        raise NotFound(f"The web page has no file {name[:80]!r}.", code="route_not_found")
    return page_response(path.read_bytes(), f"{MEDIA_TYPES[path.suffix]}; charset=utf-8")
