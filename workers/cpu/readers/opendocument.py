"""OpenDocument reader: texts, presentations, drawings and spreadsheets of LibreOffice and others.

A page ends at each page break of a text that the file records. A slide begins a page, and so does each sheet.
"""

import zipfile
from collections.abc import Iterator
from typing import Any

from lxml import etree

from workers.cpu.readers.reader import Content, InMemoryReader, ReadError, Source
from workers.cpu.readers.table_rows import add_table
from workers.cpu.readers.text_builder import TextBuilder
from workers.cpu.readers.zip_safety import check_zip

_NAMES = "urn:oasis:names:tc:opendocument:xmlns:"
_OFFICE, _TEXT, _TABLE, _DRAW = (f"{{{_NAMES}{name}:1.0}}" for name in ("office", "text", "table", "drawing"))
_STYLE = f"{{{_NAMES}style:1.0}}"
_PRESENTATION, _DC = f"{{{_NAMES}presentation:1.0}}", "{http://purl.org/dc/elements/1.1/}"
_SVG = f"{{{_NAMES}svg-compatible:1.0}}"
_MATH = "{http://www.w3.org/1998/Math/MathML}"
_FORM = f"{{{_NAMES}form:1.0}}"
_MANIFEST = f"{{{_NAMES}manifest:1.0}}"
_PARAGRAPHS = frozenset([f"{_TEXT}p", f"{_TEXT}h"])
# Text that is deleted, or that the program repeats: the entries of an index stand in the text.
_SKIPPED = frozenset([f"{_TEXT}tracked-changes", f"{_TEXT}sequence-decls", f"{_OFFICE}forms", f"{_OFFICE}scripts"])
_DECLARED_MARGINS = frozenset([f"{_PRESENTATION}header-decl", f"{_PRESENTATION}footer-decl", f"{_PRESENTATION}date-time-decl"])
_BREAKS = frozenset([f"{_TEXT}soft-page-break"])
MAX_REPEATED = 1000
"""Repetitions of one row or cell that are read. Programs fill sheets to their end with repeated cells."""


