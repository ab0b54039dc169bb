"""Visio reader: a page of the drawing is a page, with the text of its shapes from top to bottom, their data and the comments on it.

A shape without a text of its own shows that of its master, the shape of a stencil from which it was made.
"""

from collections.abc import Iterator
from typing import Any

from workers.cpu.readers.ooxml import DAMAGED, Package, R, Relationship
from workers.cpu.readers.reader import Content, InMemoryReader, Source
from workers.cpu.readers.text_builder import TextBuilder

V = "{http://schemas.microsoft.com/office/visio/2012/main}"

SAME_ROW = 0.25
"""Inches by which the middles of shapes in one row may differ in height."""


class VisioReader(InMemoryReader):
    """Drawings: .vsdx, .vsdm and .vstx. Pages in the background are read too."""

    name = "visio"

    def __init__(self, source: Source, password: str) -> None:
        self._package = Package(source)
        main = self._package.main_part()
        self._masters: dict[str, Any] = {number: root for _, number, _, root in self._parts(main, "masters")}
        builders: dict[str, TextBuilder] = {}
        for part, number, name, root in self._parts(main, "pages"):
            builder = builders.setdefault(number, TextBuilder())
            builder.add_heading(1, name)
            if root is None:
                builder.add_fault("is damaged or missing from the file")
            else:
                targets = self._package.relationships(part)
                for shape in _in_reading_order(root.iterfind(f"{V}Shapes/{V}Shape")):
                    self._add_shape(builder, shape, None, targets)
        self._add_comments(main, builders)
        first = next(iter(builders.values()), None)
        if first is not None and self._package.has_macros:
            first.skip("macros")
        contents = [content for builder in builders.values() for content in builder.build_pages()]
        super().__init__(contents or [Content("")], self._package.title())

    def _parts(self, main: str, kind: str) -> Iterator[tuple[str, str, str, Any]]:
        """The name, id, title and root element of each page or master; None as the root of one that cannot be read."""
        for listing in self._package.related(main, kind):
            targets = self._package.relationships(listing)
            for entry in self._package.parse(listing).iterchildren(f"{V}Page", f"{V}Master"):
                link = entry.find(f"{V}Rel")
                target = targets.get(link.get(f"{R}id") or "") if link is not None else None
                part = target.target if target is not None and not target.external else ""
                try:
                    root = self._package.parse(part) if part in self._package else None
                except DAMAGED:
                    root = None
                yield part, entry.get("ID") or "", entry.get("Name") or entry.get("NameU") or "", root

    def _add_shape(
        self, builder: TextBuilder, shape: Any, master: Any, targets: dict[str, Relationship], *, in_master: bool = False
    ) -> None:
        """Add a shape and those in it. ``master`` is that of the group that it is in. A shape ``in_master`` gets none from another
        master, as masters may contain each other."""
        own = self._masters.get(shape.get("Master") or "")
        master = master if own is None else own
        origin = _origin(shape, master)
        texts = (each.find(f"{V}Text") for each in (shape, origin) if each is not None)
        text = next((found for found in texts if found is not None), None)
        lines = [] if text is None else "".join(text.itertext()).replace("\N{LINE SEPARATOR}", "\n").splitlines()
        for line in lines:
            if line.strip():
                builder.add_line(" ".join(line.split()))
        for row in shape.iterfind(f"{V}Section[@N='Property']/{V}Row"):
            cells = {cell.get("N"): cell.get("V") or "" for cell in row.iterchildren(f"{V}Cell")}
            if cells.get("Value") and cells.get("Invisible") != "1":
                builder.add_line(": ".join(filter(None, [cells.get("Label") or row.get("N"), cells["Value"]])))
        for link in shape.iterfind(f"{V}ForeignData/{V}Rel"):
            shown = targets.get(link.get(f"{R}id") or "")
            if shown is None or shown.external or shown.target not in self._package:
                builder.skip("images")
            else:
                builder.add_picture(shown.target)
        if lines:
            builder.add_text("\n")
        inner = shape.findall(f"{V}Shapes/{V}Shape")
        if not inner and not in_master and own is not None and origin is not None:
            in_master, inner = True, origin.findall(f"{V}Shapes/{V}Shape")  # all of them are as in the master
        for each in _in_reading_order(inner):
            self._add_shape(builder, each, master, targets, in_master=in_master)

    def _add_comments(self, main: str, builders: dict[str, TextBuilder]) -> None:
        for part in self._package.related(main, "comments"):
            try:
                entries = list(self._package.parse(part).iter(f"{V}CommentEntry"))
            except DAMAGED:
                next(iter(builders.values()), TextBuilder()).add_fault("has comments that could not be read")
                continue
            for entry in entries:
                text = " ".join("".join(entry.itertext()).split())
                builder = builders.get(entry.get("PageID") or "")
                if text and builder is not None:
                    builder.add_line(f"Comment: {text}")


def _origin(shape: Any, master: Any) -> Any:
    """The shape of a master from which a shape was made, or None."""
    if master is None:
        return None
    number = shape.get("MasterShape")
    if number is None:
        return master.find(f"{V}Shapes/{V}Shape") if shape.get("Master") else None
    return next((each for each in master.iter(f"{V}Shape") if each.get("ID") == number), None)


def _in_reading_order(shapes: Any) -> list[Any]:
    """Shapes by rows from top to bottom, and from left to right. The file has them in the order in which they were drawn."""
    return sorted(shapes, key=lambda shape: (-round(_cell(shape, "PinY") / SAME_ROW), _cell(shape, "PinX")))


def _cell(shape: Any, name: str) -> float:
    found = shape.find(f"{V}Cell[@N='{name}']")
    try:
        value = float("" if found is None else found.get("V") or "")
    except ValueError:
        return 0.0
    return value if abs(value) < 1e9 else 0.0  # also for infinity and NaN
