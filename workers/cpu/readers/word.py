"""Word reader: everything that a reader of the document sees, once and in order, and its notes and comments.

A page ends at each page break, including those that Word recorded when it last laid out the text. Footnotes, endnotes and
comments follow the paragraph that refers to them; headers and footers stand at the end, once each.

The XML is read directly: the libraries for it (docs/decisions/readers.md) lose content controls, text boxes or notes.
"""

import io
import posixpath
import re
from collections.abc import Iterator
from typing import Any

from lxml import etree

from workers.cpu.readers.drawing import VML, add_graphics, paragraph_text, shape_lines
from workers.cpu.readers.formula import flatten_formulas
from workers.cpu.readers.numbering import Numbering
from workers.cpu.readers.ooxml import CHART, DAMAGED, DIAGRAM, EXTENDED_CHART, A, M, Package, R, Relationship, W
from workers.cpu.readers.reader import InMemoryReader, Source
from workers.cpu.readers.symbols import symbol
from workers.cpu.readers.table_rows import add_table
from workers.cpu.readers.text_builder import TextBuilder

_HEADING_STYLE = re.compile(r"heading ([1-9])", re.IGNORECASE)
_PLAIN, _FORMULA_TEXT, _RUN = f"{W}t", f"{M}t", f"{W}r"
_PROPERTIES, _STYLE, _VALUE, _TYPE = f"{W}pPr", f"{W}pStyle", f"{W}val", f"{W}type"
_LETTERS = (_PLAIN, _FORMULA_TEXT)
_SYMBOL, _FIELD, _WORD_ART = f"{W}sym", f"{W}ffData", f"{VML}textpath"
_BOX, _TABLE, _PARAGRAPH = f"{W}txbxContent", f"{W}tbl", f"{W}p"
_LAYOUT_BREAK, _BREAK = f"{W}lastRenderedPageBreak", f"{W}br"
_GRAPHICS = (CHART, EXTENDED_CHART, DIAGRAM, f"{A}blip", f"{VML}imagedata", f"{W}object", f"{W}subDoc", f"{A}p")
_NOTES = {f"{W}footnoteReference": "Footnote", f"{W}endnoteReference": "Endnote", f"{W}commentReference": "Comment"}
_MARKS = {
    f"{W}tab": "\t",
    f"{W}ptab": "\t",
    f"{W}cr": "\n",
    f"{W}noBreakHyphen": "-",
}
_TEXT = (_PLAIN, _FORMULA_TEXT, _SYMBOL, _FIELD, _WORD_ART, _LAYOUT_BREAK, _BREAK, *_MARKS, *_NOTES, *_GRAPHICS)
_MAX_COLUMNS = 63  # the limit of Word itself


