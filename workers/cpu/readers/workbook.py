"""Excel reader: each sheet begins a page, with its rows, charts, text boxes and comments.

Sheets are read from the XML, cell by cell: a sheet may have one cell at A1 and one at XFD1048576, and the libraries that hold
a sheet as a rectangle then run out of memory. Formulas are read as the values that Excel stored for them. Files written by
programs may have none; no reader can compute them, so the document says so.
"""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from lxml import etree

from workers.cpu.readers.drawing import add_graphics, shape_lines
from workers.cpu.readers.ooxml import DAMAGED, Package, R, S
from workers.cpu.readers.reader import Content, InMemoryReader, ReadError, Source
from workers.cpu.readers.table_rows import MAX_CELLS, add_table
from workers.cpu.readers.text_builder import TextBuilder

_THREADED = "{http://schemas.microsoft.com/office/spreadsheetml/2018/threadedcomments}"
_DRAWING = "{http://schemas.openxmlformats.org/drawingml/2006/spreadsheetDrawing}"
_STRICT_SHEET = b"http://purl.oclc.org/ooxml/spreadsheetml/main"
_REFERENCE = re.compile(r"([A-Z]{1,3})(\d{1,7})")
_BUILT_IN_DATES = frozenset([*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)])
_ELAPSED = re.compile(r"\[(?:h{1,2}|m{1,2}|s{1,2})\]", re.IGNORECASE)
_GROUPED = re.compile(r"0{1,9}(?:\\?[- /]0{1,9}){1,5}")
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_MARGIN_CODE = re.compile(r'&(?:"[^"]{0,100}"|K[0-9A-Fa-f]{6}|\d{1,3}|(?P<part>[LCR])|(?P<sign>&)|.)', re.DOTALL)
_QUOTED = re.compile(r'"[^"]{0,100}"|\[[^\]]{0,30}\]|\\.|_.')
_MAX_LISTED = 10


