"""Generated pages whose text is known: tables with and without lines, columns, and text with lists. Each kind has a function that
counts how much of a text read from it is right."""

import random
import re
from collections.abc import Callable
from itertools import pairwise

from fpdf import FPDF

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