class DocxReader(InMemoryReader):
    """Word files: .docx, .docm, .dotx and .dotm. Deleted text is left out."""

    name = "docx"

    def __init__(self, source: Source, password: str) -> None:
        self._package = Package(source)
        self._part = self._package.main_part()
        document = self._package.parse(self._part)
        self._relationships: dict[str, Relationship] = self._package.relationships(self._part)
        self._builders = [TextBuilder()]
        styles = next(self._parse_related("styles"), None)
        self._styles = _style_names(styles)
        self._numbering = Numbering(next(self._parse_related("numbering"), None), styles)
        self._pending: list[str] = []
        self._tags: tuple[str, ...] = _TEXT
        self._notes: dict[str, dict[str, str]] = {kind: {} for kind in _NOTES.values()}
        self._notes = self._read_notes()
        body = document.find(f"{W}body")
        if body is not None:
            self._boxes = _prepare(body)
            # Each tag that is looked for costs time at each element, and most documents have few of them.
            self._tags = tuple(tag for tag in _TEXT if next(body.iter(tag), None) is not None) or _TEXT
            self._add_blocks(body)
            for box in [box for boxes in self._boxes.values() for box in boxes]:
                self._add_blocks(box)
        for note in [text for kind, notes in self._notes.items() if kind == "Comment" for text in notes.values()]:
            self._builders[-1].add_line(note)
        self._tags = _TEXT
        self._add_headers()
        if self._package.has_macros:
            self._builders[0].skip("macros")
        contents = [content for builder in self._builders for content in builder.build_pages()]
        super().__init__(contents, self._package.title())

    def _add_blocks(self, parent: Any) -> None:
        for block in _blocks(parent):
            if block.tag == _PARAGRAPH:
                self._add_paragraph(block)
            elif block.tag == _TABLE:
                self._add_table(block)
            else:
                self._add_chunk(block)

    def _add_paragraph(self, paragraph: Any) -> None:
        style_id = _style_id(paragraph)
        style = self._styles.get(style_id, self._styles[""])
        heading = _HEADING_STYLE.fullmatch(style)
        level = int(heading[1]) if heading else 1 if style == "Title" else 0
        graphics: list[Any] = []
        pieces = self._between_breaks(paragraph, graphics)
        shown = next((number for number, text in enumerate(pieces) if text.strip()), None)
        if shown is not None:
            pieces[shown] = self._numbering.label(paragraph, style_id) + pieces[shown]
        for number, text in enumerate(pieces):
            if number and self._builders[-1].length:
                self._builders.append(TextBuilder())
            if level:
                self._builders[-1].add_heading(level, text)
            elif text.strip():
                self._builders[-1].add_line(text)
                self._builders[-1].add_text("\n")
        self._add_graphics(graphics)
        self._add_pending(paragraph)

    def _add_table(self, table: Any) -> None:
        graphics: list[Any] = []
        add_table(self._builders[-1], (self._cells(row, graphics) for row in _inside(table, f"{W}tr")))
        self._builders[-1].add_text("\n")
        self._add_graphics(graphics)
        self._add_pending(table)

    def _cells(self, row: Any, graphics: list[Any]) -> list[str]:
        """A value for each column of the grid that a row covers."""
        values = [""] * min(_number(row.find(f"{W}trPr/{W}gridBefore"), 0), _MAX_COLUMNS)
        for cell in _inside(row, f"{W}tc"):
            values.append(self._inline(cell, graphics))
            values += [""] * (min(_number(cell.find(f"{W}tcPr/{W}gridSpan"), 1), _MAX_COLUMNS) - 1)
        return values

    def _inline(self, parent: Any, graphics: list[Any]) -> str:
        """The text of paragraphs and of tables inside as one line."""
        pieces = []
        for block in _blocks(parent):
            if block.tag == _PARAGRAPH:
                text = "\n".join(self._between_breaks(block, graphics))
                label = self._numbering.label(block, _style_id(block)) if text.strip() else ""
                pieces.append(label + text)
            elif block.tag == _TABLE:
                pieces += [value for row in _inside(block, f"{W}tr") for value in self._cells(row, graphics)]
        return " ".join(" ".join(pieces).split())

    def _between_breaks(self, paragraph: Any, graphics: list[Any]) -> list[str]:
        """The text of a paragraph, divided at the page breaks in it. Its notes become pending."""
        pieces: list[list[str]] = [[]]
        for element in paragraph.iter(*self._tags):
            tag = element.tag
            if tag in _LETTERS:
                text = element.text or ""
                if element.get("raised") and text[:1].isdigit() and "".join(pieces[-1][-1:])[-1:].isdigit():
                    text = f"^{text}"  # 10 to the sixth is not 106
                pieces[-1].append(text)
            elif tag in _MARKS:
                # Tab stops in a paragraph's properties use the same element but are not text.
                pieces[-1].append(_MARKS[tag] if element.getparent().tag == _RUN else "")
            elif tag == _LAYOUT_BREAK or (tag == _BREAK and element.get(_TYPE) == "page"):
                pieces.append([])
            elif tag == _BREAK:
                pieces[-1].append("\n")
            elif tag == _SYMBOL:
                pieces[-1].append(self._symbol(element))
            elif tag == _WORD_ART:
                pieces[-1].append(f" {element.get('string') or ''} ")
            elif tag == _FIELD:
                pieces[-1].append(_form_field(element))
            elif tag in _NOTES:
                note = self._notes[_NOTES[tag]].pop(element.get(f"{W}id") or "", "")
                self._pending += [note] if note else []
            else:
                graphics.append(element)
        return ["".join(piece) for piece in pieces]

    def _symbol(self, element: Any) -> str:
        text = symbol(element.get(f"{W}font") or "", element.get(f"{W}char") or "")
        if not text:
            self._builders[-1].skip("symbols of special fonts")
        return text

    def _add_graphics(self, elements: list[Any]) -> None:
        builder = self._builders[-1]
        for element in elements:
            if element.tag == f"{A}p":
                builder.add_line(paragraph_text(element))
            elif element.tag == f"{W}subDoc":
                builder.skip("linked documents")
            elif element.tag == f"{W}object":
                builder.skip("embedded objects")
            else:
                add_graphics(builder, self._package, self._part, [element])

    def _add_pending(self, block: Any) -> None:
        """Add the notes of a paragraph or table and the text boxes that are anchored in it."""
        for note in self._pending:
            self._builders[-1].add_line(note)
        if self._pending:
            self._builders[-1].add_text("\n")
        self._pending = []
        for anchor in block.iter(_PARAGRAPH) if self._boxes else ():
            for box in self._boxes.pop(anchor, ()):
                self._add_blocks(box)

    def _add_chunk(self, chunk: Any) -> None:
        """Add a file in another format that Word shows as a part of the document."""
        from workers.cpu.readers.registry import open_reader

        target = self._relationships.get(chunk.get(f"{R}id") or "")
        readers = {"htm": "html", "html": "html", "xhtml": "html", "mht": "mhtml", "mhtml": "mhtml", "txt": "text", "rtf": "rtf"}
        reader = readers.get(target.target.rpartition(".")[2].lower()) if target and not target.external else None
        if target is None or reader is None or target.target not in self._package:
            self._builders[-1].skip("inserted files")
            return
        inserted = open_reader(reader, io.BytesIO(self._package.read(target.target)), "")
        for number in range(1, inserted.pages + 1):
            content = inserted.read_page(number)
            self._builders[-1].add_content(content)

    def _read_notes(self) -> dict[str, dict[str, str]]:
        """Footnotes, endnotes and comments by their ids, each as one line."""
        found: dict[str, dict[str, str]] = {kind: {} for kind in _NOTES.values()}
        for kind, tag in (("Footnote", "footnote"), ("Endnote", "endnote"), ("Comment", "comment")):
            for root in self._parse_related(f"{tag}s"):
                for note in root.iterchildren(f"{W}{tag}"):
                    author = (note.get(f"{W}author") or "").strip()
                    text = self._loose_text(note)
                    if text and note.get(f"{W}type", "normal") == "normal":
                        found[kind][note.get(f"{W}id") or ""] = f"{kind}{f' by {author}' if author else ''}: {text}"
        return found

    def _add_headers(self) -> None:
        texts = [self._loose_text(root) for root in self._parse_related("header", "footer")]
        for text in dict.fromkeys(texts):
            if text and not text.isdigit():
                self._builders[-1].add_line(text)

    def _loose_text(self, root: Any) -> str:
        """The text of a part beside the document, with that of its text boxes."""
        boxes = _prepare(root)
        graphics: list[Any] = []
        texts = [self._inline(root, graphics), *(self._inline(box, graphics) for found in boxes.values() for box in found)]
        return " ".join(filter(None, [*texts, *(line for element in graphics for line in shape_lines(element))]))

    def _parse_related(self, *kinds: str) -> Iterator[Any]:
        for part in dict.fromkeys(self._package.related(self._part, *kinds)):
            try:
                yield self._package.parse(part)
            except DAMAGED:
                self._builders[0].add_fault(f"has a damaged part: {posixpath.basename(part)}")


