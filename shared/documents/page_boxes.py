"""Boxes of a range of characters on a page: one for each line, or part of a line, that the range covers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SCALE = 1_000_000
"""Positions are millionths of the width and height of a page."""

MAX_GAP = 1.5
"""Characters that are farther apart than this many heights of their line are in different boxes, for example in two columns."""

MIN_OVERLAP = 0.5
"""Characters of one line overlap in at least this share of the lower one's height."""


@dataclass
class Line:
    """The characters from ``start`` to ``end``, which may include spaces, and the box that covers them, in the units of the page."""

    start: int
    end: int
    left: int
    top: int
    right: int
    bottom: int

    def takes(self, box: Sequence[int], aspect: float) -> bool:
        """Whether a character continues this line. ``aspect`` is the width of the page divided by its height."""
        _, left, top, right, bottom = box
        height = max(self.bottom - self.top, bottom - top)
        overlap = min(self.bottom, bottom) - max(self.top, top)
        gap = max(left - self.right, self.left - right)
        return overlap >= MIN_OVERLAP * min(self.bottom - self.top, bottom - top) and gap * aspect <= MAX_GAP * height

    def add(self, box: Sequence[int]) -> None:
        offset, left, top, right, bottom = box
        self.end = offset + 1
        self.left, self.top = min(self.left, left), min(self.top, top)
        self.right, self.bottom = max(self.right, right), max(self.bottom, bottom)

    def as_json(self) -> dict[str, int | float]:
        """The box as fractions of the page."""
        return {
            "start": self.start,
            "end": self.end,
            "x": self.left / SCALE,
            "y": self.top / SCALE,
            "width": (self.right - self.left) / SCALE,
            "height": (self.bottom - self.top) / SCALE,
        }


def join_lines(boxes: Iterable[Sequence[int]], text: str, start: int, end: int, *, aspect: float) -> list[Line]:
    """The lines, or parts of lines, of the characters from ``start`` to ``end`` of a page's text. ``boxes`` are [offset, left, top,
    right, bottom] of its characters; ``aspect`` is the width of the page divided by its height."""
    lines: list[Line] = []
    for box in boxes:
        offset = box[0]
        if not start <= offset < end or text[offset].isspace():
            continue
        # Between two characters of a line there are only spaces: one without a box may be anywhere.
        if lines and not text[lines[-1].end : offset].strip() and lines[-1].takes(box, aspect):
            lines[-1].add(box)
        else:
            lines.append(Line(offset, offset + 1, *box[1:]))
    return lines
