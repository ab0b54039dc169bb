"""The outline of a PDF gives headings to its pages."""

from pathlib import Path

import pytest

from cli.local.pdf_writer import PdfDocument
from shared.documents.media_types import PDF
from workers.cpu.chunking import chunk_pages
from workers.cpu.ocr.ocr_pages import merge
from workers.cpu.ocr.recognizer import OcrResult
from workers.cpu.parsing.parser import Limits, Page, read_pages
from workers.cpu.readers.outline import place_headings

LIMITS = Limits(seconds=60, memory_bytes=2**30, max_pages=100, max_page_characters=100_000)


def written(path: Path) -> Path:
    """A PDF of three pages with an outline, whose last section continues on its own page."""
    document = PdfDocument("Manual")
    document.set_font("helvetica", size=11)
    for page, lines in enumerate(
        (("1 Boilers", "Fill it."), ("1.1 Valves", "Close them.", "2 Gardens", "Water them."), ("In spring.",))
    ):
        if page:
            document.add_page()
        for line in lines:
            if line[0].isdigit():
                document.start_section(line.split(" ", 1)[1], level=line.split()[0].count("."))
            document.multi_cell(0, 8, line, new_x="LMARGIN", new_y="NEXT")
    path.write_bytes(bytes(document.output()))
    return path


def read(path: Path) -> list[Page]:
    pages: list[Page] = []
    read_pages(path, PDF, LIMITS, lambda page, _: pages.append(page))
    return pages


def words(text: str) -> int:
    return len(text.split())


def test_sections_of_the_outline_divide_the_pages_and_continue_on_the_next(tmp_path: Path) -> None:
    pages = read(written(tmp_path / "manual.pdf"))
    chunks = [(chunk.page, chunk.headings, chunk.text.split("\n")[0]) for chunk in chunk_pages(pages, words, size=6, overlap=0)]
    assert chunks == [
        (1, ("Boilers",), "1 Boilers"),
        (2, ("Boilers", "Valves"), "1.1 Valves"),
        (2, ("Gardens",), "2 Gardens"),
        (3, ("Gardens",), "In spring."),
    ]


@pytest.mark.parametrize(
    ("title", "line"),
    [
        ("Empty Lines", "3.2 Empty Lines"),
        ("Empty-lines!", "3.2 Empty Lines"),
        ("Chapters", "Appendix A: Chapters"),
        ("lines", "First"),
        ("not on this page", "First"),
        ("…", "First"),
    ],
)
def test_a_title_begins_a_line_or_belongs_to_the_heading_before_it(title: str, line: str) -> None:
    text = "About\nFirst\n3.2 Empty Lines\nAppendix A: Chapters\nWhat to do about lines."
    first, second = place_headings([(1, "First"), (2, title)], text)
    assert first == (text.index("First"), 1, "First")
    assert second == (text.index(line), 2, title)


@pytest.mark.parametrize("title", ["Λέβητες 7", "ÜBER ÖFEN", "ﬁnal \N{EN DASH} Part", "锅炉", "İstanbul"])
def test_titles_of_any_script_are_found(title: str) -> None:
    before = f"Opening\n„About“ this\n{'x' if title.isascii() else 'я'} 中\n"
    [_, (offset, _, _)] = place_headings([(1, "Opening"), (1, title)], f"{before}2.1 {title}\nThe end")
    assert offset == len(before)


def test_titles_are_found_in_their_order() -> None:
    text = "Usage\nOptions\nUsage\nMore about usage"
    assert place_headings([(1, "Usage"), (2, "Options"), (1, "Usage")], text) == [
        (0, 1, "Usage"),
        (6, 2, "Options"),
        (14, 1, "Usage"),
    ]


def test_sections_of_a_scan_are_placed_in_the_text_that_ocr_reads() -> None:
    scan = Page(number=1, text="", images=True, headings=place_headings([(1, "Boilers"), (2, "Valves")], ""))
    assert scan.headings == [(0, 1, "Boilers"), (0, 2, "Valves")]
    read = merge(scan, OcrResult(number=1, text="1 Boilers\nFill it.\n1.1 Valves\nClose them.", confidence=0.9))
    assert read.headings == [(0, 1, "Boilers"), (19, 2, "Valves")]


def test_a_page_has_a_limited_number_of_headings() -> None:
    entries = [(1, "a" * 200)] * 2000
    assert len(place_headings(entries, "b" + "a" * 100_000)) == 500


def test_names_of_pages_are_no_headings(tmp_path: Path) -> None:
    document = PdfDocument("Scan")
    document.set_font("helvetica", size=11)
    document.start_section("Page 1")
    document.multi_cell(0, 8, "Page 1 of many")
    (tmp_path / "scan.pdf").write_bytes(bytes(document.output()))
    [page] = read(tmp_path / "scan.pdf")
    assert page.headings == []