def _style_id(paragraph: Any) -> str:
    for properties in paragraph.iterchildren(_PROPERTIES):
        for style in properties.iterchildren(_STYLE):
            return style.get(_VALUE) or ""
    return ""


def _style_names(styles: Any) -> dict[str, str]:
    """Names of the paragraph styles by id; the default style has the id "" too."""
    names = {"": ""}
    for style in () if styles is None else styles.iterchildren(f"{W}style"):
        if style.get(f"{W}type", "paragraph") == "paragraph":
            name = style.find(f"{W}name")
            names[style.get(f"{W}styleId")] = "" if name is None else (name.get(f"{W}val") or "").strip()
            if style.get(f"{W}default") in ("1", "true", "on"):
                names[""] = names[style.get(f"{W}styleId")]
    return names


def _prepare(root: Any) -> dict[Any, list[Any]]:
    """Remove deleted text, write formulas as lines of text, and take the text boxes out of the paragraphs they hang on.

    Returns the boxes by paragraph.
    """
    for deleted in list(root.iter(f"{W}del", f"{W}moveFrom")):
        parent = deleted.getparent()
        if parent is not None and parent.tag == f"{W}trPr":
            row = parent.getparent()
            if row is not None and row.getparent() is not None:
                row.getparent().remove(row)
        elif parent is not None and parent.tag != f"{W}rPr":
            parent.remove(deleted)
    flatten_formulas(root)
    for ruby in list(root.iter(f"{W}ruby")):
        for reading in ruby.findall(f"{W}rt"):
            text = "".join(piece.text or "" for piece in reading.iter(f"{W}t"))
            ruby.remove(reading)
            etree.SubElement(ruby, f"{W}t").text = f" ({text}) " if text else ""
    for raised in root.iter(f"{W}vertAlign"):
        run = raised.getparent().getparent()
        if raised.get(f"{W}val") == "superscript" and run is not None and run.tag == f"{W}r":
            for text in run.iterchildren(f"{W}t"):
                text.set("raised", "1")
    boxes: dict[Any, list[Any]] = {}
    for box in list(root.iter(_BOX)):
        anchor = next(box.iterancestors(_PARAGRAPH), root)
        box.getparent().remove(box)
        boxes.setdefault(anchor, []).append(box)
    return boxes


