"""Workbooks in binary formats: .xlsb, and .xls of before Excel 2007."""

import io
from datetime import date, datetime, time, timedelta

from workers.cpu.readers.reader import Content, InMemoryReader, Source, read_source
from workers.cpu.readers.table_rows import add_table
from workers.cpu.readers.text_builder import TextBuilder


class BinaryWorkbookReader(InMemoryReader):
    """Values of the cells of each sheet, hidden ones too. Comments, text boxes and charts are not read."""

    name = "binary workbook"

    def __init__(self, source: Source, password: str) -> None:
        from python_calamine import CalamineWorkbook

        # A stream, because the library opens a path by its suffix.
        workbook = CalamineWorkbook.from_filelike(io.BytesIO(read_source(source)))
        contents: list[Content] = []
        for name in workbook.sheet_names:
            builder, body = TextBuilder(), TextBuilder()
            sheet = workbook.get_sheet_by_name(name)
            add_table(body, ([_cell_text(value) for value in row] for row in sheet.iter_rows()))
            if body.length:
                builder.add_heading(1, name)
            builder.add_content(body.build_pages(size=max(1, body.length))[0])
            contents += builder.build_pages()
        super().__init__(contents or [Content("")])


def _cell_text(value: str | float | bool | date | datetime | time | timedelta | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.15g}"
    return str(value).removesuffix(" 00:00:00")
