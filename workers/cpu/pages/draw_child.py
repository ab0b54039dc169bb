"""Child process that draws a page of one untrusted PDF and finds the boxes of its characters.

It closes its sandbox before it opens the file. On standard output it writes

    {"pages": 90, "width": 595.3, "height": 841.9, "boxes": [[0, 41000, 52000, 47000, 61000], …]}

with the size in points and, for each character, its offset in the stored text and its box (see ``positions``). If a picture was asked for,
``{"png": 48211}`` and so many bytes follow. The last line is ``{"end": "drawn"}``, or one with another ``end`` and a ``reason``.
"""

import importlib
import io
import json
import sys
from typing import Any

from shared.documents.page_boxes import SCALE, Line, join_lines
from workers.cpu.pages.positions import add_line_boxes, read_boxes
from workers.cpu.parsing.parse_child import write_line
from workers.cpu.readers.reader import ReadError, password_error
from workers.cpu.readers.registry import import_reader
from workers.cpu.sandbox.sandbox import close_sandbox

MAX_PIXELS = 12_000_000
"""A picture with more pixels, of a page that is very long, is drawn smaller."""

MARK = (255, 224, 102)
"""The colour of a marked text. It is multiplied with the page, so that letters stay as dark as they are."""


def draw_page(request: dict[str, Any]) -> None:
    """Write the boxes and the picture. Raises ReadError, or whatever pdfium raises."""
    import pypdfium2

    raw: Any = pypdfium2.raw
    try:
        document = pypdfium2.PdfDocument(request["path"])
    except pypdfium2.PdfiumError as error:
        if error.err_code == raw.FPDF_ERR_PASSWORD:
            raise password_error("") from error
        raise
    if document.get_formtype() != raw.FORMTYPE_NONE:
        document.init_forms()
    page = document[request["page"] - 1]
    width, height = page.get_size()
    if min(width, height) <= 0:
        raise ReadError("unreadable", "The page has no size.")
    text_page = page.get_textpage()
    boxes = read_boxes(raw, page, text_page.raw, request["text"])
    boxes = add_line_boxes(boxes, request["lines"], len(request["text"]), aspect=width / height)
    write_line(
        pages=len(document), width=round(width, 2), height=round(height, 2), boxes=[[offset, *box] for offset, box in boxes]
    )
    if request["width"]:
        rows = ([offset, *box] for offset, box in boxes)
        marked = join_lines(rows, request["text"], request["start"], request["end"], aspect=width / height)
        picture = _draw(page, request["width"], width, height, marked)
        write_line(png=len(picture))
        sys.stdout.buffer.write(picture)
    write_line(end="drawn")


def _draw(page: Any, across: int, width: float, height: float, marked: list[Line]) -> bytes:
    """The page as PNG, ``across`` pixels wide."""
    from PIL import Image, ImageChops

    scale = min(across / width, (MAX_PIXELS / (width * height)) ** 0.5)
    picture = page.render(scale=scale).to_pil().convert("RGB")
    for line in marked:
        left, right = line.left * picture.width // SCALE, -(-line.right * picture.width // SCALE)
        top, bottom = line.top * picture.height // SCALE, -(-line.bottom * picture.height // SCALE)
        part = picture.crop((left, top, right, bottom))
        picture.paste(ImageChops.multiply(part, Image.new("RGB", part.size, MARK)), (left, top))
    png = io.BytesIO()
    picture.save(png, "PNG")
    return png.getvalue()


def main() -> None:
    request = json.loads(sys.stdin.buffer.readline())
    import_reader("pypdfium2")
    for name in ("PIL.ImageChops", "PIL.PngImagePlugin"):  # the sandbox allows no import
        importlib.import_module(name)
    close_sandbox(request["memory_bytes"], request["seconds"], [request["descriptor"]])
    try:
        draw_page(request)
    except ReadError as error:
        write_line(end=error.code, reason=str(error))
    except MemoryError:
        write_line(end="unreadable", reason=f"Drawing it needs more than {request['memory_bytes'] // 2**20} MiB of memory.")
    except Exception as error:  # noqa: BLE001 - the top of the process; the parent decides what the error means
        write_line(end="unreadable", reason=f"pypdfium2: {type(error).__name__}: {error}"[:300])


if __name__ == "__main__":
    main()
