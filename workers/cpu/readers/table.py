"""Tables: CSV, and the sheets of a workbook. A row is a line; under a row of titles each value comes with its own.

A sheet of a workbook begins a page, and long ones go on over several.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from workers.cpu.readers.reader import Content, InMemoryReader, ReadError, Source, TextBuilder, clean_text, read_source
from workers.cpu.readers.text import decode
from workers.cpu.readers.zip_safety import check_zip

MOST_CELLS = 20_000_000


class CsvReader(InMemoryReader):
    """Values separated by commas, semicolons, tabs or bars."""

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
            builder.add(text)
        super().__init__(builder.pages())


class XlsxReader(InMemoryReader):
    """Excel workbooks, with the values that their formulas last had."""

    name = "xlsx"

    def __init__(self, source: Source, password: str) -> None:
        import openpyxl

        check_zip(source)
        # Given a path, it would judge the file by its name.
        stream = open(source, "rb") if isinstance(source, str) else source  # noqa: SIM115 it is read page by page
        book = openpyxl.load_workbook(stream, read_only=True, data_only=True, keep_links=False)
        contents: list[Content] = []
        for sheet in book.worksheets:
            sheet.reset_dimensions()
            builder = TextBuilder()
            builder.heading(1, sheet.title)
            before = builder.length
            add_rows(builder, ([_shown(value) for value in row] for row in sheet.iter_rows(values_only=True)))
            contents += builder.pages() if builder.length > before else [Content("")]
        super().__init__(contents or [Content("")], str(book.properties.title or ""))


def add_rows(builder: TextBuilder, rows: Iterable[Sequence[str]]) -> None:
    """Write rows, one a line. Raises Rejected past 20 million cells, empty ones too."""
    titles: list[str] | None = None
    cells = 0
    for row in rows:
        cells += len(row) or 1
        if cells > MOST_CELLS:
            raise ReadError("too_large", f"A table of it has more than {MOST_CELLS} cells.")
        values = [" ".join(clean_text(value).split()) for value in row]
        if not any(values):
            continue
        if titles is None:
            titles = values if _are_titles(values) else []
            builder.line(" | ".join(values).strip(" |"))
        elif titles:
            named = (f"{title}: {value}" for title, value in zip(titles, values, strict=False) if value)
            builder.line("; ".join([*named, *filter(None, values[len(titles) :])]))
        else:
            builder.line(" | ".join(values).strip(" |"))


def _are_titles(values: list[str]) -> bool:
    given = [value for value in values if value]
    return (
        len(given) == len(values) > 1
        and len(set(given)) == len(given)
        and all(len(value) < 100 and not value.replace(".", "").replace(",", "").lstrip("-").isdigit() for value in given)
    )


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
