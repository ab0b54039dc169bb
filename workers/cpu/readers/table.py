"""Reader of CSV files.

Each row becomes a line; if the first row has titles, each value is written with the title of its column.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from workers.cpu.readers.reader import InMemoryReader, ReadError, Source, read_source
from workers.cpu.readers.text import decode
from workers.cpu.readers.text_builder import TextBuilder, clean_text

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
