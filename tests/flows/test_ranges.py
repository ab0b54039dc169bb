"""Page ranges: a long document is read in parallel, and a second attempt keeps the ranges that the first one finished."""

import hashlib
import json
import os
import threading
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fpdf import FPDF

from shared.documents.files import DocumentFiles
from shared.documents.media_types import PDF, TEXT
from shared.errors import DocumentRejected
from shared.ids import DOCUMENT, new_id
from testing.fault_rig.processes import find_descendant
from testing.waiting import wait_until
from tests.flows.test_ingest_parse import stream as content_stream
from tests.odd_files import many_pages, pdf
from workers.cpu.chunking import chunk_pages
from workers.cpu.cpu_slots import CpuSlots
from workers.cpu.indexer import read_parsed_pages
from workers.cpu.page_ranges import RANGE_PAGES, PageRanges
from workers.cpu.pages.drawing import PageRequest, draw_page
from workers.cpu.parsing.page_summary import summarize_pages
from workers.cpu.parsing.parser import Limits, Page
from workers.cpu.sandbox.child_process import ChildProcesses
from workers.runtime.attempt import AttemptStopped

LIMITS = Limits(seconds=60, memory_bytes=512 << 20, max_pages=10_000, max_page_characters=100_000)
PAGES = 3 * RANGE_PAGES + 7


@pytest.fixture(scope="module")
def long_pdf() -> bytes:
    return pdf(*(f"This is page {number}." for number in range(1, PAGES + 1)))


class Reading:
    """One document in ``folder``, and the progress reported while it is read."""

    def __init__(self, folder: Path, data: bytes, slots: int = 2) -> None:
        self.files = DocumentFiles(folder / "documents")
        self.id = new_id(DOCUMENT)
        self.slots = CpuSlots(folder / "cpu-slots", slots)
        self.progress: list[tuple[int, int]] = []
        self.stop_at = 0
        self.children = ChildProcesses()
        self.seconds = 60.0
        self.limits = LIMITS
        self.media_type = PDF
        self.threads_seen: set[int] = set()
        original = self.files.path(self.id, "original")
        original.parent.mkdir(parents=True)
        original.write_bytes(data)
        self.folder = original.parent

    def check(self) -> None:
        self.threads_seen.add(threading.get_ident())
        if self.stop_at and len(self.progress) >= self.stop_at:
            raise AttemptStopped("cancel")

    def write(self) -> None:
        PageRanges(
            self.files,
            self.id,
            self.media_type,
            self.limits,
            password="",
            slots=self.slots,
            children=self.children,
            seconds=self.seconds,
            check=self.check,
            on_progress=lambda done, total: self.progress.append((done, total)),
        ).write_pages()

    def texts(self) -> list[str]:
        return [page.text.strip() for page in read_parsed_pages(self.files, self.id)]

    def names(self) -> set[str]:
        return {path.name.split(".")[0] for path in self.folder.iterdir()}


EXPECTED = [f"This is page {number}." for number in range(1, PAGES + 1)]


def test_ranges_are_read_in_parallel_and_joined_in_order(tmp_path: Path, long_pdf: bytes) -> None:
    reading = Reading(tmp_path, long_pdf)
    reading.write()
    assert reading.texts() == EXPECTED
    assert len(reading.threads_seen) > 1
    assert reading.progress[-1] == (PAGES, PAGES)
    assert [done for done, _ in reading.progress] == list(range(1, PAGES + 1))
    assert reading.names() == {"original", "pages"}


def test_without_a_free_slot_a_document_is_read_in_one_thread(tmp_path: Path, long_pdf: bytes) -> None:
    reading = Reading(tmp_path, long_pdf)
    slots = [reading.slots.acquire(), reading.slots.acquire()]
    assert reading.slots.acquire() is None
    reading.write()
    assert reading.texts() == EXPECTED
    assert len(reading.threads_seen) == 1
    for slot in slots:
        assert slot is not None
        slot.release()
    assert reading.slots.acquire() is not None


