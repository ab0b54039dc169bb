"""``/`` and ``/ui/…``: the web page, which calls the same API as every other client.

Its sources are in ``web/src``; ``make web`` builds them into ``web/dist``, which is part of the wheel. The scripts of each view are named in
``manifest.json``: the page of a view names them all, so that the browser fetches them at once.
"""

import json

from flask import Blueprint

from api.openapi.operation import UNCHANGED, Operation, Reply, describe, in_path
from api.responses import RouteResponse
from api.routes.page_response import MEDIA_TYPES, PageFile
from shared.errors import NotFound
from shared.packaged_files import CODE_ROOT

blueprint = Blueprint("web_ui", __name__)

TAG = "Web pages"
BUILT = CODE_ROOT / "web" / "dist"
# The page has the same list, in web/src/app.tsx.
VIEWS = ("chat", "documents", "jobs", "operations", "usage", "webhooks")

# Read once at start: a name from a client is looked up here and never becomes a path. The name of an asset has a hash of its bytes.
ASSETS = {
    path.name: PageFile(path.read_bytes(), path.suffix, brotli=path.with_name(f"{path.name}.br").read_bytes(), immutable=True)
    for path in (BUILT / "assets").iterdir()
    if path.suffix in MEDIA_TYPES
}


def _page_of_view(module: str, imports: list[str]) -> PageFile:
    """The page with the module of one view, and links to what that imports."""
    links = "".join(f'  <link rel="modulepreload" crossorigin href="/ui/{script}">\n' for script in imports)
    script = f'  <script type="module" async crossorigin src="/ui/{module}"></script>\n'
    return PageFile((BUILT / "index.html").read_text().replace("</head>", f"{links}{script}</head>").encode(), ".html")


PAGES = {view: _page_of_view(**scripts) for view, scripts in json.loads((BUILT / "manifest.json").read_text()).items()}
FILES = {
    path.name: PageFile(path.read_bytes(), path.suffix)
    for path in (BUILT / "mark.svg", CODE_ROOT / "web" / "reference" / "reference.css")
}


@blueprint.get("/")
@describe(
    Operation(
        tag=TAG,
        summary="Get the web page: chat, documents, jobs, operations, usage, webhooks",
        replies={200: Reply(description="HTML.", media_type="text/html"), 304: UNCHANGED},
        open=True,
    )
)
def show_page() -> RouteResponse:
    return PAGES["chat"].response()


@blueprint.get("/ui/<path:view>")
@describe(
    Operation(
        tag=TAG,
        summary="Get the web page with one of its views",
        parameters=(in_path("view", "Path of the view.", "jobs"),),
        replies={200: Reply(description="HTML.", media_type="text/html"), 304: UNCHANGED},
        open=True,
    )
)
def show_view(view: str) -> RouteResponse:
    """The page itself reads the rest of the path: it answers a reload and a bookmark of anything in its views."""
    name, _, rest = view.partition("/")
    if name not in VIEWS:
        raise NotFound(f"The web page has no view {view[:80]!r}.", code="route_not_found")
    return PAGES[f"{name}/*" if rest and f"{name}/*" in PAGES else name].response()


@blueprint.get("/ui/assets/<asset>")
@describe(
    Operation(
        tag=TAG,
        summary="Get a script or style sheet of the web page",
        parameters=(in_path("asset", "Name of the file, with a hash of its bytes.", "index-a1b2c3d4.js"),),
        replies={200: Reply(description="The file.", media_type="*/*"), 304: UNCHANGED},
        open=True,
    )
)
def show_asset(asset: str) -> RouteResponse:
    return _find(ASSETS, asset).response()


@blueprint.get("/static/<name>")
@describe(
    Operation(
        tag=TAG,
        summary="Get a file whose name stays the same from version to version",
        parameters=(in_path("name", "Name of the file.", "mark.svg"),),
        replies={200: Reply(description="The file.", media_type="*/*"), 304: UNCHANGED},
        open=True,
    )
)
def show_file(name: str) -> RouteResponse:
    return _find(FILES, name).response()


def _find(files: dict[str, PageFile], name: str) -> PageFile:
    try:
        return files[name]
    except KeyError:
        raise NotFound(f"The web page has no file {name[:80]!r}.", code="route_not_found") from None
