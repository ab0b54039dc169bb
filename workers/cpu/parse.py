"""Reads the pages of a file in a child process, whatever the file does to the child.

The parent holds the clock, asks for a second opinion when the usual reader dies, refuses or finds nothing, and turns
every end into a plain one. It opens no PDF itself and knows nothing of documents' records.
"""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from shared.documents.kinds import PDF, SUPPORTED, TEXT, MediaType
from shared.errors import DocumentRejected

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one file may take: wall clock in seconds, memory in bytes, pages, characters a page."""

    seconds: float
    memory_bytes: int
    max_pages: int
    max_page_characters: int


@dataclass(frozen=True, kw_only=True)
class Page:
    """The text of a page. ``number`` counts from 1; ``images`` is told only where there is no text.

    ``headings`` are lists of start (offset in the text), level (from 1) and title, in the order of their starts.
    """

    number: int
    text: str
    images: bool = False
    fault: str = ""
    headings: list[list[Any]] = field(default_factory=list)


@dataclass
class _Progress:
    """What the children have told so far."""

    pages: int = 0
    title: str = ""
    delivered: int = 0
    held: dict[int, Page] = field(default_factory=dict)


class _Died(Exception):
    """A child ended without an end; the message says how."""


class _Unreadable(Exception):
    """A reader refused the file."""


def read_pages(path: Path, kind: MediaType, limits: Limits, on_page: Callable[[Page, int], None]) -> str:
    """Hand the pages of a file to ``on_page(page, pages_in_all)`` in order, each once; the document's own title, or "".

    ``on_page`` may raise, which ends the child. Raises DocumentRejected whose code is ``encrypted``, ``unsupported``,
    ``too_large``, ``needs_ocr``, ``empty`` or ``failed``, with what happened and the limit that was met.
    """
    if kind not in (PDF, TEXT):
        raise DocumentRejected(f"It is neither a PDF nor text. Supported are {SUPPORTED}.", code="unsupported")
    deadline = time.monotonic() + limits.seconds
    progress, faults = _Progress(), []
    for reader in ("pypdfium2", "pypdf") if kind == PDF else ("text",):
        try:
            # Closed here rather than when the error is forgotten: the child must be gone when this returns.
            with closing(_child_pages(path, reader, progress, limits, deadline)) as pages:
                for page in pages:
                    _deliver(page, progress, on_page)
        except (_Died, _Unreadable) as fault:
            faults.append(str(fault))
        else:
            if progress.delivered:
                return progress.title
    if faults and (progress.delivered or not progress.held):
        where = f" at page {progress.delivered + 1} of {progress.pages}" if progress.pages else ""
        raise DocumentRejected(f"It could not be read{where}. {'; '.join(faults)}.", code="failed")
    raise _without_text(list(progress.held.values()), progress.pages, faults)


def _deliver(page: Page, progress: _Progress, on_page: Callable[[Page, int], None]) -> None:
    """Pages without text wait for the first page with text: while there is none, a second reader may find more."""
    if progress.delivered or page.text.strip():
        for waiting in (*(held for number, held in sorted(progress.held.items()) if number < page.number), page):
            on_page(waiting, progress.pages)
        progress.held.clear()
        progress.delivered = page.number
    else:
        before = progress.held.get(page.number, page)
        progress.held[page.number] = replace(page, images=page.images or before.images)


def _without_text(pages: list[Page], total: int, faults: list[str]) -> DocumentRejected:
    pictures = [page.number for page in pages if page.images]
    broken = [page for page in pages if page.fault]
    if pictures:
        where = f"{ranges(pictures)} of {total}"
        return DocumentRejected(
            f"It holds no text, only images (pages {where}). Run OCR on it and upload the result.", code="needs_ocr"
        )
    if broken:
        how = "; ".join([*faults, broken[0].fault])
        return DocumentRejected(f"None of its {total} pages gave text; {len(broken)} could not be read. {how}.", code="failed")
    return DocumentRejected("It holds neither text nor images.", code="empty")


def ranges(numbers: list[int]) -> str:
    """Rising numbers in short: ``1-3, 7``."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)


def _child_pages(path: Path, reader: str, progress: _Progress, limits: Limits, deadline: float) -> Generator[Page, None, None]:
    first = progress.delivered + 1
    order = {"path": str(path.resolve()), "reader": reader, "first": first, **asdict(limits)}
    child = subprocess.Popen(
        [sys.executable, "-B", "-m", "workers.cpu.parse_child", json.dumps(order)],
        cwd=REPOSITORY,
        env={},  # what the file may take over should find no address and no secret
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    clock = threading.Timer(max(0.0, deadline - time.monotonic()), child.kill)
    clock.start()
    # No honest line is longer: six bytes a character at most, and some for the frame.
    longest = 6 * limits.max_page_characters + 4096
    try:
        assert child.stdout is not None
        number = first
        while line := child.stdout.readline(longest):
            match _message(line):
                case {"end": "read"}:
                    return
                case {"end": "unreadable", "reason": str(reason)}:
                    raise _Unreadable(reason)
                case {"end": "encrypted" | "unsupported" | "too_large" as code, "reason": str(reason)}:
                    raise DocumentRejected(reason, code=code)
                case {"pages": int(pages), "title": str(title)} if pages <= limits.max_pages:
                    progress.pages, progress.title = pages, title
                case {"page": int(told), "fault": str(fault)} if told == number <= progress.pages:
                    yield Page(number=number, text="", fault=fault)
                    number += 1
                case {"page": int(told), "text": str(text), "images": bool(images)} if told == number <= progress.pages:
                    yield Page(number=number, text=text, images=images)
                    number += 1
                case _:
                    raise _Died(f"{reader} wrote something that is not a page")
        child.wait()
        raise _death(child.returncode, reader, progress, limits, timed_out=time.monotonic() >= deadline)
    finally:
        clock.cancel()
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def _message(line: bytes) -> object:
    """What the child wrote; None when it is cut off or no JSON, as a child that was taken over may write anything."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _death(returncode: int, reader: str, progress: _Progress, limits: Limits, *, timed_out: bool) -> Exception:
    if timed_out or returncode == -signal.SIGXCPU:
        where = f", at page {progress.delivered + 1} of {progress.pages}" if progress.pages else ""
        return DocumentRejected(
            f"Reading it took longer than {limits.seconds:g} s and was stopped{where} (ENGINEHOUSE_PARSE_SECONDS).",
            code="too_large",
        )
    how = f"was ended by {signal.Signals(-returncode).name}" if returncode < 0 else f"exited with {returncode}"
    return _Died(f"{reader} {how}; it may use {limits.memory_bytes // 2**20} MiB (ENGINEHOUSE_PARSE_MEMORY_BYTES)")