def _blocks(parent: Any) -> Iterator[Any]:
    """Paragraphs, tables and inserted files, however deep in content controls, tracked changes and other wrappers."""
    for child in parent:
        if child.tag in (_PARAGRAPH, _TABLE, f"{W}altChunk"):
            yield child
        else:
            yield from _blocks(child)


def _inside(parent: Any, tag: str) -> Iterator[Any]:
    """Rows of a table or cells of a row, also those in wrappers."""
    for child in parent:
        if child.tag == tag:
            yield child
        else:
            yield from _inside(child, tag)


def _form_field(field: Any) -> str:
    """What a form field of old Word files shows without text in the document: the choice of a list, or a box with or without
    its mark."""
    choices = field.find(f"{W}ddList")
    if choices is not None:
        entries = [entry.get(f"{W}val") or "" for entry in choices.iterchildren(f"{W}listEntry")]
        chosen = _number(choices.find(f"{W}result"), _number(choices.find(f"{W}default"), 0))
        return entries[chosen] if chosen < len(entries) else ""
    box = field.find(f"{W}checkBox")
    if box is None:
        return ""
    mark = box.find(f"{W}checked")
    mark = box.find(f"{W}default") if mark is None else mark
    return "☒ " if mark is not None and mark.get(f"{W}val", "1") in ("1", "true", "on") else "☐ "


def _number(element: Any, default: int) -> int:
    value = "" if element is None else element.get(f"{W}val") or ""
    return int(value) if value.isascii() and value.isdigit() and len(value) < 5 else default