def test_a_second_attempt_reads_only_missing_or_damaged_ranges(tmp_path: Path, long_pdf: bytes) -> None:
    reading = Reading(tmp_path, long_pdf, slots=1)
    reading.stop_at = 2 * RANGE_PAGES + 50
    with pytest.raises(AttemptStopped):
        reading.write()
    first, second = sorted(reading.folder.glob("range.*"))
    assert not list(reading.folder.glob(".*"))
    second.write_bytes(second.read_bytes().replace(b"This is page 222.", b"This is page 2222."))
    whole = first.read_bytes()
    assert first.name.split(".")[1:3] == ["1", str(PAGES)]
    assert first.name.endswith(hashlib.sha256(whole).hexdigest())
    reading.stop_at, reading.progress = 0, []
    reading.write()
    assert len(reading.progress) == PAGES - RANGE_PAGES
    assert reading.progress[-1] == (PAGES, PAGES)
    assert reading.texts() == EXPECTED
    assert reading.files.path(reading.id, "pages.jsonl").read_bytes().startswith(whole)


def test_an_error_in_one_range_stops_the_others(tmp_path: Path, long_pdf: bytes) -> None:
    reading = Reading(tmp_path, long_pdf)
    helper_failed = threading.Event()

    def check() -> None:
        if threading.current_thread() is not threading.main_thread():
            helper_failed.set()
            raise AttemptStopped("lost")

    reading.check = check  # type: ignore[method-assign]
    with pytest.raises(AttemptStopped, match="lost"):
        reading.write()
    assert helper_failed.is_set()
    assert not reading.files.path(reading.id, "pages.jsonl").exists()


