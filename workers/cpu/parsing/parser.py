"""Reads pages of a file in a child process, whatever the file does to the child.

The parent holds the clock, asks for a second opinion when the usual reader dies, refuses or finds nothing, and goes on
behind a page that kills every reader. It opens no file itself and knows nothing of documents' records.
"""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from shared.documents.media_types import ARCHIVES, SUPPORTED, MediaType
from shared.errors import DocumentRejected
from shared.packaged_files import CODE_ROOT
from workers.cpu.readers.reader import Heading
from workers.cpu.readers.registry import READERS_BY_MEDIA_TYPE

MOST_DEADLY_PAGES = 5
"""A page that kills every reader is left out; so many of them in one go, and the rest is given up."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What reading may take: wall clock in seconds, memory in bytes, pages, characters a page."""

    seconds: float
    memory_bytes: int
    max_pages: int
    max_page_characters: int


@dataclass(frozen=True, kw_only=True)
class Page:
    """The text of a page. ``number`` counts from 1; ``images`` matters only where there is no text; ``fault`` says what could
    not be read; ``headings`` are [character offset, level from 1, title] of this page's text."""

    number: int
    text: str
    images: bool = False
    fault: str = ""
    headings: list[Heading] = field(default_factory=list)


@dataclass
class _Progress:
    """What the children have told so far: pages in all (0 while unknown), the next page that nobody told anything of, the
    next that nobody was given, and pages that wait, as none before them has text."""

    first: int
    pages: int = 0
    reached: int = 0
    delivered: int = 0
    held: dict[int, Page] = field(default_factory=dict)


class _Died(Exception):
    """A child ended without an end; the message says how."""


class _Unreadable(Exception):
    """A reader refused the file."""


def read_pages(
    path: Path,
    kind: MediaType,
    limits: Limits,
    on_page: Callable[[Page, int], None],
    *,
    first: int = 1,
    last: int | None = None,
    password: str = "",
) -> int:
    """Hand the pages from ``first`` to ``last`` to ``on_page(page, pages_in_all)`` in order, each once; pages in all.

    ``on_page`` may raise, which ends the child. Raises DocumentRejected whose code is ``encrypted``, ``unsupported``,
    ``too_large`` or ``failed``, with what happened and the limit that was met.
    """
    readers = READERS_BY_MEDIA_TYPE.get(kind)
    if readers is None:
        what = "an archive within an upload, and those are not unpacked" if kind in ARCHIVES else "of a kind that cannot be read"
        raise DocumentRejected(f"It is {what}. Supported are {SUPPORTED}.", code="unsupported")
    deadline = time.monotonic() + limits.seconds
    progress = _Progress(first, reached=first, delivered=first - 1)
    deadly = 0
    while True:
        faults = []
        for reader in readers:
            order = {"path": str(path.resolve()), "reader": reader, "first": progress.delivered + 1, "last": last}
            order |= {"password": password, **asdict(limits)}
            try:
                # Closed here rather than when the error is forgotten: the child must be gone when this returns.
                with closing(_child_pages(order, progress, limits, deadline)) as pages:
                    for page in pages:
                        _deliver(page, progress, on_page)
            except (_Died, _Unreadable) as fault:
                faults.append(str(fault))
            else:
                if progress.delivered >= first or reader == readers[-1]:
                    _release(progress, on_page, faults)
                    return progress.pages
        if len(faults) < len(readers):  # the usual reader found pages without text, and the second could not be asked
            _release(progress, on_page, faults)
            return progress.pages
        deadly += 1
        if not progress.pages or deadly > MOST_DEADLY_PAGES:
            where = f" at page {progress.reached} of {progress.pages}" if progress.pages else ""
            raise DocumentRejected(f"It could not be read{where}. {'; '.join(faults)}.", code="failed")
        _deliver(Page(number=progress.reached, text="", fault="; ".join(faults)), progress, on_page)
        _release(progress, on_page, [])
        if progress.delivered >= min(last or progress.pages, progress.pages):
            return progress.pages


