"""Drawing of pages: runs ``draw_child`` on an untrusted PDF, and trusts nothing that it writes."""

import signal
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.documents.page_boxes import SCALE
from shared.errors import JobFailure
from workers.cpu.pages.draw_child import MAX_PIXELS
from workers.cpu.readers.characters import MAX_CHARACTERS
from workers.cpu.sandbox.child_process import ChildProcess, ChildProcesses

DRAW_SECONDS = 30.0
"""Time for one page."""

MAX_PICTURE_BYTES = 4 * MAX_PIXELS
_MAX_LINE = 48 * MAX_CHARACTERS + 65_536
_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


@dataclass(frozen=True, kw_only=True)
class PageRequest:
    """What to draw: a page, ``width`` pixels wide or not at all if 0, with the characters from ``start`` to ``end`` of its stored ``text``
    marked. ``lines`` are those that OCR has read: [start, end, left, top, right, bottom]."""

    page: int
    text: str
    width: int = 0
    start: int = 0
    end: int = 0
    lines: Sequence[Sequence[int]] = ()


@dataclass(frozen=True, kw_only=True)
class DrawnPage:
    """The size of a page in points, [offset, left, top, right, bottom] of its characters, and its picture as PNG, or b""."""

    width: float
    height: float
    boxes: Sequence[Sequence[int]]
    picture: bytes


class PageUnreadable(JobFailure):
    """The page cannot be drawn."""

    code = "page_unreadable"


def draw_page(path: Path, request: PageRequest, *, memory_bytes: int, children: ChildProcesses) -> DrawnPage:
    """Draw a page of the PDF at ``path``. Raises PageUnreadable, and JobFailure (``encrypted``, ``page_not_found``).

    Another thread may kill ``children``.
    """
    values = {
        "page": request.page,
        "text": request.text,
        "width": request.width,
        "start": request.start,
        "end": request.end,
        "lines": request.lines,
        "memory_bytes": memory_bytes,
        "seconds": DRAW_SECONDS,
    }
    with children.start("workers.cpu.pages.draw_child", path, values) as child:
        timer = threading.Timer(DRAW_SECONDS, child.kill)
        timer.start()
        try:
            return _read_page(child, request)
        except EOFError:
            status = child.exit_status()
            if status in (-signal.SIGKILL, -signal.SIGXCPU):
                raise PageUnreadable(
                    f"Page {request.page} was not drawn: that took longer than {DRAW_SECONDS:g} s, or its process was killed."
                ) from None
            raise PageUnreadable(f"Page {request.page} cannot be drawn: the process that draws it ended with {status}.") from None
        finally:
            timer.cancel()


def _read_page(child: ChildProcess, request: PageRequest) -> DrawnPage:
    match _message(child, request):
        case {"pages": int(pages)} if pages < request.page:
            raise JobFailure(f"The document has {pages} pages.", code="page_not_found")
        case {"width": float() | int() as width, "height": float() | int() as height, "boxes": list(boxes)} if _are_boxes(
            boxes, len(request.text)
        ):
            pass
        case _:
            raise _invalid(request)
    picture = b""
    if request.width:
        match _message(child, request):
            case {"png": int(size)} if len(_PNG_START) < size <= MAX_PICTURE_BYTES:
                picture = child.read_exactly(size)
            case _:
                raise _invalid(request)
        across, down = struct.unpack(">II", picture[16:24])
        if not picture.startswith(_PNG_START) or not 0 < across * down <= MAX_PIXELS + 2 * (across + down):
            raise _invalid(request)
    if _message(child, request) != {"end": "drawn"}:
        raise _invalid(request)
    return DrawnPage(width=float(width), height=float(height), boxes=boxes, picture=picture)


def _message(child: ChildProcess, request: PageRequest) -> object:
    """The next message. Raises the failure that it reports, if any."""
    message = child.read_message(_MAX_LINE)
    match message:
        case {"end": "encrypted"}:
            raise JobFailure(
                "The file is protected by a password, which the server forgot when it had read the file, so its pages cannot be drawn.",
                code="encrypted",
            )
        case {"end": "unreadable", "reason": str(reason)}:
            raise PageUnreadable(f"Page {request.page} cannot be drawn. {reason}")
    return message


def _are_boxes(boxes: list[object], length: int) -> bool:
    """Whether these are ascending offsets in a text of this length, each with a box on the page."""
    last = -1
    for each in boxes:
        match each:
            case [int(offset), int(left), int(top), int(right), int(bottom)] if (
                last < offset < length and 0 <= left < right <= SCALE and 0 <= top < bottom <= SCALE
            ):
                last = offset
            case _:
                return False
    return True


def _invalid(request: PageRequest) -> PageUnreadable:
    return PageUnreadable(f"Page {request.page} cannot be drawn: the process that draws it wrote invalid output.")
