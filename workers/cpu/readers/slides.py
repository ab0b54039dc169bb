"""PowerPoint reader: a page is a slide with its notes and comments.

Text of a layout or master is on many slides. It is read once, with the first slide that shows it: on every page, it would make
all chunks similar and match each search many times.
"""

from collections.abc import Iterator
from typing import Any

from lxml import etree

from workers.cpu.readers.drawing import add_graphics, paragraph_text, shape_lines
from workers.cpu.readers.formula import flatten_formulas
from workers.cpu.readers.ooxml import DAMAGED, A, P, Package, R
from workers.cpu.readers.reader import Content, InMemoryReader, Source
from workers.cpu.readers.table_rows import add_table
from workers.cpu.readers.text_builder import TextBuilder

_TITLES = ("title", "ctrTitle")
_GROUPS = frozenset([f"{P}grpSp", f"{P}spTree"])
_TRUE, _FALSE = ("1", "true"), ("0", "false")
_SHAPES = frozenset(f"{P}{name}" for name in ("sp", "pic", "graphicFrame", "cxnSp", "contentPart"))


class PptxReader(InMemoryReader):
    """Presentations: .pptx, .pptm, .ppsx, .ppsm, .potx and .potm. Hidden slides are read too."""

    name = "pptx"

    def __init__(self, source: Source, password: str) -> None:
        self._package = Package(source)
        self._templates: set[str] = set()
        self._template_texts: set[str] = set()
        main = self._package.main_part()
        relationships = self._package.relationships(main)
        builders = []
        for entry in self._package.parse(main).iterfind(f"{P}sldIdLst/{P}sldId"):
            target = relationships.get(entry.get(f"{R}id") or "")
            builder = TextBuilder()
            if target is None or target.target not in self._package:
                builder.add_fault("is missing from the file")
            else:
                try:
                    self._add_slide(builder, target.target)
                except DAMAGED as error:
                    builder.add_fault(f"is damaged: {error}"[:200])
            builders.append(builder)
        if builders and self._package.has_macros:
            builders[0].skip("macros")
        contents = [content for builder in builders for content in builder.build_pages()]
        super().__init__(contents or [Content("")], self._package.title())

    def _add_slide(self, builder: TextBuilder, part: str) -> None:
        slide = self._package.parse(part)
        flatten_formulas(slide)
        shapes = [shape for tree in slide.iterfind(f"{P}cSld/{P}spTree") for shape in _shapes(tree)]
        title = next((shape for shape in shapes if _placeholder(shape) in _TITLES), None)
        if title is not None:
            builder.add_heading(1, " ".join(shape_lines(title)))
        for shape in shapes:
            if shape is not title:
                self._add_shape(builder, part, shape)
        if not (builder.blank and builder.images):  # a slide that is only a picture needs OCR, whatever is printed around it
            self._add_template(builder, part, slide, "slideLayout")
        for notes in self._package.related(part, "notesSlide"):
            for tree in self._package.parse(notes).iterfind(f"{P}cSld/{P}spTree"):
                for shape in _shapes(tree):
                    if _placeholder(shape) not in ("sldNum", "sldImg", "hdr", "ftr", "dt"):
                        self._add_shape(builder, notes, shape)
        for comments in self._package.related(part, "comments"):
            for comment in self._package.parse(comments).iter():
                if str(comment.tag).rpartition("}")[2] in ("cm", "reply"):
                    text = " ".join([*(text.text or "" for text in comment.iterchildren(f"{P}text")), *_own_lines(comment)])
                    builder.add_line(f"Comment: {text}" if text.strip() else "")

    def _add_template(self, builder: TextBuilder, part: str, root: Any, kind: str) -> None:
        """Add what a slide shows of its layout, and a layout of its master, if no earlier slide has shown it."""
        if root.get("showMasterSp") in _FALSE:
            return
        for template in self._package.related(part, kind):
            if template in self._templates:
                continue
            self._templates.add(template)
            try:
                tree = self._package.parse(template)
                _remove_hidden(tree)
                flatten_formulas(tree)
                for shape in (shape for shapes in tree.iterfind(f"{P}cSld/{P}spTree") for shape in _shapes(shapes)):
                    text = "\n".join(shape_lines(shape))
                    # The text of a placeholder is a prompt. Layouts often repeat each other's text.
                    if not _placeholder(shape) and (not text or text not in self._template_texts):
                        self._template_texts.add(text)
                        self._add_shape(builder, template, shape)
                self._add_template(builder, template, tree, "slideMaster")
            except DAMAGED as error:
                builder.add_fault(f"has a damaged layout: {error}"[:200])

    def _add_shape(self, builder: TextBuilder, part: str, shape: Any) -> None:
        table = next(shape.iter(f"{A}tbl"), None)
        if table is not None:
            rows = ([_cell_text(cell) for cell in row.iterchildren(f"{A}tc")] for row in table.iterchildren(f"{A}tr"))
            add_table(builder, rows)
        else:
            for line in shape_lines(shape):
                builder.add_line(line)
        if next(shape.iter(f"{P}oleObj"), None) is not None:
            builder.skip("embedded objects")
        if next(shape.iter(f"{A}videoFile", f"{A}audioFile"), None) is not None:
            builder.skip("media")
        if shape.tag == f"{P}contentPart":
            builder.skip("ink")
        add_graphics(builder, self._package, part, [shape])
        builder.add_text("\n")


def _remove_hidden(template: Any) -> None:
    """Remove what a layout or master does not show, its slide number, and its pictures, which are logos and ornaments."""
    for properties in list(template.iter(f"{P}cNvPr")):
        owner = properties.getparent().getparent()
        if properties.get("hidden") in _TRUE and owner is not None and owner.getparent() is not None:
            owner.getparent().remove(owner)
    for run in list(template.iter(f"{A}fld")):
        if run.get("type") == "slidenum":
            run.getparent().remove(run)
    etree.strip_elements(template, f"{A}blip", with_tail=False)


def _shapes(parent: Any) -> Iterator[Any]:
    """Shapes in reading order, including those in groups."""
    for child in parent:
        if child.tag in _SHAPES:
            yield child
        elif child.tag in _GROUPS or str(child.tag).rpartition("}")[2] in ("AlternateContent", "Choice", "Fallback"):
            yield from _shapes(child)


def _placeholder(shape: Any) -> str:
    found = next(shape.iter(f"{P}ph"), None)
    return "" if found is None else found.get("type") or "obj"


def _cell_text(cell: Any) -> str:
    return " ".join(paragraph_text(paragraph) for paragraph in cell.iter(f"{A}p"))


def _own_lines(comment: Any) -> Iterator[str]:
    """Paragraphs of a comment without those of its replies."""
    for child in comment:
        if str(child.tag).rpartition("}")[2] == "txBody":
            yield from shape_lines(child)
