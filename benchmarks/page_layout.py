"""Layout of PDF pages, measured on made pages whose text is known: cells in the right row, lines in the right order, headers removed.

Of each kind of page, random ones are made with fpdf2: tables with and without lines, two columns whose lines alternate in the file, and
pages of text with lists, which must stay as they are. A table counts by its rows: a row is right if it is one line with all cells in
order. Columns count by their pairs of neighbouring lines. Run: ``.venv/bin/python -m benchmarks.page_layout``. ``--files FOLDER`` also
compares the time of reading PDFs with and without the layout, in seconds of the processor.
"""

import argparse
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

from fpdf import FPDF

from benchmarks.figures import figure
from workers.cpu.parsing.parser import Page
from workers.cpu.readers.pdf import PdfiumReader
from workers.cpu.repeated_lines import RepeatedLines

WORDS = [
    "boiler",
    "valve",
    "pump",
    "harbour",
    "winter",
    "meeting",
    "report",
    "invoice",
    "station",
    "bridge",
    "engine",
    "signal",
    "copper",
    "timber",
    "garden",
    "window",
    "paper",
    "river",
    "market",
    "season",
    "journey",
    "letter",
    "motor",
    "circuit",
    "ladder",
    "basket",
    "of",
    "the",
    "and",
    "in",
    "for",
    "with",
    "under",
    "before",
    "after",
]
Made = tuple[FPDF, list[list[str]]]
"""A page, and its rows of cells or its columns of lines."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--pages", type=int, default=100, help="pages of each kind")
    arguments.add_argument("--files", type=Path, help="also measure the speed with the PDFs of this folder")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "page.pdf")
        for kind, make, judge in KINDS:
            choose = random.Random(kind)
            for arranged in (False, True):
                right = total = 0
                choose.seed(kind)
                for _ in range(options.pages):
                    page, expected = make(choose)
                    page.output(str(path))
                    good, of = judge(PdfiumReader(str(path), "", arranged=arranged).read_page(1).text.replace("\r", ""), expected)
                    right, total = right + good, total + of
                figure("page_layout.right", right / total, "share", kind=kind, layout=arranged, of=total)
    kept, removed, lost = measure_headers(random.Random(1), options.pages)
    figure("page_layout.headers", removed, "share removed", kept_lines_lost=lost, pages=kept)
    if options.files:
        measure_speed(options.files)


def sentence(choose: random.Random, words: int) -> str:
    return " ".join(choose.choice(WORDS) for _ in range(words))


def new_page(size: float = 10) -> FPDF:
    page = FPDF()
    page.add_page()
    page.set_font("Helvetica", size=size)
    return page


def random_rows(choose: random.Random, longest: int) -> list[list[str]]:
    columns = choose.randint(2, 5)
    rows = [[choose.choice(WORDS).title() + f" {number}" for number in range(columns)]]
    for _ in range(choose.randint(4, 14)):
        rows.append(
            [sentence(choose, choose.randint(1, longest)), *(f"{choose.uniform(0, 900):.2f}" for _ in range(columns - 1))]
        )
    return rows


def add_prose(page: FPDF, choose: random.Random) -> None:
    page.multi_cell(0, 5, sentence(choose, 60) + ".", new_x="LMARGIN", new_y="NEXT")
    page.ln(3)


def ruled_table(choose: random.Random) -> Made:
    page, rows = new_page(), random_rows(choose, 12)
    add_prose(page, choose)
    borders = choose.choice(["ALL", "HORIZONTAL_LINES", "INTERNAL"])
    align = "LEFT" if borders == "HORIZONTAL_LINES" else "JUSTIFY"  # without vertical lines, wide spaces look like cells
    with page.table(line_height=5, borders_layout=borders, text_align=align) as table:
        for row in rows:
            table.row(row)
    page.ln(3)
    add_prose(page, choose)
    return page, rows


def table_with_head(choose: random.Random) -> Made:
    page, rows = new_page(), random_rows(choose, 2)
    add_prose(page, choose)
    with page.table(
        line_height=5, borders_layout=choose.choice(["SINGLE_TOP_LINE", "NO_HORIZONTAL_LINES"]), text_align="LEFT"
    ) as table:
        for row in rows:
            table.row(row)
    page.ln(3)
    add_prose(page, choose)
    return page, rows


def plain_table(choose: random.Random) -> Made:
    page, rows = new_page(), random_rows(choose, 3)
    add_prose(page, choose)
    width = page.epw / len(rows[0])
    for row in rows:
        for cell in row:
            page.cell(width, 5, cell, align="L" if cell is row[0] else "R")
        page.ln(5)
    page.ln(3)
    add_prose(page, choose)
    return page, rows


def alternating_columns(choose: random.Random) -> Made:
    page, columns = new_page(9), [[sentence(choose, choose.randint(7, 9)) for _ in range(30)] for _ in range(2)]
    for number in range(30):
        for column, x in zip(columns, (15, 110), strict=True):
            while page.get_string_width(column[number]) > 85:
                column[number] = column[number].rpartition(" ")[0]
            page.text(x, 30 + 6 * number, column[number])
    return page, columns


def columns_in_order(choose: random.Random) -> Made:
    page, columns = new_page(9), [[sentence(choose, 6) for _ in range(30)] for _ in range(2)]
    for column, x in zip(columns, (15, 110), strict=True):
        for number, line in enumerate(column):
            page.text(x, 30 + 6 * number, line)
    return page, columns


def prose(choose: random.Random) -> Made:
    page, lines = new_page(), []
    for number in range(8):
        text = sentence(choose, choose.randint(10, 60))
        if number % 2:
            page.cell(8, 5, f"{number}.")
            text = sentence(choose, 8)
        page.multi_cell(0, 5, text, align="J", new_x="LMARGIN", new_y="NEXT")
        lines.append(text)
    return page, [lines]


def judge_rows(text: str, rows: list[list[str]]) -> tuple[int, int]:
    lines = {"".join(re.split(r"[|\s]+", line)): line.count("|") for line in text.split("\n")}
    return sum(lines.get("".join("".join(row).split()), 0) == len(row) + 1 for row in rows), len(rows)


def judge_columns(text: str, columns: list[list[str]]) -> tuple[int, int]:
    flat = " ".join(text.split())
    pairs = [f"{first} {second}" for column in columns for first, second in pairwise(column)]
    return sum(pair in flat for pair in pairs), len(pairs)


def judge_prose(text: str, parts: list[list[str]]) -> tuple[int, int]:
    flat = " ".join(text.split())
    return sum(part in flat for part in parts[0]) if "|" not in text else 0, len(parts[0])


KINDS: tuple[tuple[str, Callable[[random.Random], Made], Callable[[str, list[list[str]]], tuple[int, int]]], ...] = (
    ("table with lines", ruled_table, judge_rows),
    ("table with a line below its head or between its columns", table_with_head, judge_rows),
    ("table without lines", plain_table, judge_rows),
    ("two columns, line by line", alternating_columns, judge_columns),
    ("two columns, one after the other", columns_in_order, judge_columns),
    ("text and lists", prose, judge_prose),
)


def measure_headers(choose: random.Random, pages: int) -> tuple[int, float, int]:
    """Pages, the share of header and footer lines after the first page that are removed, and the other lines that are missing."""
    removed = expected = lost = 0
    for number in range(max(1, pages // 10)):
        page_lines = [[sentence(choose, 9) for _ in range(20)] for _ in range(10)]
        header, footer = sentence(choose, 4), ("Page {} of 10", "{}", "- {} -")[number % 3]
        repeated = RepeatedLines()
        made = [
            Page(number=place, text="\n".join([header, *lines, f"Total {choose.randint(1, 999)}", footer.format(place)]))
            for place, lines in enumerate(page_lines, 1)
        ]
        for page in made:
            repeated.count(page.number, page.text)
        for page, lines in zip(made, page_lines, strict=True):
            left = repeated.remove(page)
            removed += left.removed_lines
            expected += 2 if page.number > 1 else 0
            lost += sum(line not in left.text for line in [*lines, page.text.split("\n")[-2]])
    return 10 * max(1, pages // 10), removed / expected, lost


def measure_speed(folder: Path) -> None:
    files = sorted(folder.glob("*.pdf"))
    for path in files:
        best = [min(read_seconds(path, arranged) for _ in range(3)) for arranged in (False, True)]
        pages = PdfiumReader(str(path), "").pages
        figure(
            "page_layout.read",
            best[1] * 1000 / pages,
            "ms/page",
            file=path.name,
            pages=pages,
            without=round(best[0] * 1000 / pages, 2),
            changed=sum(changed_pages(path)),
        )


def read_seconds(path: Path, arranged: bool) -> float:
    start = time.process_time()
    reader = PdfiumReader(str(path), "", arranged=arranged)
    for number in range(1, reader.pages + 1):
        reader.read_page(number)
    return time.process_time() - start


def changed_pages(path: Path) -> Iterator[bool]:
    arranged, plain = PdfiumReader(str(path), ""), PdfiumReader(str(path), "", arranged=False)
    for number in range(1, plain.pages + 1):
        yield arranged.read_page(number).text != plain.read_page(number).text


if __name__ == "__main__":
    main()
