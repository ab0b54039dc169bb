"""Parser: reads the pages of an untrusted file in a sandboxed child process, and survives whatever the file does to the child.

The parent enforces the timeout, tries the next reader when one crashes, rejects the file or finds no text, and skips a page
that crashes every reader. It never opens the file itself.
"""

import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from shared.documents.media_types import ARCHIVES, SUPPORTED, MediaType
from shared.errors import DocumentRejected
from workers.cpu.readers.reader import Heading, Picture
from workers.cpu.readers.registry import READERS_BY_MEDIA_TYPE
from workers.cpu.readers.text_builder import MAX_PICTURE_NAME, MAX_PICTURES
from workers.cpu.sandbox.child_process import ChildProcesses

OcrPart = tuple[int, int, float]
"""Start and end of a text that OCR has read, and its confidence."""

MAX_CRASHING_PAGES = 5
"""A page that crashes every reader is skipped. A document with more such pages fails."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits on reading a file: wall clock time in seconds, memory in bytes, pages, characters per page, and characters in all."""

    seconds: float
    memory_bytes: int
    max_pages: int
    max_page_characters: int
    max_characters: int = 50_000_000


class CharacterBudget:
    """Counts the characters of a document against a limit. Pages without text count too: they may be long all the same."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._lock = threading.Lock()

    def spend(self, characters: int, page: int) -> None:
        """Count the characters of a page or of pages from ``page`` on. Raises DocumentRejected beyond the limit."""
        with self._lock:
            self._used += characters
            exceeded = self._used > self._limit
        if exceeded:
            raise DocumentRejected(
                f"The document has more than {self._limit} characters, the limit for a document; it was reached at page "
                f"{page} (ENGINEHOUSE_MAX_DOCUMENT_CHARACTERS).",
                code="too_large",
            )


@dataclass(frozen=True, kw_only=True)
class Page:
    """Contents of one page. ``number`` starts at 1; ``images`` matters only if there is no text; ``fault`` says what could not
    be read; ``headings`` are [character offset in the text, level from 1, title].

    ``pictures`` are those inside the page that OCR may still read: [character offset in the text, name in the file].

    ``confidence`` is None unless OCR looked at the page. It is then the mean confidence of the lines that OCR found, or 0 if it found
    none. They are the text from the offset ``ocr_start`` on, or, where pictures are inside the text, ``ocr_parts``: [start, end, confidence].
    ``removed_lines`` counts headers and footers that were left out."""

    number: int
    text: str
    images: bool = False
    fault: str = ""
    headings: list[Heading] = field(default_factory=list)
    confidence: float | None = None
    ocr_start: int = 0
    ocr_parts: list[OcrPart] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    removed_lines: int = 0

    @property
    def characters(self) -> int:
        """Characters of the text and of what is said about it."""
        return len(self.text) + len(self.fault) + sum(len(title) for _, _, title in self.headings)


@dataclass
class _Progress:
    """State across child processes. ``pages`` is the total (0 while unknown), ``reached`` the first page that no child has
    returned, ``delivered`` the last page passed to the caller, and ``held`` the pages not yet passed on, because no page so
    far has text."""

    first: int
    pages: int = 0
    reached: int = 0
    delivered: int = 0
    held: dict[int, Page] = field(default_factory=dict)


class _ChildCrashed(Exception):
    """A child ended without an end message; the exception says how."""


class _ReaderFailed(Exception):
    """A reader could not open the file."""


def read_pages(
    path: Path,
    media_type: MediaType,
    limits: Limits,
    on_page: Callable[[Page, int], None],
    *,
    first: int = 1,
    last: int | None = None,
    password: str = "",
    children: ChildProcesses | None = None,
    budget: CharacterBudget | None = None,
    arranged: bool = True,
) -> int:
    """Call ``on_page(page, total)`` once for each page from ``first`` to ``last``, in order; return the total number of pages.

    If ``arranged``, tables of PDFs become Markdown rows, and their columns follow each other. ``on_page`` may raise, which kills the child, and another thread may kill ``children``. Calls for the same document share
    ``budget``. Raises DocumentRejected with the code ``encrypted``, ``unsupported``,
    ``too_large`` or ``failed``; its message names the limit that was exceeded, if any.
    """
    readers = READERS_BY_MEDIA_TYPE.get(media_type)
    if readers is None:
        problem = (
            "The file is an archive inside an archive, which is not unpacked."
            if media_type in ARCHIVES
            else "The format of the file is not supported."
        )
        raise DocumentRejected(f"{problem} Supported formats: {SUPPORTED}.", code="unsupported")
    children, budget = children or ChildProcesses(), budget or CharacterBudget(limits.max_characters)
    deadline = time.monotonic() + limits.seconds
    progress = _Progress(first, reached=first, delivered=first - 1)
    crashing_pages = 0
    while True:
        faults = []
        for reader in readers:
            request = {
                "reader": reader,
                "first": progress.delivered + 1,
                "last": last,
                "password": password,
                "arranged": arranged,
                **asdict(limits),
            }
            try:
                # Closed explicitly, because the child must have exited when this function returns.
                with closing(_child_pages(path, request, progress, limits, deadline, children)) as pages:
                    for page in pages:
                        budget.spend(page.characters, page.number)
                        _deliver(page, progress, on_page)
            except (_ChildCrashed, _ReaderFailed) as fault:
                faults.append(str(fault))
            else:
                if progress.delivered >= first or reader == readers[-1]:
                    _release(progress, on_page, faults)
                    return progress.pages
        if len(faults) < len(readers):  # the first reader found no text, and the second one failed
            _release(progress, on_page, faults)
            return progress.pages
        crashing_pages += 1
        if not progress.pages or crashing_pages > MAX_CRASHING_PAGES:
            position = f" at page {progress.reached} of {progress.pages}" if progress.pages else ""
            raise DocumentRejected(f"The file could not be read{position}: {'; '.join(faults)}.", code="failed")
        _deliver(Page(number=progress.reached, text="", fault="; ".join(faults)), progress, on_page)
        _release(progress, on_page, [])
        if progress.delivered >= min(last or progress.pages, progress.pages):
            return progress.pages


def _deliver(page: Page, progress: _Progress, on_page: Callable[[Page, int], None]) -> None:
    """Pass a page on. Pages without text are held until a page has text: until then, the next reader may find more."""
    progress.reached = max(progress.reached, page.number + 1)
    if progress.delivered >= progress.first or page.text.strip():
        for next_page in (*(held for number, held in sorted(progress.held.items()) if number < page.number), page):
            on_page(next_page, progress.pages)
        progress.held.clear()
        progress.delivered = page.number
    else:
        earlier = progress.held.get(page.number, page)
        progress.held[page.number] = replace(page, images=page.images or earlier.images)


def _release(progress: _Progress, on_page: Callable[[Page, int], None], faults: list[str]) -> None:
    """Pass on the held pages, as no reader is left to try. ``faults`` come from readers that failed on all of them."""
    for number, page in sorted(progress.held.items()):
        on_page(replace(page, fault="; ".join([*faults, page.fault])) if page.fault else page, progress.pages)
        progress.delivered = number
    progress.held.clear()


def _child_pages(
    path: Path, request: dict[str, object], progress: _Progress, limits: Limits, deadline: float, children: ChildProcesses
) -> Generator[Page, None, None]:
    # No valid line is longer: at most six bytes per character, for text and headings, plus pictures and the JSON around them.
    max_line = 12 * limits.max_page_characters + 2**18
    reader, number = str(request["reader"]), int(str(request["first"]))
    with children.start("workers.cpu.parsing.parse_child", path, request) as child:
        clock = threading.Timer(max(0.0, deadline - time.monotonic()), child.kill)
        clock.start()
        try:
            while True:
                match child.read_message(max_line):
                    case {"end": "read"}:
                        return
                    case {"end": "unreadable", "reason": str(reason)}:
                        raise _ReaderFailed(reason)
                    case {"end": "encrypted" | "unsupported" | "too_large" as code, "reason": str(reason)}:
                        raise DocumentRejected(reason, code=code)
                    case {"pages": int(pages), "title": str()} if pages <= limits.max_pages:
                        progress.pages = pages
                    case {
                        "page": int(index),
                        "text": str(text),
                        "images": bool(images),
                        "headings": list(items),
                        "fault": str(fault),
                        "pictures": list(shown),
                    } if index == number <= progress.pages:
                        headings = _headings(items, len(text))
                        pictures = _pictures(shown, len(text))
                        yield Page(number=number, text=text, images=images, fault=fault, headings=headings, pictures=pictures)
                        number += 1
                    case _:
                        raise _ChildCrashed(f"{reader} wrote invalid output")
        except EOFError:
            status = child.exit_status()
            raise _exit_error(status, reader, progress, limits, timed_out=time.monotonic() >= deadline) from None
        finally:
            clock.cancel()


def _headings(items: list[object], characters: int) -> list[Heading]:
    headings: list[Heading] = []
    for item in items:
        match item:
            case [int(start), int(level), str(title)] if 0 <= start <= characters and level > 0:
                headings.append((start, level, title[:500]))
    return headings


def _pictures(items: list[object], characters: int) -> list[Picture]:
    pictures: list[Picture] = []
    for item in items[:MAX_PICTURES]:
        match item:
            case [int(offset), str(name)] if 0 <= offset <= characters and 0 < len(name) <= MAX_PICTURE_NAME:
                pictures.append((offset, name))
    return pictures


def _exit_error(returncode: int, reader: str, progress: _Progress, limits: Limits, *, timed_out: bool) -> Exception:
    if timed_out or returncode == -signal.SIGXCPU:
        position = f" at page {progress.reached} of {progress.pages}" if progress.pages else ""
        return DocumentRejected(
            f"Reading the file took longer than {limits.seconds:g} s and was stopped{position} (ENGINEHOUSE_PARSE_SECONDS).",
            code="too_large",
        )
    exit_status = f"was killed by {signal.Signals(-returncode).name}" if returncode < 0 else f"exited with status {returncode}"
    mebibytes = limits.memory_bytes // 2**20
    return _ChildCrashed(f"{reader} {exit_status}; its memory limit is {mebibytes} MiB (ENGINEHOUSE_PARSE_MEMORY_BYTES)")
