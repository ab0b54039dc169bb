"""Recognizer: reads pictures of pages in a sandboxed child process, and survives crashes and hangs of the child.

The parent enforces the time for each page: it kills a child that takes longer, and goes on with the next page in another one.
"""

import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shared.documents.media_types import MediaType
from shared.documents.page_boxes import SCALE
from shared.errors import DocumentRejected
from workers.cpu.ocr.installation import LANGUAGES_SETTING
from workers.cpu.sandbox.child_process import ChildProcesses

START_SECONDS = 120.0
"""Time for a child to start and open the file, on a busy machine."""

MAX_CRASHES = 5
"""After this many pages that end the child, the other pages of a block are not tried."""

OCR_FAULT = "could not be read by OCR"


@dataclass(frozen=True, kw_only=True)
class OcrLimits:
    """Limits of a child: seconds for a page, bytes of address space, pixels of a picture, and characters of a page."""

    page_seconds: float
    memory_bytes: int
    max_picture_pixels: int
    max_page_characters: int


@dataclass(frozen=True)
class PageRequest:
    """What to read of a page: all of it, the pictures inside it, or the picture with a name in the file."""

    number: int
    inside: bool = False
    picture: str = ""

    def describe(self, failure: str) -> str:
        """The fault of the page when this could not be read. ``failure`` follows the words ``could not be read by OCR``."""
        shown = f"shows {self.picture.rpartition('/')[2]}, which " if self.picture else ""
        return f"{shown}{OCR_FAULT}{failure.replace(';', ',')}"  # semicolons part the faults of a page


@dataclass(frozen=True, kw_only=True)
class OcrResult:
    """The text found on a page and its mean confidence, or why there is none.

    ``boxes`` are [start, end, left, top, right, bottom] of its lines: characters of the text, and the place in units of
    ``page_boxes.SCALE``."""

    number: int
    picture: str = ""
    text: str = ""
    confidence: float = 0.0
    fault: str = ""
    boxes: Sequence[Sequence[int]] = ()


class _ChildCrashed(Exception):
    """A child ended without an end message; the exception says how."""


def recognize_pages(
    path: Path,
    media_type: MediaType,
    pages: Sequence[PageRequest],
    engine: str,
    languages: Sequence[str],
    limits: OcrLimits,
    on_result: Callable[[OcrResult], None],
    *,
    languages_named_by: str = LANGUAGES_SETTING,
    password: str = "",
    children: ChildProcesses | None = None,
    deadline: float = float("inf"),
) -> None:
    """Call ``on_result`` once for each page, in order.

    ``on_result`` may raise, which kills the child, and another thread may kill ``children``. After ``deadline``, a time of
    ``time.monotonic``, pages are not read any more. ``languages_named_by`` is the setting or field that errors about languages name. Raises DocumentRejected if the file as a whole cannot be read.
    """
    children = children or ChildProcesses()
    left, crashes = list(pages), 0
    while left:
        if time.monotonic() >= deadline:
            failure = ", because the document took too long (ENGINEHOUSE_OCR_DOCUMENT_SECONDS)"
        elif crashes >= MAX_CRASHES:
            failure = f", which had failed on {crashes} {'pictures' if left[0].picture else 'pages'} before"
        else:
            failure = ""
        if failure:
            for page in left:
                on_result(OcrResult(number=page.number, picture=page.picture, fault=page.describe(failure)))
            return
        request = {
            "media_type": media_type,
            "pages": [(page.number, page.inside, page.picture) for page in left],
            "engine": engine,
            "languages": list(languages),
            "languages_named_by": languages_named_by,
            "password": password,
            "seconds": START_SECONDS + limits.page_seconds * len(left),
            **asdict(limits),
        }
        try:
            with closing(_child_results(path, request, left, limits, children)) as results:
                for result in results:
                    left.pop(0)
                    on_result(result)
                    if time.monotonic() >= deadline:
                        break
                else:
                    return
        except _ChildCrashed as crash:
            crashes += 1
            page = left.pop(0)
            on_result(OcrResult(number=page.number, picture=page.picture, fault=page.describe(str(crash))))


def _child_results(
    path: Path, request: dict[str, object], requested: Sequence[PageRequest], limits: OcrLimits, children: ChildProcesses
) -> Generator[OcrResult, None, None]:
    pages = list(requested)
    max_line = 12 * limits.max_page_characters + 65536
    with children.start("workers.cpu.ocr.ocr_child", path, request) as child:
        timed_out = threading.Event()

        def stop() -> None:
            timed_out.set()
            child.kill()

        seconds = START_SECONDS
        while True:
            clock = threading.Timer(seconds, stop)
            clock.start()
            try:
                message = child.read_message(max_line)
            except EOFError:
                if timed_out.is_set():
                    within = f" within {limits.page_seconds:g} s (ENGINEHOUSE_OCR_PAGE_SECONDS)"
                    raise _ChildCrashed(within) from None
                raise _ChildCrashed(f": {_how_it_ended(child.exit_status(), limits)}") from None
            finally:
                clock.cancel()
            match message:
                case {"opened": True}:
                    seconds = START_SECONDS
                case {"loaded": True}:
                    seconds = limits.page_seconds
                case {"end": "read"} if not pages:
                    return
                case {"end": "encrypted" | "too_large" as code, "reason": str(reason)}:
                    raise DocumentRejected(reason, code=code)
                case {"end": "missing", "reason": str(reason)}:
                    raise DocumentRejected(reason, code="failed")
                case {"end": "unreadable", "reason": str(reason)}:
                    raise _ChildCrashed(f" ({reason})")
                case {
                    "page": int(number),
                    "text": str(text),
                    "confidence": int() | float() as confidence,
                    "fault": str(fault),
                    "boxes": list(boxes),
                } if (
                    pages
                    and number == pages[0].number
                    and 0 <= confidence <= 1
                    and text == text.strip()
                    and _are_lines(boxes, len(text))
                ):
                    page = pages.pop(0)
                    seconds = limits.page_seconds
                    yield OcrResult(
                        number=number,
                        picture=page.picture,
                        text=text,
                        confidence=confidence,
                        fault=page.describe(f" ({fault})") if fault else "",
                        boxes=boxes,
                    )
                case _:
                    raise _ChildCrashed(": its process wrote invalid output")


def _are_lines(boxes: list[Any], length: int) -> bool:
    """Whether boxes are of lines that follow each other in a text of this length, each with a place on the page."""
    done = 0
    for box in boxes:
        match box:
            case [int(start), int(end), int(left), int(top), int(right), int(bottom)] if (
                done <= start < end <= length and 0 <= left <= right <= SCALE and 0 <= top <= bottom <= SCALE
            ):
                done = end
            case _:
                return False
    return True


def _how_it_ended(returncode: int, limits: OcrLimits) -> str:
    status = f"was killed by {signal.Signals(-returncode).name}" if returncode < 0 else f"exited with status {returncode}"
    return f"its process {status}; its memory limit is {limits.memory_bytes // 2**20} MiB (ENGINEHOUSE_OCR_MEMORY_BYTES)"
