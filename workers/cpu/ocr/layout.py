"""Reading order of recognized lines: columns, rows and paragraphs, from where the lines are on the page.

Engines return lines in any order. A page is cut at the gaps between its columns and between what is above and below them, until
each part is a single column, which is read from top to bottom.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

MIN_GUTTER = 0.8
"""Width of the gap between two columns, in heights of a line."""

MIN_COLUMN_WIDTH = 6.0
"""Width of a column's typical line, in heights of a line. Narrower ones are cells of a table, which are read by rows."""

MIN_COLUMN_LINES = 3
PARAGRAPH_GAP = 0.9
"""Empty space above a new paragraph beyond that between most lines, in heights of a line."""

_BROKEN_WORD = re.compile(r"(?<=[^\W\d_])-\n(?=([^\W\d_]))")


@dataclass(frozen=True)
class Line:
    """A recognized line: its text, the engine's confidence from 0 to 1, and its box on the upright page."""

    text: str
    confidence: float
    left: float
    top: float
    right: float
    bottom: float

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2


@dataclass(frozen=True)
class RecognizedText:
    """The text of a picture, and the mean confidence of its lines (0 if it has none)."""

    text: str
    confidence: float


def compose_text(lines: Sequence[Line]) -> RecognizedText:
    """The text of all lines in reading order. Words that were broken at the ends of lines are joined."""
    if not lines:
        return RecognizedText("", 0.0)
    blocks = [_block_text(block) for block in _split_blocks(list(lines), depth=12)]
    return RecognizedText(join_broken_words("\n\n".join(blocks)), round(fmean(line.confidence for line in lines), 4))


def join_broken_words(text: str) -> str:
    """Join words that a hyphen breaks at the end of a line. Before a capital letter, the hyphen may belong to the word."""
    return _BROKEN_WORD.sub(lambda broken: "" if broken[1].islower() else broken[0], text)


def _split_blocks(lines: list[Line], depth: int) -> list[list[Line]]:
    """Parts of the page in reading order, each a single column."""
    if depth == 0 or len(lines) < 2 * MIN_COLUMN_LINES:
        return [lines]
    if sides := _split_columns(lines):
        return [block for side in sides for block in _split_blocks(side, depth - 1)]
    # A title or a footer above or below the columns hides the gap between them. Cuts are tried from the widest gap on.
    for cut in _row_gaps(lines)[:20]:
        above = [line for line in lines if line.middle < cut]
        below = [line for line in lines if line.middle >= cut]
        if _split_columns(above) or _split_columns(below):
            return [*_split_blocks(above, depth - 1), *_split_blocks(below, depth - 1)]
    return [lines]


def _split_columns(lines: list[Line]) -> tuple[list[Line], list[Line]] | None:
    """The lines left and right of the widest gap that separates two columns of text, if there is one."""
    height = median(line.height for line in lines) if lines else 0.0
    right, best = float("-inf"), (0.0, 0.0)
    for line in sorted(lines, key=lambda line: line.left):
        if right > float("-inf"):
            best = max(best, (line.left - right, (line.left + right) / 2))
        right = max(right, line.right)
    gap, cut = best
    if gap < MIN_GUTTER * height:
        return None
    sides = [line for line in lines if line.right <= cut], [line for line in lines if line.left >= cut]
    return sides if all(_is_column(side, height) for side in sides) else None


def _is_column(lines: list[Line], height: float) -> bool:
    return len(lines) >= MIN_COLUMN_LINES and median(line.right - line.left for line in lines) >= MIN_COLUMN_WIDTH * height


def _row_gaps(lines: list[Line]) -> list[float]:
    """Heights at which no line is cut, the widest gap first."""
    gaps, bottom = list[tuple[float, float]](), float("-inf")
    for line in sorted(lines, key=lambda line: line.top):
        # Boxes of neighbouring lines may overlap a little.
        if bottom > float("-inf") and line.top > bottom - 0.3 * line.height:
            gaps.append((line.top - bottom, (line.top + bottom) / 2))
        bottom = max(bottom, line.bottom)
    return [cut for _, cut in sorted(gaps, reverse=True)]


def _block_text(lines: list[Line]) -> str:
    """A single column, row by row. An empty line separates paragraphs."""
    rows = _rows(lines)
    height = median(line.height for line in lines)
    tops = [min(line.top for line in row) for row in rows]
    bottoms = [max(line.bottom for line in row) for row in rows]
    gaps = [top - bottom for top, bottom in zip(tops[1:], bottoms[:-1], strict=True)]
    usual = median(gaps) if gaps else 0.0
    texts = [" ".join(line.text.strip() for line in row) for row in rows]
    result = texts[0]
    for text, gap in zip(texts[1:], gaps, strict=True):
        result += ("\n\n" if gap - usual > PARAGRAPH_GAP * height else "\n") + text
    return result


def _rows(lines: list[Line]) -> list[list[Line]]:
    """Lines that are beside each other, such as the cells of a table, form a row."""
    rows: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: line.middle):
        if rows and line.middle - rows[-1][0].middle < 0.5 * min(line.height, rows[-1][0].height):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [sorted(row, key=lambda line: line.left) for row in rows]
