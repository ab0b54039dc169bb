"""Reading order of recognized lines: columns, rows and paragraphs, from where the lines are on the page.

Engines return lines in any order. A page is cut at the gaps between its columns and at the lines across them, until each part is a
single column, which is read from top to bottom.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from workers.cpu.readers.text_builder import clean_text

MIN_GUTTER = 0.8
"""Width of the gap between two columns, in heights of a line."""

MIN_COLUMN_WIDTH = 6.0
"""Width of a column's typical line, in heights of a line. Narrower ones are cells of a table, which are read by rows."""

MIN_COLUMN_LINES = 3
MAX_CROSSING = 0.15
"""Share of the lines that may cross the gap between two columns, such as titles. Two always may."""

PARAGRAPH_GAP = 0.9
"""Empty space above a new paragraph beyond that between most lines, in heights of a line."""

MAX_BETWEEN_LINES = 40
"""Characters by which the place of a line in the text may be off, such as those of a line before it that was not found."""

_BINS = 400
_BROKEN_WORD = re.compile(r"(?<=[^\W\d_])-\n(?=([^\W\d_]))")


Place = tuple[float, float, float, float]


@dataclass(frozen=True)
class Line:
    """A recognized line: its text, the engine's confidence from 0 to 1, and its box on the upright page.

    ``place`` is where it is on the picture as the engine received it, which may lie on its side: left, top, right and bottom as fractions
    of the picture. None if the engine does not say."""

    text: str
    confidence: float
    left: float
    top: float
    right: float
    bottom: float
    place: Place | None = None

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2


@dataclass(frozen=True)
class RecognizedText:
    """The text of a picture, the mean confidence of its lines (0 if it has none), and its lines whose place is known, in the order of the
    text."""

    text: str
    confidence: float
    lines: Sequence[Line] = ()


def compose_text(lines: Sequence[Line]) -> RecognizedText:
    """The text of all lines in reading order. Words that were broken at the ends of lines are joined."""
    if not lines:
        return RecognizedText("", 0.0)
    blocks = [_rows_of(block) for block in _split_blocks(list(lines))]
    text = join_broken_words("\n\n".join(_block_text(rows) for rows in blocks))
    placed = [line for rows in blocks for row in rows for line in row if line.place is not None]
    return RecognizedText(text, round(fmean(line.confidence for line in lines), 4), placed)


def find_lines(text: str, lines: Sequence[Line]) -> list[tuple[int, int, Line]]:
    """Where each line is in a text that was composed of them: its start and end. Lines that are not found are left out."""
    found: list[tuple[int, int, Line]] = []
    position = 0
    for line in lines:
        words = clean_text(line.text).strip()
        for candidate in (words, words.removesuffix("-")):  # the text has joined words that were broken
            start = text.find(candidate, position, position + len(candidate) + MAX_BETWEEN_LINES) if candidate else -1
            if start >= 0:
                position = start + len(candidate)
                found.append((start, position, line))
                break
    return found


def join_broken_words(text: str) -> str:
    """Join words that a hyphen breaks at the end of a line. Before a capital letter, the hyphen may belong to the word."""
    return _BROKEN_WORD.sub(lambda broken: "" if broken[1].islower() else broken[0], text)


def _split_blocks(lines: list[Line]) -> list[list[Line]]:
    """Parts of the page in reading order, each a single column.

    Lines across the gap between two columns, such as titles, part what is above them from what is below.
    """
    cut = _find_gutter(lines)
    if cut is None:
        return [lines] if lines else []
    across = sorted((line for line in lines if line.left < cut < line.right), key=lambda line: line.middle)
    blocks: list[list[Line]] = []
    top = float("-inf")
    for index in range(len(across) + 1):
        bottom = across[index].middle if index < len(across) else float("inf")
        band = [line for line in lines if top <= line.middle < bottom and not line.left < cut < line.right]
        for side in ([line for line in band if line.right <= cut], [line for line in band if line.left >= cut]):
            blocks += _split_blocks(side)
        if index < len(across):
            is_continued = not band and index > 0
            blocks[-1:] = [[*blocks[-1], across[index]]] if is_continued else [*blocks[-1:], [across[index]]]
        top = bottom
    return blocks


def _find_gutter(lines: list[Line]) -> float | None:
    """The middle of the widest gap that separates two columns of text and that few lines cross, or None."""
    if len(lines) < 2 * MIN_COLUMN_LINES:
        return None
    height = median(line.height for line in lines)
    start, end = min(line.left for line in lines), max(line.right for line in lines)
    step = max(1.0, (end - start) / _BINS)
    covering = [0] * (int((end - start) / step) + 2)
    for line in lines:
        for index in range(int((line.left - start) / step), int((line.right - start) / step) + 1):
            covering[index] += 1
    gaps, opened = list[tuple[float, float]](), 0
    for index, count in enumerate(covering):
        if count > max(2, MAX_CROSSING * len(lines)):
            if opened and index - opened > 1:
                gaps.append(((index - opened) * step, start + (index + opened) / 2 * step))
            opened = index + 1
    for width, cut in sorted(gaps, reverse=True):
        sides = [line for line in lines if line.right <= cut], [line for line in lines if line.left >= cut]
        if width >= MIN_GUTTER * height and all(_is_column(side, height) for side in sides):
            return cut
    return None


def _is_column(lines: list[Line], height: float) -> bool:
    return len(lines) >= MIN_COLUMN_LINES and median(line.right - line.left for line in lines) >= MIN_COLUMN_WIDTH * height


def _block_text(rows: list[list[Line]]) -> str:
    """A single column, row by row. An empty line separates paragraphs."""
    height = median(line.height for row in rows for line in row)
    tops = [min(line.top for line in row) for row in rows]
    bottoms = [max(line.bottom for line in row) for row in rows]
    gaps = [top - bottom for top, bottom in zip(tops[1:], bottoms[:-1], strict=True)]
    usual = median(gaps) if gaps else 0.0
    texts = [" ".join(line.text.strip() for line in row) for row in rows]
    result = texts[0]
    for text, gap in zip(texts[1:], gaps, strict=True):
        result += ("\n\n" if gap - usual > PARAGRAPH_GAP * height else "\n") + text
    return result


def _rows_of(lines: list[Line]) -> list[list[Line]]:
    """Lines that are beside each other, such as the cells of a table, form a row."""
    rows: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: line.middle):
        if rows and line.middle - rows[-1][0].middle < 0.5 * min(line.height, rows[-1][0].height):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [sorted(row, key=lambda line: line.left) for row in rows]
