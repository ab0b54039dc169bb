"""Workbooks in binary formats: .xlsb, and .xls of before Excel 2007."""

import io
import zipfile
from datetime import date, datetime, time, timedelta

from workers.cpu.readers.reader import Content, InMemoryReader, Source, read_source
from workers.cpu.readers.table_rows import add_table
from workers.cpu.readers.text_builder import TextBuilder
from workers.cpu.readers.zip_safety import check_zip

_PARTS = {"xl/comments": "comments", "xl/charts/": "charts", "xl/drawings/": "drawings", "xl/media/": "images"}
_PARTS |= {"xl/embeddings/": "embedded objects", "vbaproject.bin": "macros"}


class BinaryWorkbookReader(InMemoryReader):
    """Values of the cells of each sheet, hidden ones too. Comments, drawings and charts are not read."""

    name = "binary workbook"

    def __init__(self, source: Source, password: str) -> None:
        from python_calamine import CalamineWorkbook

        # A stream, because the library opens a path by its suffix.
        data = io.BytesIO(read_source(source))
        skipped = _skipped(data)
        workbook = CalamineWorkbook.from_filelike(data)
        contents: list[Content] = []
        for name in workbook.sheet_names:
            builder, body = TextBuilder(), TextBuilder()
            sheet = workbook.get_sheet_by_name(name)
            add_table(body, ([_cell_text(value) for value in row] for row in sheet.iter_rows()))
            if body.length:
                builder.add_heading(1, name)
            for what in skipped if not contents else ():
                builder.skip(what)
            builder.add_content(body.build_pages(size=max(1, body.length))[0])
            contents += builder.build_pages()
        super().__init__(contents or [Content("")])


def _skipped(data: io.BytesIO) -> list[str]:
    """What a workbook has besides cells, as far as the names of its parts tell."""
    packed = zipfile.is_zipfile(data)
    data.seek(0)
    if not packed:
        return []
    check_zip(data)
    with zipfile.ZipFile(data) as package:
        names = " ".join(package.namelist()).lower()
    data.seek(0)
    return [what for part, what in _PARTS.items() if part in names]


def _cell_text(value: str | float | bool | date | datetime | time | timedelta | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.15g}"
    return str(value).removesuffix(" 00:00:00")