class XlsxReader(InMemoryReader):
    """Workbooks: .xlsx, .xlsm, .xltx and .xltm. Hidden sheets are read too."""

    name = "xlsx"

    def __init__(self, source: Source, password: str) -> None:
        self._package = Package(source)
        main = self._package.main_part()
        workbook = self._package.parse(main)
        properties = workbook.find(f"{S}workbookPr")
        epoch_1904 = properties is not None and properties.get("date1904") in ("1", "true", "on")
        self._epoch = datetime(1904, 1, 1) if epoch_1904 else datetime(1899, 12, 30)  # noqa: DTZ001 - cells have no time zone
        self._strings = self._shared_strings(main)
        self._formats = self._cell_formats(main)
        relationships = self._package.relationships(main)
        builders = []
        for sheet in workbook.iterfind(f"{S}sheets/{S}sheet"):
            target = relationships.get(sheet.get(f"{R}id") or "")
            builder = TextBuilder()
            if target is None or target.target not in self._package:
                builder.add_fault("is missing from the file")
            else:
                self._add_sheet(builder, sheet.get("name") or "", target.target)
            builders.append(builder)
        if builders and self._package.has_macros:
            builders[0].skip("macros")
        contents = [content for builder in builders for content in builder.build_pages()]
        super().__init__(contents or [Content("")], self._package.title())

    def _add_sheet(self, builder: TextBuilder, name: str, part: str) -> None:
        body, formulas, margins = TextBuilder(), _Formulas(), dict[str, None]()
        try:
            add_table(body, self._rows(part, formulas, margins))
            self._add_drawings(body, part)
            self._add_comments(body, part)
            for text in margins:
                body.add_line(text)
        except DAMAGED as error:
            body.add_fault(f"is damaged: {error}"[:200])
        body.add_fault(formulas.fault())
        if body.length:
            builder.add_heading(1, name)
        builder.add_content(body.build_pages(size=max(1, body.length))[0])

    def _rows(self, part: str, formulas: "_Formulas", margins: dict[str, None]) -> Iterator[list[str]]:
        """The rows of a sheet, with an empty one wherever rows are missing. Its headers and footers are put into ``margins``."""
        with self._package.open(part) as stream:
            strict = _STRICT_SHEET in stream.read(4096)
        namespace = f"{{{_STRICT_SHEET.decode()}}}" if strict else S
        next_row, cells = 1, 0
        with self._package.open(part) as stream:
            tags = (f"{namespace}row", f"{namespace}headerFooter")
            for _, row in etree.iterparse(stream, tag=tags, resolve_entities=False, no_network=True):
                if row.tag == tags[1]:
                    texts = (_margin_text(element.text or "") for element in row)
                    margins.update(dict.fromkeys(filter(None, texts)))
                    continue
                number = int(row.get("r") or next_row)
                if number > next_row:
                    yield []
                next_row = number + 1
                values: list[str] = []
                for cell in row.iterchildren(f"{namespace}c"):
                    reference = _REFERENCE.fullmatch(cell.get("r") or "")
                    column = _column_number(reference[1]) if reference else len(values)
                    if column > len(values):
                        values += [""] * (column - len(values))
                    values[column:] = [self._cell_text(cell, namespace, formulas)]
                    cells += 1
                    if cells > MAX_CELLS:
                        raise ReadError("too_large", f"The file has a sheet of more than {MAX_CELLS} cells.")
                yield values
                # Without this, the tree of a large sheet fills the memory.
                row.clear()
                parent = row.getparent()
                while parent is not None and row.getprevious() is not None:
                    del parent[0]

    def _cell_text(self, cell: Any, namespace: str, formulas: "_Formulas") -> str:
        kind = cell.get("t") or "n"
        if kind == "inlineStr":
            inline = cell.find(f"{namespace}is")
            return "" if inline is None else _rich_text(inline, namespace)
        stored: str | None = cell.findtext(f"{namespace}v")
        if not stored:
            if cell.find(f"{namespace}f") is not None and not (kind == "str" and stored is not None):
                formulas.note(cell.get("r") or "")
            return ""
        if kind == "s":
            return self._strings[int(stored)]
        if kind == "b":
            return "TRUE" if stored.strip() in ("1", "true") else "FALSE"
        if kind == "n":
            return self._number_text(stored, int(cell.get("s") or 0))
        if kind == "d":
            return stored.removesuffix("T00:00:00")
        return _unescaped(stored)

    def _number_text(self, stored: str, style: int) -> str:
        """A number as Excel shows it, in so far as that changes what it means: dates, percentages, leading zeros."""
        code = self._formats[style] if 0 <= style < len(self._formats) else "General"
        if stored.isascii() and stored.isdigit() and len(stored) < 16 and code == "General":
            return stored
        try:
            value = float(stored)
        except ValueError:
            return stored
        if code == "date":
            return self._date_text(value) or stored
        if code == "elapsed" and abs(value) < 1e8:
            minutes, seconds = divmod(round(abs(value) * 86400), 60)
            return f"{'-' if value < 0 else ''}{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
        if code.endswith("%") and abs(value) < 1e12:
            decimals = code.partition(".")[2].rstrip("%")
            text = f"{value * 100:.{len(decimals)}f}"
            return (text.rstrip("0").rstrip(".") if "#" in decimals else text) + "%"
        if _GROUPED.fullmatch(code) and value.is_integer() and 0 <= value < 1e15:
            digits = f"{int(value):0{code.count('0')}d}"
            first = len(digits) - code.count("0")  # the first group has the digits that are too many
            places = iter(digits[first:])
            return digits[:first] + "".join(next(places) if sign == "0" else sign for sign in code.replace("\\", ""))
        if code.strip("0") == "" and value.is_integer() and abs(value) < 1e15:
            return f"{int(value):0{len(code)}d}"
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.15g}"

    def _date_text(self, days: float) -> str:
        if not 0 <= days < 2_958_466:
            return ""
        if days < 1:
            return str((self._epoch + timedelta(seconds=round(days * 86400))).time())
        # Excel counts a 29 February 1900, which did not exist.
        early = days < 60 and self._epoch.year == 1899
        moment = self._epoch + timedelta(days=int(days) + early, seconds=round((days % 1) * 86400))
        return str(moment).removesuffix(" 00:00:00")

    def _shared_strings(self, main: str) -> list[str]:
        strings = []
        for part in self._package.related(main, "sharedStrings"):
            with self._package.open(part) as stream:
                for _, item in etree.iterparse(stream, tag="{*}si", resolve_entities=False, no_network=True):
                    strings.append(_rich_text(item, item.tag.removesuffix("si")))
                    item.clear()
                    parent = item.getparent()
                    while parent is not None and item.getprevious() is not None:
                        del parent[0]
        return strings

    def _cell_formats(self, main: str) -> list[str]:
        """For each style of cells ``date``, a format of percentages or of leading zeros, or ``General``."""
        for part in self._package.related(main, "styles"):
            styles = self._package.parse(part)
            codes = {f.get("numFmtId"): f.get("formatCode") or "" for f in styles.iterfind(f"{S}numFmts/{S}numFmt")}
            ids = [xf.get("numFmtId") or "0" for xf in styles.iterfind(f"{S}cellXfs/{S}xf")]
            return [_format(number, codes.get(number, "")) for number in ids]
        return []

    def _add_drawings(self, builder: TextBuilder, part: str) -> None:
        for drawing in self._package.related(part, "drawing"):
            root = self._package.parse(drawing)
            for shape in root.iter(f"{_DRAWING}sp"):
                for line in shape_lines(shape):
                    builder.add_line(line)
            add_graphics(builder, self._package, drawing, [root])
        if self._package.related(part, "oleObject", "package"):
            builder.skip("embedded objects")

    def _add_comments(self, builder: TextBuilder, part: str) -> None:
        threaded: set[str | None] = set()  # the older notes repeat the comments that are threads, for older programs
        for comments in [*self._package.related(part, "threadedComment"), *self._package.related(part, "comments")]:
            for comment in self._package.parse(comments).iter(f"{S}comment", f"{_THREADED}threadedComment"):
                text = "".join(piece.text or "" for piece in comment.iter(f"{S}t", f"{_THREADED}text"))
                if comment.tag == f"{_THREADED}threadedComment":
                    threaded.add(comment.get("ref"))
                elif comment.get("ref") in threaded:
                    continue
                if text.strip():
                    builder.add_line(f"Comment on {comment.get('ref') or 'a cell'}: {' '.join(text.split())}")


