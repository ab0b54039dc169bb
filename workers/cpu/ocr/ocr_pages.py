"""OCR of a document: the pages of ``pages.jsonl`` that are pictures, and pictures inside other pages, are read in sandboxed children and
merged into it.

Each page, and each picture inside an Office file or a message, is stored in ``ocr.jsonl`` as soon as it is read, so that a later attempt
reads only those that are missing.
"""

import dataclasses
import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from shared.documents.files import DocumentFiles
from shared.documents.media_types import PDF, PICTURES, WITH_PICTURES, MediaType
from shared.errors import DocumentRejected
from shared.tracing import span
from shared.work_context import current_work
from workers.cpu.cpu_slots import CpuSlots
from workers.cpu.ocr.installation import LANGUAGES_SETTING
from workers.cpu.ocr.recognizer import OCR_FAULT, OcrLimits, OcrResult, PageRequest, recognize_pages
from workers.cpu.parallel_parts import ParallelParts
from workers.cpu.parsing.parser import CharacterBudget, OcrPart, Page
from workers.cpu.readers.outline import place_headings
from workers.cpu.readers.reader import NEEDS_OCR, NO_OCR_TEXT, ONLY_NOTES, Picture
from workers.cpu.readers.text_builder import MAX_FAULT_CHARACTERS
from workers.cpu.sandbox.child_process import ChildProcesses

_Key = tuple[int, str]
"""The number of a page, and the name of a picture inside it or ""."""

BLOCK_PAGES = 25
"""Pages or pictures that one child reads. It takes a second to start and load its models."""


@dataclass(frozen=True, kw_only=True)
class OcrSettings:
    """Which engine reads which languages, which setting or field names these, whether pictures on pages with text are read too, and the limits."""

    engine: str
    languages: Sequence[str]
    languages_named_by: str = LANGUAGES_SETTING
    images: bool
    limits: OcrLimits
    document_seconds: float


def needs_ocr(page: Page) -> bool:
    """Whether a page shows text that has not been read."""
    if page.confidence is not None:
        return False
    return (page.images and not page.text.strip()) or page.fault.startswith(NEEDS_OCR) or ONLY_NOTES in page.fault


