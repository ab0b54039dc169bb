"""``/documents/<document>/file`` and ``…/pages``: the file that was uploaded, and its pages as pictures and as text with positions."""

import re
import unicodedata

from flask import Blueprint, Response, jsonify, send_file

from api.openapi.operation import DOCUMENT, Operation, Reply, describe, in_path, in_query
from api.page_drawing import RequestedPage, find_page
from api.request_parsing import query_integer
from api.responses import RouteResponse
from api.schemas import responses
from api.services import owner, services
from shared.documents import media_types
from shared.documents.page_boxes import join_lines
from shared.errors import InvalidValue, NotFound

blueprint = Blueprint("document_pages", __name__)

TAG = "Documents"
MIN_WIDTH, DEFAULT_WIDTH, MAX_WIDTH = 64, 1000, 2000
MAX_OFFSET = 100_000_000
MAX_FILE_NAME = 200

# What browsers only save. Anything else could be taken for a page of this server, with its rights.
SAFE_TYPES = {
    media_types.PDF,
    media_types.EPUB,
    media_types.DOCX,
    media_types.PPTX,
    media_types.XLSX,
    media_types.XLSB,
    media_types.OPENDOCUMENT,
}
UNTRUSTED_HEADERS = {"Content-Security-Policy": "default-src 'none'; sandbox", "Cache-Control": "no-store"}

PAGE = in_path("page", "Number of a page, from 1.", "1")
OFFSET = {"type": "integer", "minimum": 0, "maximum": MAX_OFFSET}
START = in_query(
    "start", OFFSET, "Position of the first character of a range in the text of the page, such as that of a chunk.", 4
)
END = in_query("end", OFFSET, "Position behind the last character of the range.", 11)
WIDTH = in_query(
    "width",
    {"type": "integer", "minimum": MIN_WIDTH, "maximum": MAX_WIDTH, "default": DEFAULT_WIDTH},
    "Width of the picture in pixels. A page that is very long is drawn smaller.",
    400,
)


@blueprint.get("/documents/<document>/file")
@describe(
    Operation(
        tag=TAG,
        summary="Download the file of a document",
        description="The bytes that were uploaded, as an attachment. A request may ask for a range of them.",
        parameters=(DOCUMENT,),
        replies={
            200: Reply(description="The file.", media_type="*/*"),
            206: Reply(description="The range of bytes that `Range` asks for.", media_type="*/*"),
            304: Reply(description="The file has the ETag of the request.", media_type=""),
        },
        refusals=(416,),
    )
)
def download_file(document: str) -> RouteResponse:
    found = services().documents.get(owner(), document)
    try:
        response = send_file(
            services().files.path(found.id, "original"),
            mimetype=found.media_type if found.media_type in SAFE_TYPES else "application/octet-stream",
            as_attachment=True,
            download_name=file_name(found.name),
            etag=found.sha256,
            last_modified=found.created_at // 1000,
        )
    except FileNotFoundError:
        services().documents.get(owner(), document)  # raises if it was deleted meanwhile
        raise NotFound(
            f"The file of document {found.id} was deleted, as it could not be read.", code="original_deleted", param="document"
        ) from None
    response.headers.update(UNTRUSTED_HEADERS)
    return response


@blueprint.get("/documents/<document>/pages/<page>.png")
@describe(
    Operation(
        tag=TAG,
        summary="Get the picture of a page",
        description=(
            "For PDFs. With `start` and `end`, these characters of the page's text are marked. Waits up to 30 s for a page that is not in "
            "the cache."
        ),
        parameters=(DOCUMENT, PAGE, WIDTH, START, END),
        replies={200: Reply(description="The picture.", media_type="image/png")},
        refusals=(409, 429),
    )
)
def show_page_picture(document: str, page: str) -> RouteResponse:
    width = query_integer("width", DEFAULT_WIDTH, MIN_WIDTH, MAX_WIDTH)
    start, end = _range()
    found = services().documents.get(owner(), document)
    if found.media_type != media_types.PDF:
        raise NotFound(
            f"Document {found.id} is not a PDF, and only pages of PDFs have pictures. Its text is at /pages/{page[:20]}/text.",
            code="no_page_images",
            param="document",
        )
    picture = find_page(found, _number(page), start or 0, end or 0).picture(width)
    return Response(picture, mimetype="image/png", headers=UNTRUSTED_HEADERS)


@blueprint.get("/documents/<document>/pages/<page>/text")
@describe(
    Operation(
        tag=TAG,
        summary="Get the text of a page and where it is on the page",
        description=(
            "Each box covers a line, or a part of one, of the whole text or of the characters from `start` to `end`. Text whose place is not "
            "known for sure has no box; formats other than PDF, and files with a password, have none at all."
        ),
        parameters=(DOCUMENT, PAGE, START, END),
        replies={200: Reply(description="The text and its boxes.", model=responses.PageText)},
        refusals=(409, 429),
    )
)
def show_page_text(document: str, page: str) -> RouteResponse:
    start, end = _range()
    found = find_page(services().documents.get(owner(), document), _number(page), read=True)
    return jsonify(_text_json(found, start or 0, len(found.text) if end is None else end))


def _text_json(page: RequestedPage, start: int, end: int) -> dict[str, object]:
    layout = page.layout()
    lines = join_lines(layout.boxes, page.text, start, end, aspect=layout.width / layout.height) if layout else []
    return {
        "document_id": page.document.id,
        "page": page.number,
        "width": layout.width if layout else None,
        "height": layout.height if layout else None,
        "text": page.text,
        "boxes": [line.as_json() for line in lines],
    }


def file_name(name: str) -> str:
    """The last part of a document's name without characters that would hide what the file is, for the header of a download."""
    last = re.split(r"[/\\]", name)[-1]
    printable = "".join(each for each in last if unicodedata.category(each)[0] != "C").strip(" .")
    return printable[-MAX_FILE_NAME:] or "document"


def _number(page: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,6}", page):
        raise NotFound(f"{page[:80]!r} is not the number of a page.", code="page_not_found", param="page")
    return int(page)


def _range() -> tuple[int | None, int | None]:
    """The parameters ``start`` and ``end``, both or none. Raises InvalidValue."""
    start, end = query_integer("start", -1, 0, MAX_OFFSET), query_integer("end", -1, 0, MAX_OFFSET)
    if (start < 0) != (end < 0):
        missing = "start" if start < 0 else "end"
        raise InvalidValue(f"{missing}: give start and end, or none of them", param=missing)
    if end < start:
        raise InvalidValue(f"end: must not be less than start, which is {start}", param="end")
    return (None, None) if start < 0 else (start, end)
