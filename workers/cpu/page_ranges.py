"""Parallel parsing of a long document: its pages are read in ranges, which are then joined into ``pages.jsonl``.

Each range is written to a file whose name contains its first page, the pages in total, its characters and its SHA-256. A later attempt keeps the ranges that an earlier one
finished, and reads only those that are missing or damaged. Memory holds at most the pages of the ranges being read.
"""

import dataclasses
import hashlib
import json
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from shared.documents.files import DocumentFiles
from shared.documents.media_types import PDF, MediaType
from shared.errors import DocumentRejected
from shared.tracing import span
from shared.work_context import current_work
from workers.cpu.cpu_slots import CpuSlots
from workers.cpu.parallel_parts import ParallelParts
from workers.cpu.parsing.parser import CharacterBudget, Limits, Page, read_pages
from workers.cpu.repeated_lines import MIN_REPEATS, RepeatedLines
from workers.cpu.sandbox.child_process import ChildProcesses

RANGE_PAGES = 200

_DRAFT_PREFIX = ".range."
_RANGE_FILE = re.compile(r"range\.(\d+)\.(\d+)\.(\d+)\.([0-9a-f]{64})")


class PageRanges:
    """The page ranges of one document.

    ``check`` raises when the attempt must stop; another thread then kills ``children``. All ranges together may take
    ``seconds``. ``on_progress`` is called with pages done and pages in total. ``on_range`` is called
    between ranges and may raise: what has been read by then stays for the next attempt. With ``layout``, the tables and columns of
    a PDF are arranged, and lines that repeat on most of its pages are removed.
    """

    def __init__(
        self,
        files: DocumentFiles,
        document_id: str,
        media_type: MediaType,
        limits: Limits,
        *,
        password: str,
        slots: CpuSlots,
        children: ChildProcesses,
        seconds: float,
        check: Callable[[], None],
        on_progress: Callable[[int, int], None],
        on_range: Callable[[], None] = lambda: None,
        layout: bool = True,
    ) -> None:
        self._files = files
        self._document_id = document_id
        self._folder = files.path(document_id, "original").parent
        self._media_type = media_type
        self._limits = limits
        self._password = password
        self._children = children
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._budget = CharacterBudget(limits.max_characters)
        self._check = check
        self._on_progress = on_progress
        self._on_range = on_range
        self._layout = layout
        self._lock = threading.Lock()
        self._done = 0
        self._total = 0
        self._parts = ParallelParts(slots)
        # Ranges are read in threads, which do not know what this one works on.
        self._traceparent = current_work().traceparent

    def write_pages(self) -> None:
        """Write ``pages.jsonl``. Raises what ``read_pages`` and ``check`` raise; finished ranges then stay for the next attempt."""
        ranges = self._finished_ranges()
        if 1 not in ranges:
            ranges[1] = self._read_range(1)
        missing = [first for first in range(1, self._total + 1, self._range_length) if first not in ranges]
        self._done = min(self._total, len(ranges) * self._range_length)
        if missing:
            self._on_range()
            ranges |= self._read_in_parallel(missing)
        with self._files.replace(self._document_id, "pages.jsonl") as target:
            paths = [path for _, path in sorted(ranges.items())]
            repeated = RepeatedLines()
            if self._layout and self._media_type == PDF and self._total >= MIN_REPEATS:
                for page in _pages(paths):
                    repeated.count(page.number, page.text)
            if repeated.found_any():
                for page in _pages(paths):
                    target.write(_json_line(repeated.remove(page)))
            else:
                for path in paths:
                    with path.open("rb") as source:
                        shutil.copyfileobj(source, target, 1024 * 1024)
        for path in ranges.values():
            path.unlink(missing_ok=True)

    @property
    def _range_length(self) -> int:
        # Readers of other formats always read from the beginning, so those documents are a single range.
        return RANGE_PAGES if self._media_type == PDF else max(1, self._total)

    def _finished_ranges(self) -> dict[int, Path]:
        """Intact range files of earlier attempts by first page. Damaged ones are deleted."""
        finished: dict[int, Path] = {}
        # A killed attempt leaves the drafts that it was writing.
        for draft in self._folder.glob(f"{_DRAFT_PREFIX}*"):
            draft.unlink(missing_ok=True)
        for path in self._folder.glob("range.*"):
            name = _RANGE_FILE.fullmatch(path.name)
            if name is None or _sha256(path) != name[4]:
                path.unlink(missing_ok=True)
            else:
                finished[int(name[1])] = path
                self._total = int(name[2])
                self._budget.spend(int(name[3]), int(name[1]))
        return finished

    def _read_in_parallel(self, missing: list[int]) -> dict[int, Path]:
        finished = dict[int, Path]()

        def read(first: int, is_here: bool) -> None:
            finished[first] = self._read_range(first)
            if is_here:
                self._on_range()

        self._parts.read(missing, read)
        return finished

    def _read_range(self, first: int) -> Path:
        """Read one range into a file; the name that it gets at the end marks it as complete."""
        digest, characters = hashlib.sha256(), 0
        draft = self._folder / f"{_DRAFT_PREFIX}{secrets.token_hex(4)}"
        last = first + RANGE_PAGES - 1 if self._media_type == PDF else None
        try:
            with draft.open("wb") as target, span("parse child", attributes={"first_page": first}, parent=self._traceparent):

                def on_page(page: Page, total: int) -> None:
                    nonlocal characters
                    self._parts.check()
                    self._check()
                    line = _json_line(page)
                    characters += page.characters
                    digest.update(line)
                    target.write(line)
                    with self._lock:
                        self._total = total
                        self._done += 1
                        self._on_progress(self._done, total)

                original = self._files.path(self._document_id, "original")
                self._total = read_pages(
                    original,
                    self._media_type,
                    dataclasses.replace(self._limits, seconds=min(self._limits.seconds, self._seconds_left())),
                    on_page,
                    first=first,
                    last=last,
                    password=self._password,
                    children=self._children,
                    budget=self._budget,
                    arranged=self._layout,
                )
            # No fsync: if the machine crashes and the data is lost, the checksum will not match.
            return draft.rename(self._folder / f"range.{first}.{self._total}.{characters}.{digest.hexdigest()}")
        except DocumentRejected:
            self._check()  # a stop kills the child, which then looks as if it had crashed
            self._seconds_left()
            raise
        finally:
            draft.unlink(missing_ok=True)

    def _seconds_left(self) -> float:
        """Raises DocumentRejected if there are none."""
        seconds = self._deadline - time.monotonic()
        if seconds <= 0:
            raise DocumentRejected(
                f"Reading the document took longer than {self._seconds:g} s and was stopped after {self._done} of {self._total} "
                "pages (ENGINEHOUSE_MAX_DOCUMENT_SECONDS).",
                code="too_large",
            )
        return seconds


def _pages(paths: Sequence[Path]) -> Iterator[Page]:
    for path in paths:
        with path.open("rb") as source:
            for line in source:
                yield Page(**json.loads(line))


def _json_line(page: Page) -> bytes:
    return json.dumps(dataclasses.asdict(page), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