def test_the_error_of_the_failed_range_is_raised_and_not_that_of_a_stopped_one(
    tmp_path: Path, long_pdf: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading(tmp_path, long_pdf, slots=3)
    reading.write()  # so that the first range, which tells the number of pages, can be returned at once
    reading.files.path(reading.id, "pages.jsonl").unlink()
    all_started = threading.Barrier(3)

    def read_pages(*arguments: Any, first: int, **options: Any) -> int:
        if first == 1:
            return PAGES
        all_started.wait(240)
        if first == 1 + RANGE_PAGES:
            raise DocumentRejected("A page is too large.", code="too_large")
        on_page = arguments[3]
        while True:  # until it is stopped because of the failed range
            on_page(Page(number=first, text="text"), PAGES)

    monkeypatch.setattr("workers.cpu.page_ranges.read_pages", read_pages)
    with pytest.raises(DocumentRejected, match="too large"):
        reading.write()


def test_drafts_of_a_killed_attempt_are_deleted(tmp_path: Path) -> None:
    reading = Reading(tmp_path, pdf("One."))
    (reading.folder / ".range.0123abcd").write_text("half a range")
    reading.write()
    assert reading.texts() == ["One."]
    assert reading.names() == {"original", "pages"}


@pytest.mark.slow_fault
def test_five_thousand_pages_are_never_held_at_once(tmp_path: Path) -> None:
    words = "The boiler of the engine house is fed by hand. " * 60
    reading = Reading(tmp_path, many_pages(*(f"Page {number}. {words}" for number in range(1, 5001))))
    tracemalloc.start()
    try:
        reading.write()
        found = summarize_pages(read_parsed_pages(reading.files, reading.id))
        pages = read_parsed_pages(reading.files, reading.id)
        chunks = sum(1 for _ in chunk_pages(pages, lambda text: len(text) // 4, size=800, overlap=0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (found.pages, chunks, reading.progress[-1]) == (5000, 5000, (5000, 5000))
    written = reading.files.path(reading.id, "pages.jsonl").stat().st_size
    assert written > 5000 * len(words)
    assert peak < 0.25 * written, f"{peak:,} bytes at once of {written:,} bytes of text"


def test_a_line_of_pages_jsonl_has_all_fields_of_a_page(tmp_path: Path) -> None:
    reading = Reading(tmp_path, pdf("One."))
    reading.write()
    [line] = reading.files.path(reading.id, "pages.jsonl").read_text().splitlines()
    assert set(json.loads(line)) == {
        "number",
        "text",
        "images",
        "fault",
        "headings",
        "confidence",
        "ocr_start",
        "ocr_parts",
        "pictures",
        "removed_lines",
    }


def test_headers_are_removed_across_ranges_and_the_rest_keeps_its_place(tmp_path: Path) -> None:
    document = FPDF()
    document.set_font("Helvetica", size=12)
    for number in range(1, RANGE_PAGES + 4):
        document.add_page()
        document.text(20, 15, "Manual of the pump")
        document.text(20, 60, f"Valve {number * 11} is closed.")
        document.text(20, 280, f"{number}")
    reading = Reading(tmp_path, bytes(document.output()))
    reading.write()
    texts = reading.texts()
    assert texts[0] == "Manual of the pump\nValve 11 is closed.\n1"
    assert texts[1:] == [f"Valve {number * 11} is closed." for number in range(2, RANGE_PAGES + 4)]
    *_, last = read_parsed_pages(reading.files, reading.id)
    assert last.removed_lines == 2
    request = PageRequest(page=last.number, text=last.text)
    drawn = draw_page(reading.files.path(reading.id, "original"), request, memory_bytes=2**30, children=ChildProcesses())
    assert "".join(last.text[box[0]] for box in drawn.boxes) == f"Valve{last.number * 11}isclosed."
    assert 150_000 < drawn.boxes[0][2] < 250_000, "where the page shows it, below the header"


def test_a_stop_kills_the_child_at_once(tmp_path: Path) -> None:
    reading = Reading(tmp_path, endless_page())
    stopped = threading.Event()

    def check() -> None:
        if stopped.is_set():
            raise AttemptStopped("cancel")

    def stop() -> None:
        wait_until(a_child_reads, "a child reads the file")
        stopped.set()
        reading.children.kill()

    reading.check = check  # type: ignore[method-assign]
    stopper = threading.Thread(target=stop)
    stopper.start()
    start = time.monotonic()
    with pytest.raises(AttemptStopped):
        reading.write()
    stopper.join()
    assert time.monotonic() - start < reading.limits.seconds / 2
    assert not a_child_reads()


def test_a_document_has_a_limit_of_characters_over_all_its_ranges(tmp_path: Path, long_pdf: bytes) -> None:
    reading = Reading(tmp_path, long_pdf)
    reading.limits = replace(LIMITS, max_characters=len("This is page 1.") * (RANGE_PAGES + 50))
    for _ in range(2):  # a second attempt counts what the first one has read
        with pytest.raises(DocumentRejected, match="ENGINEHOUSE_MAX_DOCUMENT_CHARACTERS") as rejected:
            reading.write()
        assert rejected.value.code == "too_large"


def test_pages_of_spaces_count_as_characters(tmp_path: Path) -> None:
    reading = Reading(tmp_path, b" " * 50_000)
    reading.media_type = TEXT
    reading.limits = replace(LIMITS, max_characters=10_000)
    with pytest.raises(DocumentRejected, match="10000 characters"):
        reading.write()


def test_a_document_has_a_limit_of_seconds_over_all_its_ranges(tmp_path: Path) -> None:
    reading = Reading(tmp_path, endless_page())
    reading.seconds = 1.0
    with pytest.raises(DocumentRejected, match="ENGINEHOUSE_MAX_DOCUMENT_SECONDS") as rejected:
        reading.write()
    assert rejected.value.code == "too_large"


def endless_page() -> bytes:
    """A PDF with a page that takes minutes to read."""
    return content_stream(b"BT /F1 1 Tf 1 0 0 1 9 9 Tm (x) Tj ET\n" * 2_000_000)


def a_child_reads() -> bool:
    return find_descendant(os.getpid(), "parse_child") is not None