class OcrPages:
    """The scanned pages of one document.

    ``check`` raises when the attempt must stop; another thread then kills ``children``. ``on_progress`` is called with pages done
    and pages in total. ``on_page`` is called between pages and may raise: what has been read stays for the next attempt.
    """

    def __init__(
        self,
        files: DocumentFiles,
        document_id: str,
        media_type: MediaType,
        settings: OcrSettings,
        *,
        password: str,
        slots: CpuSlots,
        children: ChildProcesses,
        budget: CharacterBudget,
        check: Callable[[], None],
        on_progress: Callable[[int, int], None],
        on_page: Callable[[], None] = lambda: None,
    ) -> None:
        self._files = files
        self._document_id = document_id
        self._media_type = media_type
        self._settings = settings
        self._password = password
        self._slots = slots
        self._children = children
        self._budget = budget
        self._check = check
        self._on_progress = on_progress
        self._on_page = on_page
        self._deadline = time.monotonic() + settings.document_seconds
        self._lock = threading.Lock()
        self._results: dict[_Key, OcrResult] = {}
        self._unread: Counter[int] = Counter()
        self._total = 0
        self._parts = ParallelParts(slots)
        # Blocks are read in threads, which do not know what this one works on.
        self._traceparent = current_work().traceparent

    def read_missing(self) -> None:
        """Read what ``pages.jsonl`` lacks, if anything. Raises DocumentRejected, and what ``check`` and ``on_page`` raise."""
        if self._media_type not in (PDF, *PICTURES, *WITH_PICTURES):
            return
        requests = self._requests()
        results_file = self._files.path(self._document_id, "ocr.jsonl")
        if requests:
            for result in self._stored_results():
                self._results[result.number, result.picture] = result
                self._budget.spend(len(result.text), result.number)
            missing = [request for request in requests if (request.number, request.picture) not in self._results]
            self._total = len({request.number for request in requests})
            self._unread = Counter(request.number for request in missing)
            if missing:
                self._read_in_parallel(missing)
            # First, because from the next step on no page needs OCR any more.
            self._write_boxes()
            with self._files.replace(self._document_id, "pages.jsonl") as target:
                for page in self._pages():
                    target.write(_json_line(self._merged(page)))
        results_file.unlink(missing_ok=True)

    def _merged(self, page: Page) -> Page:
        if page.pictures:
            found = {name: self._results[page.number, name] for _, name in page.pictures if (page.number, name) in self._results}
            return merge_pictures(page, found) if found or self._settings.images else page
        result = self._results.get((page.number, ""))
        return page if result is None else merge(page, result)

    def _pages(self) -> Iterator[Page]:
        with self._files.path(self._document_id, "pages.jsonl").open("rb") as source:
            for line in source:
                yield Page(**json.loads(line))

    def _write_boxes(self) -> None:
        """Write where the lines are, with their characters in the text that the pages will have. Pages of an earlier job keep theirs."""
        lines: dict[int, list[list[int]]] = {}
        with suppress(FileNotFoundError), self._files.path(self._document_id, "ocr-boxes.jsonl").open("rb") as source:
            lines = {entry["page"]: entry["lines"] for entry in map(json.loads, source)}
        for page in self._pages():
            found = self._results.get((page.number, ""))
            if found is not None and found.text:
                offset = merge(page, found).ocr_start
                lines[page.number] = [[start + offset, end + offset, *place] for start, end, *place in found.boxes]
        with self._files.replace(self._document_id, "ocr-boxes.jsonl") as target:
            for number in sorted(lines):
                target.write(json.dumps({"page": number, "lines": lines[number]}, separators=(",", ":")).encode() + b"\n")

    def _requests(self) -> list[PageRequest]:
        """Pages to read. If no page of the document has text, those on which OCR failed in an earlier job are read again."""
        scanned: list[PageRequest] = []
        failed: list[PageRequest] = []
        has_text = False
        shown: set[str] = set()
        for page in self._pages():
            has_text = has_text or bool(page.text.strip())
            if needs_ocr(page):
                scanned += self._requests_for(page)
            elif page.confidence is None and self._settings.images and page.text.strip():
                # A logo that is on many slides is read with the first of them.
                scanned += [request for request in self._requests_inside(page) if request.picture not in shown]
            elif page.confidence == 0 and OCR_FAULT in page.fault:
                failed += self._requests_for(page)
            shown.update(name for _, name in page.pictures)
        return scanned if has_text else sorted([*scanned, *failed], key=lambda request: request.number)

    def _requests_for(self, page: Page) -> list[PageRequest]:
        """A page of a scan is read as a whole. Office files and messages have only the pictures on it."""
        if self._media_type == PDF or self._media_type in PICTURES:
            return [PageRequest(page.number)]
        return [PageRequest(page.number, picture=name) for _, name in page.pictures]

    def _requests_inside(self, page: Page) -> list[PageRequest]:
        return [PageRequest(page.number, inside=True)] if self._media_type == PDF else self._requests_for(page)

    def _stored_results(self) -> Iterator[OcrResult]:
        """What an earlier attempt has read. A line that was cut or damaged by a crash does not match its checksum."""
        with suppress(FileNotFoundError), self._files.path(self._document_id, "ocr.jsonl").open("rb") as source:
            for line in source:
                checksum, _, data = line.rstrip(b"\n").partition(b" ")
                if checksum == _checksum(data):
                    yield OcrResult(**json.loads(data))

    def _store(self, result: OcrResult) -> None:
        self._budget.spend(len(result.text), result.number)
        data = json.dumps(dataclasses.asdict(result), ensure_ascii=False, separators=(",", ":")).encode()
        # It begins with a line end, because an attempt that was killed may have left half a line.
        with self._lock:
            with self._files.path(self._document_id, "ocr.jsonl").open("ab") as target:
                target.write(b"\n" + _checksum(data) + b" " + data + b"\n")
            self._results[result.number, result.picture] = result
            self._unread[result.number] -= 1
            self._report_progress()

    def _report_progress(self) -> None:
        self._on_progress(self._total - sum(count > 0 for count in self._unread.values()), self._total)

    def _read_in_parallel(self, missing: Sequence[PageRequest]) -> None:
        self._report_progress()
        length = max(1, min(BLOCK_PAGES, -(-len(missing) // self._slots.count)))
        blocks = [missing[start : start + length] for start in range(0, len(missing), length)]
        self._parts.read(blocks, lambda block, is_here: self._read_block(block, may_give_way=is_here))

    def _read_block(self, block: Sequence[PageRequest], *, may_give_way: bool) -> None:
        def on_result(result: OcrResult) -> None:
            if result.fault:
                self._check()  # a stop kills the child, and its page has then not failed
            self._store(result)
            self._parts.check()
            self._check()
            if may_give_way:
                self._on_page()

        original = self._files.path(self._document_id, "original")
        if not original.exists():
            raise DocumentRejected("The file was deleted, as it could not be read. Upload it again.", code="failed")
        try:
            with span("ocr child", attributes={"pages": len(block)}, parent=self._traceparent):
                recognize_pages(
                    original,
                    self._media_type,
                    block,
                    self._settings.engine,
                    self._settings.languages,
                    self._settings.limits,
                    on_result,
                    languages_named_by=self._settings.languages_named_by,
                    password=self._password,
                    children=self._children,
                    deadline=self._deadline,
                )
        except DocumentRejected:
            self._check()  # a stop kills the child, which then looks as if it had crashed
            raise


def merge(page: Page, result: OcrResult) -> Page:
    """A page with what OCR found on it."""
    faults = [part for part in page.fault.split("; ") if part and part not in (NEEDS_OCR, ONLY_NOTES)]
    is_scan = needs_ocr(page) or page.confidence == 0
    if is_scan and OCR_FAULT in page.fault:
        faults = [part for part in faults if OCR_FAULT not in part]
    if not result.text:
        if result.fault or is_scan:
            faults.insert(0, result.fault or NO_OCR_TEXT)
        return dataclasses.replace(page, confidence=0.0, ocr_start=len(page.text), fault="; ".join(faults))
    fault = "; ".join([*filter(None, [result.fault]), *faults])
    if is_scan and ONLY_NOTES not in page.fault:
        # A few words over a scan, such as a stamp, are part of what the picture shows.
        headings = place_headings([(level, title) for _, level, title in page.headings], result.text)
        return Page(number=page.number, text=result.text, headings=headings, fault=fault, confidence=result.confidence)
    before = f"{page.text.rstrip()}\n\n" if page.text.strip() else ""
    return dataclasses.replace(
        page, text=before + result.text, images=False, fault=fault, confidence=result.confidence, ocr_start=len(before)
    )


def merge_pictures(page: Page, results: Mapping[str, OcrResult]) -> Page:
    """A page with the text of its pictures, each where the page shows it. Those that failed stay, for a retry."""
    own = page.text if page.text.strip() else ""
    text, position, grown = "", 0, list[tuple[int, int]]()
    parts: list[OcrPart] = []
    failed: list[Picture] = []
    for offset, name in page.pictures:
        found = results.get(name)
        text += own[position:offset]
        position = offset
        if found is not None and found.text:
            rest = own[offset : offset + 2]
            before = "\n" * (2 - min(2, len(text) - len(text.rstrip("\n")))) if text else ""
            after = "\n" * (2 - (len(rest) - len(rest.lstrip("\n"))))
            start = len(text) + len(before)
            text += f"{before}{found.text}{after}"
            grown.append((offset, len(before) + len(found.text) + len(after)))
            parts.append((start, start + len(found.text), found.confidence))
        if found is not None and found.fault:
            failed.append((len(text), name))
    text = text + own[position:] if position < len(own) else text.rstrip()
    faults = [part for part in page.fault.split("; ") if part and not (page.confidence == 0 and OCR_FAULT in part)]
    for result in results.values():
        if result.fault and len("; ".join(faults)) < MAX_FAULT_CHARACTERS:
            faults.append(result.fault)
    if not parts and not faults and not own:
        faults.append(NO_OCR_TEXT)
    length = sum(end - start for start, end, _ in parts)
    confidence = round(sum((end - start) * each for start, end, each in parts) / max(1, length), 4)
    return dataclasses.replace(
        page,
        text=text,
        images=page.images and not parts,
        fault="; ".join(faults),
        headings=[
            (offset + sum(more for at, more in grown if at <= offset), level, title) for offset, level, title in page.headings
        ],
        confidence=confidence if results else page.confidence,
        ocr_start=len(text),
        ocr_parts=parts,
        pictures=failed,
    )


def _json_line(page: Page) -> bytes:
    return json.dumps(dataclasses.asdict(page), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _checksum(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest()[:16].encode()
