"""Layout of PDF pages: tables become Markdown rows, columns follow each other, and other text stays as the file has it."""

import random
from pathlib import Path
from typing import Any

import pytest
from fpdf import FPDF

from shared.documents.media_types import PDF
from testing.made_pages import KINDS
from tests.reading.test_page_boxes import draw, lines_of
from workers.cpu.parsing.parser import Limits, read_pages
from workers.cpu.readers.pdf import PdfiumReader

LIMITS = Limits(seconds=60, memory_bytes=2**30, max_pages=100, max_page_characters=100_000)


def new_page() -> FPDF:
    page = FPDF()
    page.add_page()
    page.set_font("Helvetica", size=10)
    return page


def saved(page: FPDF, folder: Path) -> Path:
    path = folder / "page.pdf"
    page.output(str(path))
    return path


def read(path: Path, **options: Any) -> str:
    texts: list[str] = []
    read_pages(path, PDF, LIMITS, lambda page, _: texts.append(page.text), **options)
    return texts[0]


def price_list() -> FPDF:
    page = new_page()
    page.multi_cell(0, 6, "Prices of the year.", new_x="LMARGIN", new_y="NEXT")
    rows = [
        ["Name", "Price", "Remarks"],
        ["Bolt M8", "0.12", "in boxes of a hundred pieces, delivered on Mondays and never on the day of the inventory"],
        ["Nut", "0.05", ""],
        ["Washer|ring", "0.01", "zinc"],
    ]
    with page.table() as table:
        for row in rows:
            table.row(row)
    page.multi_cell(0, 6, "Prices are in euros.")
    return page


PRICE_LIST = """Prices of the year.

| Name | Price | Remarks |
| --- | --- | --- |
| Bolt M8 | 0.12 | in boxes of a hundred pieces, delivered on Mondays and never on the day of the inventory |
| Nut | 0.05 | |
| Washer\\|ring | 0.01 | zinc |

Prices are in euros."""


def test_a_table_becomes_markdown_rows(tmp_path: Path) -> None:
    path = saved(price_list(), tmp_path)
    assert read(path) == PRICE_LIST
    assert "|" not in read(path, arranged=False).replace("Washer|ring", "")


@pytest.mark.parametrize("arranged", [True, False], ids=["arranged", "as in the file"])
def test_each_character_of_a_table_has_its_box(tmp_path: Path, arranged: bool) -> None:
    """Also of documents that an earlier version or another setting has read."""
    path = saved(price_list(), tmp_path)
    text = read(path, arranged=arranged)
    drawn = draw(path, text)
    boxed = {box[0] for box in drawn.boxes}
    without = "".join(character for place, character in enumerate(text) if place not in boxed)
    assert set(without.split()) <= {"|", "---", "\\", "|\\"}
    start = text.index("0.05")
    [line] = lines_of(drawn, text, start, start + 4)
    [name] = lines_of(drawn, text, text.index("Nut"), text.index("Nut") + 3)
    assert text[line.start : line.end] == "0.05"
    assert name.right < line.left
    assert abs(name.top - line.top) < 3000, "both cells are in one row of the page"


def test_a_word_that_is_broken_in_a_cell_is_joined(tmp_path: Path) -> None:
    page = new_page()
    for y, cells in (
        (40, ("Part", "Use")),
        (46, ("A 1", "of the exam-")),
        (52, ("", "ple")),
        (58, ("B 2", "none")),
        (64, ("C 3", "some")),
    ):
        for x, cell in zip((20, 90), cells, strict=True):
            page.text(x, y, cell)
    assert "| A 1 | of the example |" in read(saved(page, tmp_path))


def test_lines_that_alternate_between_columns_are_read_column_by_column(tmp_path: Path) -> None:
    page = new_page()
    page.text(20, 20, "A title across both of the columns")
    for number in range(8):
        page.text(20, 30 + 6 * number, f"left line {number} about boats and their har-")
        page.text(110, 30 + 6 * number, f"right line {number} about trains and sta-")
    text = read(saved(page, tmp_path))
    title, *lines = [line for line in text.split("\n") if line]
    assert title == "A title across both of the columns"
    assert " ".join(lines).index("left line 7") < " ".join(lines).index("right line 0")
    assert "boats and their harleft line 1" in text, "a word that goes on in the next line of its own column is joined"
    drawn = draw(tmp_path / "page.pdf", text)
    [line] = lines_of(drawn, text, text.index("right line 3"), text.index("right line 3") + 12)
    assert line.left > 500_000


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[0])
def test_made_pages_are_read_in_full(tmp_path: Path, kind: Any) -> None:
    name, make, judge = kind
    choose = random.Random(name)
    for _ in range(5):
        page, expected = make(choose)
        right, total = judge(PdfiumReader(str(saved(page, tmp_path)), "").read_page(1).text.replace("\r", ""), expected)
        assert right == total


@pytest.mark.parametrize(
    "rows",
    [
        [(f"{number}.", "a step of the procedure that takes a while") for number in range(1, 8)],
        [(title, ". . . . . . . . . . . . . . . . . 12") for title in ("Boats", "Trains", "Bridges", "Stations")],
        [(str(number), f"call(argument_{number})") for number in range(1, 12)],
    ],
    ids=["list", "contents", "numbered lines"],
)
def test_what_only_looks_like_a_table_stays(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    page = new_page()
    for number, (left, right) in enumerate(rows):
        page.text(20, 30 + 6 * number, left)
        page.text(50, 30 + 6 * number, right)
    path = saved(page, tmp_path)
    assert read(path) == read(path, arranged=False)


def test_program_code_stays(tmp_path: Path) -> None:
    page = new_page()
    page.set_font("Courier", size=9)
    for number, (kind, name) in enumerate([("int", "count;"), ("char *", "buffer;"), ("double", "mean;"), ("size_t", "length;")]):
        page.text(20, 30 + 5 * number, kind)
        page.text(60, 30 + 5 * number, name)
    path = saved(page, tmp_path)
    assert read(path) == read(path, arranged=False)


def test_a_page_with_thousands_of_cells_takes_seconds(tmp_path: Path) -> None:
    page = new_page()
    page.set_font("Helvetica", size=2)
    for row in range(120):
        for column in range(30):
            page.text(5 + 6.5 * column + row % 3, 5 + 2 * row, f"{row}x")
    text = PdfiumReader(str(saved(page, tmp_path)), "").read_page(1).text
    assert text.count("x") == 3600
