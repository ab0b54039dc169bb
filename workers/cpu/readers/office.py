"""Word and PowerPoint readers.

In a Word file, a page ends at each page break, including those that Word recorded when it last laid out the text. In a
presentation, a page is a slide with its notes.
"""

import re
from typing import Any

from workers.cpu.readers.reader import Content, InMemoryReader, Source
from workers.cpu.readers.table_rows import add_table
from workers.cpu.readers.text_builder import TextBuilder
from workers.cpu.readers.zip_safety import check_zip

_HEADING_STYLE = re.compile(r"heading ([1-9])", re.IGNORECASE)
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_BREAKS = (f"{_W}lastRenderedPageBreak", f"{_W}br")


class DocxReader(InMemoryReader):
    """Word files: paragraphs and tables in order, without headers, footers and deleted text.

    They are read from the XML: python-docx searches all styles for each paragraph, and repeats merged cells.
    """

    name = "docx"

    def __init__(self, source: Source, password: str) -> None:
        import docx

        check_zip(source)
        document = docx.Document(source)
        self._builders = [TextBuilder()]
        self._styles = _style_names(document)
        for block in document.element.body.iterchildren(f"{_W}p", f"{_W}tbl"):
            if block.tag == f"{_W}tbl":
                self._add_table(block)
            else:
                self._add_paragraph(block)
        if any(True for _ in document.element.body.iter("{http://schemas.openxmlformats.org/drawingml/2006/main}blip")):
            self._builders[0].images = True
        contents = [content for builder in self._builders for content in builder.build_pages()]
        super().__init__(contents, str(document.core_properties.title or ""))

    def _add_paragraph(self, paragraph: Any) -> None:
        named = paragraph.find(f"{_W}pPr/{_W}pStyle")
        style = self._styles.get("" if named is None else named.get(f"{_W}val"), self._styles[""])
        heading = _HEADING_STYLE.fullmatch(style)
        level = int(heading[1]) if heading else 1 if style == "Title" else 0
        for number, text in enumerate(_between_breaks(paragraph)):
            if number and self._builders[-1].length:
                self._builders.append(TextBuilder())
            if level:
                self._builders[-1].add_heading(level, text)
            elif text.strip():
                self._builders[-1].add_line(text)
                self._builders[-1].add_text("\n")

    def _add_table(self, table: Any) -> None:
        rows = ([_text(cell) for cell in row.iterchildren(f"{_W}tc")] for row in table.iterchildren(f"{_W}tr"))
        add_table(self._builders[-1], rows)
        self._builders[-1].add_text("\n")


def _style_names(document: Any) -> dict[str, str]:
    """Names of the paragraph styles by id; the default style has the id "" too."""
    names = {"": ""}
    for style in document.styles.element.iterchildren(f"{_W}style"):
        if style.get(f"{_W}type", "paragraph") == "paragraph":
            name = style.find(f"{_W}name")
            names[style.get(f"{_W}styleId")] = "" if name is None else name.get(f"{_W}val", "").strip()
            if style.get(f"{_W}default") in ("1", "true", "on"):
                names[""] = names[style.get(f"{_W}styleId")]
    return names


def _between_breaks(paragraph: Any) -> list[str]:
    """The text of a paragraph, divided at the page breaks in it."""
    pieces: list[list[str]] = [[]]
    for element in paragraph.iter(f"{_W}t", f"{_W}tab", f"{_W}cr", *_BREAKS):
        if element.tag == f"{_W}t":
            pieces[-1].append(element.text or "")
        elif element.tag == f"{_W}tab":
            # Tab stops in a paragraph's properties use the same element but are not text.
            pieces[-1].append("\t" if element.getparent().tag == f"{_W}r" else "")
        elif element.tag == _BREAKS[0] or element.get(f"{_W}type") == "page":
            pieces.append([])
        else:
            pieces[-1].append("\n")
    return ["".join(piece) for piece in pieces]


def _text(element: Any) -> str:
    return " ".join(part.text or "" for part in element.iter(f"{_W}t"))


class PptxReader(InMemoryReader):
    """Presentations: title, text, tables and notes of each slide."""

    name = "pptx"

    def __init__(self, source: Source, password: str) -> None:
        import pptx

        check_zip(source)
        deck = pptx.Presentation(source)
        contents = []
        for slide in deck.slides:
            builder = TextBuilder()
            title = slide.shapes.title
            if title is not None and title.has_text_frame:
                builder.add_heading(1, title.text_frame.text)
            for shape in _shapes(slide.shapes):
                if title is not None and shape.shape_id == title.shape_id:
                    continue
                _add_shape(builder, shape)
            if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
                builder.add_line(slide.notes_slide.notes_text_frame.text)
            contents += builder.build_pages()
        super().__init__(contents or [Content("")], str(deck.core_properties.title or ""))


def _shapes(shapes: Any) -> list[Any]:
    """All shapes in reading order, including those in groups."""
    found, pending = [], list(reversed(list(shapes)))
    while pending:
        shape = pending.pop()
        if hasattr(shape, "shapes"):
            pending += reversed(list(shape.shapes))
        else:
            found.append(shape)
    return found


def _add_shape(builder: TextBuilder, shape: Any) -> None:
    if getattr(shape, "has_table", False):
        add_table(builder, ([cell.text for cell in row.cells] for row in shape.table.rows))
    elif shape.has_text_frame:
        for paragraph in shape.text_frame.paragraphs:
            builder.add_line(paragraph.text)
        builder.add_text("\n")
    elif hasattr(shape, "image"):
        builder.images = True
