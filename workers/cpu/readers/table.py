"""Readers of tables: CSV files and Excel workbooks.

Each row becomes a line; if the first row has titles, each value is written with the title of its column. Each sheet of a
workbook begins a page.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from workers.cpu.readers.reader import Content, InMemoryReader, ReadError, Source, read_source
from workers.cpu.readers.text import decode
from workers.cpu.readers.text_builder import TextBuilder, clean_text
from workers.cpu.readers.zip_safety import check_zip

MAX_CELLS = 20_000_000


class CsvReader(InMemoryReader):
    """Values separated by commas, semicolons, tabs or vertical bars."""

    name = "csv"

    def __init__(self, source: Source, password: str) -> None:
        text = decode(read_source(source)).lstrip("\ufeff")
        csv.field_size_limit(2**31 - 1)
        try:
            dialect: Any = csv.Sniffer().sniff(text[:10_000], delimiters=",;\t|")
        except csv.Error:
            dialect = csv.excel
        builder = TextBuilder()
        try:
            add_rows(builder, csv.reader(io.StringIO(text, newline=""), dialect))
        except csv.Error:
            builder = TextBuilder()
            builder.add_text(text)
        super().__init__(builder.build_pages())


class XlsxReader(InMemoryReader):
    """Excel workbooks, with the last computed values of formulas."""

    name = "xlsx"

    def __init__(self, source: Source, password: str) -> None:
        import openpyxl

        check_zip(source)
        # openpyxl rejects a path without a known suffix, so it gets an open file.
        stream = open(source, "rb") if isinstance(source, str) else source  # noqa: SIM115 - it is read lazily
        workbook = openpyxl.load_workbook(stream, read_only=True, data_only=True, keep_links=False)
        contents: list[Content] = []
        for sheet in workbook.worksheets:
            sheet.reset_dimensions()
            builder = TextBuilder()
            builder.add_heading(1, sheet.title)
            title_end = builder.length
            add_rows(builder, ([_cell_text(value) for value in row] for row in sheet.iter_rows(values_only=True)))
            contents += builder.build_pages() if builder.length > title_end else [Content("")]
        super().__init__(contents or [Content("")], str(workbook.properties.title or ""))


def add_rows(builder: TextBuilder, rows: Iterable[Sequence[str]]) -> None:
    """Add rows, one per line. Raises ReadError beyond MAX_CELLS, which counts empty cells too."""
    titles: list[str] | None = None
    cells = 0
    for row in rows:
        cells += len(row) or 1
        if cells > MAX_CELLS:
            raise ReadError("too_large", f"The file has a table of more than {MAX_CELLS} cells.")
        values = [" ".join(clean_text(value).split()) for value in row]
        if not any(values):
            continue
        if titles is None:
            titles = values if _are_titles(values) else []
            builder.add_line(" | ".join(values).strip(" |"))
        elif titles:
            labelled = (f"{title}: {value}" for title, value in zip(titles, values, strict=False) if value)
            builder.add_line("; ".join([*labelled, *filter(None, values[len(titles) :])]))
        else:
            builder.add_line(" | ".join(values).strip(" |"))


def _are_titles(values: list[str]) -> bool:
    filled = [value for value in values if value]
    return (
        len(filled) == len(values) > 1
        and len(set(filled)) == len(filled)
        and all(len(value) < 100 and not value.replace(".", "").replace(",", "").lstrip("-").isdigit() for value in filled)
    )


def _cell_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