class _Formulas:
    """The cells whose formulas have no value."""

    def __init__(self) -> None:
        self._cells: list[str] = []
        self._count = 0

    def note(self, cell: str) -> None:
        self._count += 1
        if len(self._cells) < _MAX_LISTED:
            self._cells.append(cell)

    def fault(self) -> str:
        if not self._count:
            return ""
        listed = ", ".join(filter(None, self._cells)) + (", …" if self._count > len(self._cells) else "")
        return f"has formulas without a stored value, which were not computed: {listed}; open and save the file in Excel"


def _rich_text(element: Any, namespace: str) -> str:
    """The runs of a text, without the pronunciation of its words."""
    pieces: list[str] = []
    for text in element.iter(f"{namespace}t"):
        run, piece = text.getparent(), text.text or ""
        if run.tag == f"{namespace}rPh":
            continue
        if piece[:1].isdigit() and pieces and pieces[-1][-1:].isdigit():
            position = run.find(f"{namespace}rPr/{namespace}vertAlign")
            piece = f"^{piece}" if position is not None and position.get("val") == "superscript" else piece
        pieces.append(piece)  # 10 to the sixth is not 106
    return _unescaped("".join(pieces))


def _unescaped(text: str) -> str:
    """Excel stores control characters as, for example, ``_x000D_``, and an underscore before such a text as ``_x005F_``."""
    return _ESCAPED.sub(lambda code: "" if code[1].upper() == "000D" else chr(int(code[1], 16)), text)


def _margin_text(text: str) -> str:
    """A header or footer without its codes for fonts and page numbers."""
    text = _MARGIN_CODE.sub(lambda code: "&" if code["sign"] else " " if code["part"] else "", text)
    return " ".join(text.split()) if any(character.isalnum() for character in text) else ""


def _column_number(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - 64
    return number - 1


def _format(number: str, code: str) -> str:
    if not code:
        built_in = {"9": "0%", "10": "0.00%", "46": "elapsed"}
        is_date = number.isdigit() and int(number) in _BUILT_IN_DATES and number not in built_in
        return "date" if is_date else built_in.get(number, "General")
    if _ELAPSED.search(code):
        return "elapsed"
    if _GROUPED.fullmatch(code.split(";")[0]):
        return code.split(";")[0]
    first = _QUOTED.sub("", code.split(";")[0]).strip().lower()
    if first.strip("0") == "" and len(first) > 1:
        return first
    if first.endswith("%") and first.strip("0.,#%") == "":
        return first
    if first == "general" or not any(letter in first for letter in "ymdhs"):
        return "General"
    return "date"
