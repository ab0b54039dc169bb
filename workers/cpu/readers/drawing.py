"""Drawings in Office files: text of shapes, charts and diagrams (SmartArt). Word, PowerPoint and Excel share their format."""

from collections.abc import Iterable, Iterator
from typing import Any

from workers.cpu.readers.ooxml import CHART, CX, DAMAGED, DGM, DIAGRAM, EXTENDED_CHART, A, C, M, Package, R
from workers.cpu.readers.table_rows import add_table
from workers.cpu.readers.text_builder import TextBuilder

VML = "{urn:schemas-microsoft-com:vml}"

_PICTURE_IDS = {f"{A}blip": f"{R}embed", f"{VML}imagedata": f"{R}id"}
"""Elements that show a picture, and the attribute that names its relationship."""

MAX_POINTS = 100_000
"""Points read of one series of a chart."""


def paragraph_text(paragraph: Any) -> str:
    """Text of a paragraph of a shape. A line break becomes a newline."""
    pieces: list[str] = []
    for element in paragraph.iter(f"{A}t", f"{A}br", f"{M}t"):
        text = "\n" if element.tag == f"{A}br" else element.text or ""
        if text[:1].isdigit() and pieces and pieces[-1][-1:].isdigit() and _is_raised(element):
            text = f"^{text}"  # 10 to the sixth is not 106
        pieces.append(text)
    return "".join(pieces).replace("\v", "\n")


def _is_raised(text: Any) -> bool:
    properties = text.getparent().find(f"{A}rPr")
    baseline = "" if properties is None else properties.get("baseline") or ""
    return baseline[:1].isdigit() and baseline.strip("0%") != ""


def shape_lines(shape: Any) -> Iterator[str]:
    """The paragraphs of a shape that have text."""
    for paragraph in shape.iter(f"{A}p"):
        text = paragraph_text(paragraph)
        if text.strip():
            yield text


def add_graphics(builder: TextBuilder, package: Package, part: str, elements: Iterable[Any]) -> None:
    """Add the charts and diagrams that the elements of a part refer to, and note pictures."""
    targets = None
    for root in elements:
        for element in root.iter(CHART, EXTENDED_CHART, DIAGRAM, *_PICTURE_IDS):
            targets = package.relationships(part) if targets is None else targets
            if element.tag in _PICTURE_IDS:
                shown = targets.get(element.get(_PICTURE_IDS[element.tag]) or "")
                if shown is None or shown.external or shown.target not in package:
                    builder.skip("images")
                else:
                    builder.add_picture(shown.target)
                continue
            target = targets.get(element.get(f"{R}dm" if element.tag == DIAGRAM else f"{R}id") or "")
            kind = "a diagram" if element.tag == DIAGRAM else "a chart"
            if target is None or target.external or target.target not in package:
                builder.add_fault(f"refers to {kind} that is not in the file")
                continue
            try:
                drawing = package.parse(target.target)
            except DAMAGED:
                builder.add_fault(f"contains {kind} that could not be read")
                continue
            if element.tag == DIAGRAM:
                add_diagram(builder, drawing)
            else:
                add_chart(builder, drawing)


def add_diagram(builder: TextBuilder, data: Any) -> None:
    """Add the text of the points of a diagram, without the copies for its layout."""
    for point in data.iter(f"{DGM}pt"):
        if point.get("type") != "pres":
            for line in shape_lines(point):
                builder.add_line(" ".join(line.split()))


def add_chart(builder: TextBuilder, chart: Any) -> None:
    """Add the titles of a chart and its values, with a line for each category."""
    for line in shape_lines(chart):
        builder.add_line(" ".join(line.split()))
    for title in chart.iter(f"{C}tx"):  # a title that is the value of a cell
        text = " ".join(value.text or "" for found in title.iterchildren(f"{C}strRef") for value in found.iter(f"{C}v"))
        if text and title.getparent().tag != f"{C}ser":
            builder.add_line(text)
    # The series of a scatter chart may each have their own points on the axis.
    groups: list[tuple[dict[int, str], list[tuple[str, dict[int, str]]]]] = []
    for element in chart.iter(f"{C}ser", f"{CX}series"):
        named = element.find(f"{C}tx")
        name = "" if named is None else " ".join(value.text or "" for value in named.iter(f"{C}v"))
        labels: dict[int, str] = {}
        for axis in element.iterchildren(f"{C}cat", f"{C}xVal"):
            labels = labels or _points(axis)
        values: dict[int, str] = {}
        for axis in element.iterchildren(f"{C}val", f"{C}yVal"):
            values = values or _points(axis)
        name = " ".join(name.split())
        if groups and not groups[-1][0]:
            groups[-1] = (labels, groups[-1][1])
        if not groups or (labels and labels != groups[-1][0]):
            groups.append((labels, []))
        groups[-1][1].append((name, values))
        for sizes in element.iterchildren(f"{C}bubbleSize"):
            groups[-1][1].append((f"{name} (size)" if name else "size", _points(sizes)))
    for labels, series in groups:
        rows = sorted(labels.keys() | {index for _, values in series for index in values})
        if rows:
            titles = [["", *(name for name, _ in series)]] if any(name for name, _ in series) else []
            body = ([labels.get(index, ""), *(values.get(index, "") for _, values in series)] for index in rows)
            add_table(builder, [*titles, *body], titled=bool(titles))
    for data in chart.iter(f"{CX}data"):
        for dimension in data:
            values_of = [point.text or "" for point in dimension.iter(f"{CX}pt")][:MAX_POINTS]
            if values_of:
                builder.add_line(" | ".join(values_of))


def _points(axis: Any) -> dict[int, str]:
    """The values that the file stores of an axis, by their index. Categories of several levels are joined."""
    found: dict[int, str] = {}
    for point in axis.iter(f"{C}pt"):
        index, value = point.get("idx") or "", " ".join(text.text or "" for text in point.iter(f"{C}v"))
        if index.isascii() and index.isdigit() and len(index) < 8 and len(found) < MAX_POINTS:
            found[int(index)] = f"{value} {found[int(index)]}" if int(index) in found else value
    return found
