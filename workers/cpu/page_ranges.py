"""The pages of a document, read in ranges side by side and put together into one file.

Each range is a step of its own: a file that is named by its SHA-256, so that an attempt takes over what an earlier one
finished and reads again only what is missing or spoilt. At most the pages of the ranges under way are in memory.
"""

import dataclasses
import hashlib
import json
import re
import secrets
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from shared.documents.files import DocumentFiles
from shared.documents.media_types import PDF, MediaType
from workers.cpu.cpu_slots import CpuSlot, CpuSlots
from workers.cpu.parsing.parser import Limits, Page, read_pages

RANGE_PAGES = 200

_NAME = re.compile(r"range\.(\d+)\.(\d+)\.([0-9a-f]{64})")


class _Stopped(Exception):
    """Another range met the end of the attempt."""


class PageRanges:
    """The ranges of one document. ``check`` raises when the attempt must not go on; ``told`` hears pages done, pages in all."""

    def __init__(
        self,
        files: DocumentFiles,
        document_id: str,
        kind: MediaType,
        limits: Limits,
        *,
        password: str,
        slots: CpuSlots,
        check: Callable[[], None],
        told: Callable[[int, int], None],
    ) -> None:
        self._files = files
        self._document_id = document_id
        self._folder = files.path(document_id, "original").parent
        self._kind = kind
        self._limits = limits
        self._password = password
        self._slots = slots
        self._check = check
        self._told = told
        self._lock = threading.Lock()
        self._done = 0
        self._total = 0
        self._failed = threading.Event()

    def write(self) -> None:
        """Write ``pages.jsonl``. Raises what ``read_pages`` and ``check`` do; then what was finished stays for the next attempt."""
        kept = self._kept()
        if 1 not in kept:
            kept[1] = self._read(1)
        missing = [first for first in range(1, self._total + 1, self._step) if first not in kept]
        self._done = min(self._total, len(kept) * self._step)
        if missing:
            kept |= self._read_side_by_side(missing)
        with self._files.replace(self._document_id, "pages.jsonl") as target:
            for _, path in sorted(kept.items()):
                with path.open("rb") as source:
                    shutil.copyfileobj(source, target, 1024 * 1024)
        for path in kept.values():
            path.unlink(missing_ok=True)

    @property
    def _step(self) -> int:
        # Other formats must be read from their beginning, whichever page is wanted.
        return RANGE_PAGES if self._kind == PDF else max(1, self._total)

    def _kept(self) -> dict[int, Path]:
        """First page -> file, of the ranges that an earlier attempt finished and that are as it left them."""
        kept: dict[int, Path] = {}
        for path in self._folder.glob("range.*"):
            name = _NAME.fullmatch(path.name)
            if name is None or _digest(path) != name[3]:
                path.unlink(missing_ok=True)
            else:
                kept[int(name[1])] = path
                self._total = int(name[2])
        return kept

    def _read_side_by_side(self, missing: list[int]) -> dict[int, Path]:
        """Read ranges here, and in a thread beside for each place that is free when one ends here."""
        waiting, read = iter(missing), dict[int, Path]()

        def read_next() -> bool:
            with self._lock:
                first = next(waiting, None)
            if first is not None:
                read[first] = self._read(first)
            return first is not None

        def read_beside(slot: CpuSlot) -> None:
            try:
                read_next()
            except BaseException:
                self._failed.set()
                raise
            finally:
                slot.release()

        beside: set[Future[None]] = set()
        with ThreadPoolExecutor(self._slots.count, thread_name_prefix="range") as pool:
            try:
                while True:
                    for ended in [one for one in beside if one.done()]:
                        beside.remove(ended)
                        ended.result()
                    while len(beside) < min(self._slots.count, len(missing) - len(read)) - 1 and (slot := self._slots.acquire()):
                        beside.add(pool.submit(read_beside, slot))
                    if not read_next():
                        break
            except _Stopped:
                pass  # what stopped it is told below
            except BaseException:
                self._failed.set()
                raise
            for one in beside:
                one.result()
        return read

    def _read(self, first: int) -> Path:
        """One range, to a file whose name says that it is whole."""
        digest = hashlib.sha256()
        draft = self._folder / f".range.{secrets.token_hex(4)}"
        last = first + RANGE_PAGES - 1 if self._kind == PDF else None
        try:
            with draft.open("wb") as target:

                def on_page(page: Page, total: int) -> None:
                    if self._failed.is_set():
                        raise _Stopped
                    self._check()
                    line = json.dumps(dataclasses.asdict(page), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
                    digest.update(line)
                    target.write(line)
                    with self._lock:
                        self._total = total
                        self._done += 1
                        self._told(self._done, total)

                original = self._files.path(self._document_id, "original")
                self._total = read_pages(
                    original, self._kind, self._limits, on_page, first=first, last=last, password=self._password
                )
            # Not forced to the disk: should the machine lose it, the checksum tells.
            return draft.rename(self._folder / f"range.{first}.{self._total}.{digest.hexdigest()}")
        finally:
            draft.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