def _deliver(page: Page, progress: _Progress, on_page: Callable[[Page, int], None]) -> None:
    """Pages without text wait for the first page with text: while there is none, a second reader may find more."""
    progress.reached = max(progress.reached, page.number + 1)
    if progress.delivered >= progress.first or page.text.strip():
        for waiting in (*(held for number, held in sorted(progress.held.items()) if number < page.number), page):
            on_page(waiting, progress.pages)
        progress.held.clear()
        progress.delivered = page.number
    else:
        before = progress.held.get(page.number, page)
        progress.held[page.number] = replace(page, images=page.images or before.images)


def _release(progress: _Progress, on_page: Callable[[Page, int], None], faults: list[str]) -> None:
    """Nobody finds more on the pages that wait; ``faults`` are of readers that gave up on all of them."""
    for number, page in sorted(progress.held.items()):
        on_page(replace(page, fault="; ".join([*faults, page.fault])) if page.fault else page, progress.pages)
        progress.delivered = number
    progress.held.clear()


def _child_pages(order: dict[str, object], progress: _Progress, limits: Limits, deadline: float) -> Generator[Page, None, None]:
    child = subprocess.Popen(
        [sys.executable, "-B", "-m", "workers.cpu.parsing.parse_child"],
        cwd=CODE_ROOT,
        env={},  # what the file may take over should find no address and no secret
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    clock = threading.Timer(max(0.0, deadline - time.monotonic()), child.kill)
    clock.start()
    # No honest line is longer: six bytes a character at most, headings among them, and some for the frame.
    longest = 12 * limits.max_page_characters + 65536
    reader, number = order["reader"], int(str(order["first"]))
    assert child.stdout is not None
    assert child.stdin is not None
    try:
        with suppress(BrokenPipeError):  # it died at once, which its status tells
            child.stdin.write(json.dumps(order).encode() + b"\n")
            child.stdin.close()
        while line := child.stdout.readline(longest):
            match _message(line):
                case {"end": "read"}:
                    return
                case {"end": "unreadable", "reason": str(reason)}:
                    raise _Unreadable(reason)
                case {"end": "encrypted" | "unsupported" | "too_large" as code, "reason": str(reason)}:
                    raise DocumentRejected(reason, code=code)
                case {"pages": int(pages), "title": str()} if pages <= limits.max_pages:
                    progress.pages = pages
                case {
                    "page": int(told),
                    "text": str(text),
                    "images": bool(images),
                    "headings": list(headings),
                    "fault": str(fault),
                } if told == number <= progress.pages:
                    yield Page(number=number, text=text, images=images, fault=fault, headings=_headings(headings, len(text)))
                    number += 1
                case _:
                    raise _Died(f"{reader} wrote something that is not a page")
        child.wait()
        raise _death(child.returncode, str(reader), progress, limits, timed_out=time.monotonic() >= deadline)
    finally:
        clock.cancel()
        child.kill()
        child.wait()
        child.stdout.close()
        with suppress(BrokenPipeError):
            child.stdin.close()


def _message(line: bytes) -> object:
    """What the child wrote; None when it is cut off or no JSON, as a child that was taken over may write anything."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _headings(told: list[object], characters: int) -> list[Heading]:
    headings: list[Heading] = []
    for heading in told:
        match heading:
            case [int(start), int(level), str(title)] if 0 <= start <= characters and level > 0:
                headings.append((start, level, title[:500]))
    return headings


def _death(returncode: int, reader: str, progress: _Progress, limits: Limits, *, timed_out: bool) -> Exception:
    if timed_out or returncode == -signal.SIGXCPU:
        where = f", at page {progress.reached} of {progress.pages}" if progress.pages else ""
        return DocumentRejected(
            f"Reading it took longer than {limits.seconds:g} s and was stopped{where} (ENGINEHOUSE_PARSE_SECONDS).",
            code="too_large",
        )
    how = f"was ended by {signal.Signals(-returncode).name}" if returncode < 0 else f"exited with {returncode}"
    return _Died(f"{reader} {how}; it may use {limits.memory_bytes // 2**20} MiB (ENGINEHOUSE_PARSE_MEMORY_BYTES)")