class OpenDocumentReader(InMemoryReader):
    """.odt, .ods, .odp and .odg files, and their templates."""

    name = "opendocument"

    def __init__(self, source: Source, password: str) -> None:
        check_zip(source)
        with zipfile.ZipFile(source) as package:
            names = set(package.namelist())
            if "META-INF/manifest.xml" in names and b"encryption-data" in package.read("META-INF/manifest.xml"):
                raise ReadError("encrypted", "The file is encrypted. Save a copy without a password and upload that.")
            self._package, self._names = package, names
            root = self._parse("content.xml")
            self._builders = [TextBuilder()]
            self._remarks: list[str] = []
            self._margins: list[str] = []
            for content in root.iterfind(f"{_OFFICE}body/*"):
                kind = content.tag.removeprefix(_OFFICE)
                for child in content:
                    if child.tag == f"{_DRAW}page":
                        self._add_slide(child)
                    elif kind == "spreadsheet" and child.tag == f"{_TABLE}table":
                        self._start_page()
                        self._builder.add_heading(1, child.get(f"{_TABLE}name") or "")
                        self._add_block(child)
                    else:
                        self._add_block(child)
            if any(name.startswith(("Basic/", "Scripts/")) for name in names):
                self._builders[0].skip("macros")
            self._add_headers()
            title = self._title()
        super().__init__([page for builder in self._builders for page in builder.build_pages()] or [Content("")], title)

    @property
    def _builder(self) -> TextBuilder:
        return self._builders[-1]

    def _parse(self, part: str) -> Any:
        parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True, remove_pis=True)
        return etree.fromstring(self._package.read(part), parser)

    def _start_page(self) -> None:
        if self._builder.length:
            self._builders.append(TextBuilder())

    def _add_slide(self, slide: Any) -> None:
        self._start_page()
        titles = [shape for shape in slide.iter(f"{_DRAW}frame") if shape.get(f"{_PRESENTATION}class") == "title"]
        for title in titles:
            self._builder.add_heading(1, " ".join(self._inline(title)))
            title.getparent().remove(title)
        self._add_blocks(slide)

    def _add_blocks(self, parent: Any) -> None:
        for child in parent:
            self._add_block(child)

    def _add_block(self, block: Any) -> None:
        tag = block.tag
        if tag == f"{_OFFICE}forms":
            self._add_form(block)
        if tag in _SKIPPED:
            return
        if tag in _BREAKS:
            self._start_page()
        elif tag in _PARAGRAPHS:
            self._add_paragraph(block)
        elif tag == f"{_TABLE}table":
            beside = block.findall(f"{_TABLE}shapes")
            for shapes in beside:
                block.remove(shapes)
            add_table(self._builder, self._rows(block))
            self._builder.add_text("\n")
            for remark in self._remarks:
                self._builder.add_line(remark)
            self._remarks = []
            self._note_skipped(block)
            for shapes in beside:
                self._add_blocks(shapes)
        elif tag in _DECLARED_MARGINS:
            self._margins.append(" ".join((block.text or "").split()))
        elif tag == f"{_DRAW}frame":
            # The children of a frame are alternatives: an object and a picture of it, for example.
            images = sorted((child for child in block if child.tag == f"{_DRAW}image"), key=_is_vector_image)[:1]
            others = [child for child in block if child.tag not in (f"{_DRAW}image", f"{_SVG}title", f"{_SVG}desc")]
            for child in others or images:
                self._add_block(child)
        elif tag == f"{_OFFICE}annotation":
            self._builder.add_line(f"Comment: {' '.join(self._inline(block))}")
        else:
            self._note_skipped(block, children=False)
            self._add_blocks(block)

    def _add_form(self, forms: Any) -> None:
        """Add what the fields of a form show: their labels and what was typed in."""
        for control in forms.iter():
            if control.tag not in (f"{_FORM}hidden", f"{_FORM}password"):
                value = control.get(f"{_FORM}current-value") or control.get(f"{_FORM}value") or ""
                shown = ": ".join(filter(None, [control.get(f"{_FORM}label"), value]))
                if shown:
                    self._builder.add_line(shown)

    def _add_paragraph(self, paragraph: Any) -> None:
        later: list[Any] = []
        pieces = self._pieces(paragraph, later)
        text = "".join(pieces)
        for number, part in enumerate(text.split("\f")):
            if number:
                self._start_page()
            if paragraph.tag == f"{_TEXT}h":
                level = paragraph.get(f"{_TEXT}outline-level") or "1"
                self._builder.add_heading(int(level) if level.isdigit() and 0 < int(level) < 10 else 1, part)
            elif part.strip():
                self._builder.add_line(part)
        for element in later:
            if element.tag == f"{_TEXT}note":
                kind = "Endnote" if element.get(f"{_TEXT}note-class") == "endnote" else "Footnote"
                body = element.find(f"{_TEXT}note-body")
                self._builder.add_line(f"{kind}: {' '.join(self._inline(body)) if body is not None else ''}")
            else:
                self._add_block(element)

    def _pieces(self, element: Any, later: list[Any]) -> list[str]:
        """The text of a paragraph. Notes, comments and frames in it are put into ``later``."""
        pieces = [element.text or ""]
        for child in element:
            tag = child.tag
            if tag == f"{_TEXT}s":
                count = child.get(f"{_TEXT}c") or "1"
                pieces.append(" " * min(int(count) if count.isdigit() else 1, 100))
            elif tag == f"{_TEXT}tab":
                pieces.append("\t")
            elif tag == f"{_TEXT}line-break":
                pieces.append("\n")
            elif tag in _BREAKS:
                pieces.append("\f")
            elif tag in (f"{_TEXT}note", f"{_OFFICE}annotation") or str(tag).startswith(_DRAW):
                later.append(child)
            elif tag == f"{_TEXT}ruby":
                base, reading = (child.find(f"{_TEXT}ruby-{name}") for name in ("base", "text"))
                pieces += [] if base is None else self._pieces(base, later)
                pieces += [] if reading is None else [" (", *self._pieces(reading, later), ") "]
            elif tag not in _SKIPPED:
                pieces += self._pieces(child, later)
            pieces.append(child.tail or "")
        return pieces

    def _inline(self, parent: Any) -> Iterator[str]:
        """The paragraphs inside an element, each on one line, and what stands in or beside them."""
        for child in parent:
            if child.tag in _PARAGRAPHS:
                later: list[Any] = []
                yield " ".join("".join(self._pieces(child, later)).split())
                for element in later:
                    yield from self._inline(element)
            elif child.tag not in _SKIPPED and child.tag not in (f"{_DC}creator", f"{_DC}date"):
                yield from self._inline(child)

    def _rows(self, table: Any) -> Iterator[list[str]]:
        for row in table:
            if row.tag in (f"{_TABLE}table-header-rows", f"{_TABLE}table-rows", f"{_TABLE}table-row-group"):
                yield from self._rows(row)
            elif row.tag == f"{_TABLE}table-row":
                values: list[str] = []
                for cell in row.iterchildren(f"{_TABLE}table-cell", f"{_TABLE}covered-table-cell"):
                    for remark in cell.findall(f"{_OFFICE}annotation"):
                        self._remarks.append(f"Comment: {' '.join(self._inline(remark))}")
                        cell.remove(remark)
                    text = " ".join(filter(None, self._inline(cell)))
                    if not text:
                        text = cell.get(f"{_OFFICE}value") or cell.get(f"{_OFFICE}string-value") or ""
                    if not text and cell.get(f"{_TABLE}formula") and cell.get(f"{_OFFICE}value-type") is None:
                        self._builder.add_fault("has formulas without a stored value, which were not computed")
                    values += [text] * _repeated(cell, "columns", text)
                while values and not values[-1]:
                    values.pop()
                for _ in range(_repeated(row, "rows", "".join(values))):
                    yield values

    def _note_skipped(self, block: Any, *, children: bool = True) -> None:
        for element in block.iter() if children else [block]:
            if element.tag == f"{_DRAW}image":
                part = _linked_part(element)
                if part in self._names:
                    self._builder.add_picture(part)
                else:
                    self._builder.skip("images")
            elif element.tag in (f"{_DRAW}object", f"{_DRAW}object-ole"):
                self._add_object(element)
            elif element.tag == f"{_DRAW}plugin":
                self._builder.skip("media")

    def _add_object(self, element: Any) -> None:
        """Add a chart or a formula, which are files inside the file."""
        folder = _linked_part(element)
        part = f"{folder}/content.xml"
        if part not in self._names:
            self._builder.skip("embedded objects")
            return
        try:
            root = self._parse(part)
        except etree.XMLSyntaxError:
            self._builder.skip("embedded objects")
            return
        if root.tag == f"{_MATH}math":
            for note in list(root.iter(f"{_MATH}annotation")):
                note.getparent().remove(note)
            self._builder.add_line(" ".join(" ".join(root.itertext()).split()))
            return
        for paragraph in root.iter(*_PARAGRAPHS):
            if not any(True for _ in paragraph.iterancestors(f"{_TABLE}table")):
                self._builder.add_line("".join(self._pieces(paragraph, [])))
        for table in root.iter(f"{_TABLE}table"):
            add_table(self._builder, self._rows(table))

    def _add_headers(self) -> None:
        """Headers and footers, once each."""
        for text in dict.fromkeys(filter(None, self._margins)):
            self._builder.add_line(text)
        if "styles.xml" not in self._names:
            return
        try:
            styles = self._parse("styles.xml")
        except etree.XMLSyntaxError:
            self._builders[0].add_fault("has headers and footers that could not be read")
            return
        names = [f"{_STYLE}{name}" for name in ("header", "footer", "header-first", "footer-first", "header-left", "footer-left")]
        texts = (" ".join(filter(None, self._inline(element))) for element in styles.iter(*names))
        for text in dict.fromkeys(texts):
            if text and not text.isdigit() and text != "???":
                self._builder.add_line(text)

    def _title(self) -> str:
        try:
            found = self._parse("meta.xml").iter(f"{_DC}title") if "meta.xml" in self._names else iter(())
            return next((" ".join((element.text or "").split()) for element in found), "")
        except etree.XMLSyntaxError:
            return ""


def _linked_part(element: Any) -> str:
    return (element.get("{http://www.w3.org/1999/xlink}href") or "").removeprefix("./").rstrip("/")


def _is_vector_image(element: Any) -> bool:
    """Whether OCR cannot read an image, beside which a frame may have another form of it."""
    return _linked_part(element).lower().endswith((".svg", ".emf", ".wmf", ".svm", ".pdf"))


def _repeated(element: Any, what: str, text: str) -> int:
    count = element.get(f"{_TABLE}number-{what}-repeated") or "1"
    number = int(count) if count.isdigit() and len(count) < 9 else 1
    return max(1, min(number, MAX_REPEATED)) if text else min(number, MAX_REPEATED)
