"""Layout of a page: tables as Markdown rows, and columns one after the other.

The text of a PDF is in the order in which a program wrote it, which is nearly always the reading order. So only parts that are
beside each other in the file are changed: rows of cells become rows of a table, and lines that alternate between two columns are
put into the order of the columns. Everything else stays unchanged.

Coordinates are PDF coordinates: they grow to the right and upwards.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, zip_longest
from statistics import median

from workers.cpu.readers.characters import HYPHEN, Piece

MIN_GAP = 1.0
"""Characters of a line that are farther apart than this many heights are in different cells or columns. Justified text has gaps too."""

MIN_CELL_GAP, MAX_SHIFT = 0.45, 0.3
"""A cell that ends close to the next one: the gap between them, and how far the next one begins from its column, in heights."""

MIN_ROWS = 3
"""Rows of a table without lines around its cells."""

MAX_ROWS_ALONE = 0.3
"""Share of the rows of such a table that may have the first cell only."""

MIN_COLUMN_LINES = 5
MIN_COLUMN_WIDTH = 10.0
"""Width of a column of running text, in heights of a line. Narrower ones are cells."""

MIN_COLUMN_FILL = 0.55
"""Share of a column's width that its typical line fills. Cells fill less."""

MIN_COLUMN_WORDS = 4
MAX_ROW_GAP = 3.0
"""Empty space between the rows of one table, in heights of a line."""

MAX_WIDTH_DIFFERENCE = 0.02
"""Share by which the characters of program code differ in width."""

MAX_COLUMNS, MAX_TABLE_ROWS, MAX_SEGMENTS = 40, 300, 5000
RULE_TOLERANCE = 1.5
"""Lines that are not farther apart than this many points are one."""

MIN_RULE_SHARE = 0.7
"""Share of a table's width that the line below a row covers."""

MIN_RULED_RECORDS = 0.3
"""Records between lines per line of text. Fewer mean that the lines only part the head of a table from its rows."""

_LIST_MARK = re.compile(
    r"[•◦▪‣\N{HYPHEN BULLET}●○■□\N{EN DASH}—*·-]|\(?(?:\d{1,3}(?:\.\d{1,3})*|[A-Za-z]|[ivxlc]{1,5})[.)]|\[\d{1,3}\]"
)
_LINE_NUMBER = re.compile(r"[0-9]{1,5}")
_DOTS = re.compile(r"(?:\. ?){4,}|…{2,}")


Word = tuple[int, int, float, float]
"""Where the word before it ends in the page's text, where it begins, and the same two places on the page. A page has hundreds."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Characters of one line without a wide gap: the range of the page's text, the box, and its words but the first one."""

    start: int
    end: int
    left: float
    bottom: float
    right: float
    top: float
    words: Sequence[Word] = ()

    @property
    def height(self) -> float:
        return self.top - self.bottom

    @property
    def width(self) -> float:
        return self.right - self.left


@dataclass(frozen=True, slots=True)
class Rule:
    """A line that is drawn on the page, horizontal or vertical, as the box around it."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def is_vertical(self) -> bool:
        return self.top - self.bottom > self.right - self.left


@dataclass
class _Row:
    """Segments beside each other, from left to right. All are there before its box is asked for."""

    segments: list[Segment]

    @cached_property
    def top(self) -> float:
        return max(segment.top for segment in self.segments)

    @cached_property
    def bottom(self) -> float:
        return min(segment.bottom for segment in self.segments)

    @cached_property
    def height(self) -> float:
        return max(segment.height for segment in self.segments)

    def takes(self, segment: Segment) -> bool:
        last = self.segments[-1]
        overlap = min(last.top, segment.top) - max(last.bottom, segment.bottom)
        return overlap >= 0.5 * min(last.height, segment.height) and segment.left >= last.right


@dataclass
class _Column:
    left: float
    right: float


def arrange(text: str, segments: Sequence[Segment], find_rules: Callable[[], Sequence[Rule]]) -> list[Piece] | None:
    """Pieces of the text in another order, or None if the page has neither tables nor columns beside each other. ``find_rules``
    is called if something may be a table."""
    rows = _rows(segments) if len(segments) <= MAX_SEGMENTS else []
    if all(len(row.segments) == 1 for row in rows):
        return None
    rules = find_rules()
    verticals = [rule for rule in rules if rule.is_vertical]
    rows = _join_cells(rows, verticals) if verticals else rows
    pieces: list[Piece] = []
    done = position = 0
    while position < len(rows):
        block: list[Piece] = []
        run, columns = _run(rows, position)
        if _are_columns(text, run, columns):
            block = list(_column_pieces(text, run, columns))
        elif len(rows[position].segments) > 1:
            records: list[list[Segment]] = []
            if len(verticals) < len(rules):
                grid, grid_columns = _run(rows, position, any_order=True)
                records = _ruled_records(grid, grid_columns, rules)
            if records:
                run, columns = grid, grid_columns
            else:
                records = _records(run, columns)
            if len(records) > 1 and not _is_plain(text, run, columns):
                block = list(_table_pieces(text, records, columns))
        if not block or not _is_complete(text, run, block):  # the rows that end this run may begin another one
            position += len(run) or 1
            continue
        start = run[0].segments[0].start
        pieces += [(done, start), "\r\n" if text[:start].endswith("\n") else "\r\n\r\n", *block]
        done = max(segment.end for row in run for segment in row.segments)
        position += len(run)
    return [*pieces, (done, len(text))] if done else None


def _is_complete(text: str, run: Sequence[_Row], block: Sequence[Piece]) -> bool:
    """Whether a block has all that its rows have. Characters without a box are in no segment."""
    start, end = run[0].segments[0].start, max(segment.end for row in run for segment in row.segments)
    ranges = [piece for piece in block if not isinstance(piece, str)]
    kept = sum(len("".join(text[first:last].split())) for first, last in ranges) + block.count(HYPHEN)
    return kept == len("".join(text[start:end].split()))


def _rows(segments: Sequence[Segment]) -> list[_Row]:
    rows: list[_Row] = []
    for segment in segments:
        if rows and rows[-1].takes(segment):
            rows[-1].segments.append(segment)
        else:
            rows.append(_Row([segment]))
    return rows


def _join_cells(rows: Sequence[_Row], verticals: Sequence[Rule]) -> list[_Row]:
    """The rows, with segments joined that are between the same two vertical lines, such as justified words."""
    joined: list[_Row] = []
    for row in rows:
        middle = (row.top + row.bottom) / 2
        edges = [rule.left for rule in verticals if rule.bottom < middle < rule.top] if len(row.segments) > 1 else []
        segments: list[Segment] = []
        for segment in row.segments:
            last = segments[-1] if segments else None
            if edges and last and not any(last.right - RULE_TOLERANCE <= edge <= segment.left + RULE_TOLERANCE for edge in edges):
                word = last.end, segment.start, last.right, segment.left
                segments[-1] = replace(last, end=segment.end, right=segment.right, words=[*last.words, word, *segment.words])
            else:
                segments.append(segment)
        joined.append(_Row(segments))
    return joined


def _run(rows: Sequence[_Row], position: int, *, any_order: bool = False) -> tuple[list[_Row], list[_Column]]:
    """The rows from this position on that are below each other and share columns, and the columns; nothing unless the first one has
    several segments. A row with one segment belongs to them if others follow, or if it continues a cell.

    With ``any_order``, a row may be beside the one before it, as the first line of a high cell is where others are in the middle.
    """
    first = rows[position]
    if len(first.segments) < 2:
        return [], []
    columns = kept_columns = [_Column(segment.left, segment.right) for segment in first.segments]
    run, end = [first], 1
    for number in range(position + 1, min(len(rows), position + MAX_TABLE_ROWS)):
        row, above = rows[number], rows[number - 1]
        highest = first.top if any_order else above.top
        if row.top >= highest or above.bottom - row.top > MAX_ROW_GAP * max(row.height, above.height):
            break
        fitted = _fit(row, columns)
        if fitted is None:
            break
        row, columns = fitted
        run.append(row)
        # Text below a table often begins at its left edge.
        if len(row.segments) > 1 or _column_of(row.segments[0], columns) > 0:
            end, kept_columns = len(run), columns
    return run[:end], kept_columns


def _fit(row: _Row, columns: Sequence[_Column]) -> tuple[_Row, list[_Column]] | None:
    """The row, and the columns as wide as it needs them and maybe more of them; None if a segment is in several columns."""
    extended = [_Column(column.left, column.right) for column in columns]
    taken: set[int] = set()
    segments: list[Segment] = []
    for segment in row.segments:
        for part in _split(segment, columns):
            segments.append(part)
            inside = _columns_of(part, extended)
            if len(inside) > 1 or (inside and inside[0] in taken):
                return None
            if inside:
                column = extended[inside[0]]
                column.left, column.right = min(column.left, part.left), max(column.right, part.right)
                taken.add(inside[0])
            else:
                place = sum(column.right <= part.left for column in extended)
                extended.insert(place, _Column(part.left, part.right))
                taken = {number + (number >= place) for number in taken} | {place}
    if len(extended) > MAX_COLUMNS or any(b.left <= a.right for a, b in pairwise(extended)):
        return None
    return _Row(segments), extended


def _split(segment: Segment, columns: Sequence[_Column]) -> list[Segment]:
    """The segment in parts if it has a word with a small gap before it where each of its columns begins, as a long cell has."""
    parts: list[Segment] = []
    rest = segment
    for number in _columns_of(segment, columns)[1:]:
        word = next((word for word in rest.words if abs(word[3] - columns[number].left) <= MAX_SHIFT * rest.height), None)
        if word is None:
            return [segment]
        end_before, start, before, left = word
        if left - before < MIN_CELL_GAP * rest.height:
            return [segment]
        place = rest.words.index(word)
        parts.append(replace(rest, end=end_before, right=before, words=rest.words[:place]))
        rest = replace(rest, start=start, left=left, words=rest.words[place + 1 :])
    return [*parts, rest]


def _columns_of(segment: Segment, columns: Sequence[_Column]) -> list[int]:
    return [number for number, column in enumerate(columns) if segment.left < column.right and segment.right > column.left]


def _column_of(segment: Segment, columns: Sequence[_Column]) -> int:
    return _columns_of(segment, columns)[0]


def _are_columns(text: str, run: Sequence[_Row], columns: Sequence[_Column]) -> bool:
    """Whether these are lines of running text in columns beside each other, not cells."""
    if not 2 <= len(columns) <= 3:
        return False
    for number, column in enumerate(columns):
        own = [segment for row in run for segment in row.segments if _column_of(segment, columns) == number]
        width = column.right - column.left
        if len(own) < MIN_COLUMN_LINES or width < MIN_COLUMN_WIDTH * median(segment.height for segment in own):
            return False
        fill = median(segment.width for segment in own) / width
        if fill < MIN_COLUMN_FILL or median(len(text[segment.start : segment.end].split()) for segment in own) < MIN_COLUMN_WORDS:
            return False
    return True


def _column_pieces(text: str, run: Sequence[_Row], columns: Sequence[_Column]) -> Iterator[Piece]:
    """The lines of each column. A word that is broken at the end of a line is joined, as pdfium does where it sees the line end."""
    for number in range(len(columns)):
        own = [segment for row in run for segment in row.segments if _column_of(segment, columns) == number]
        for segment, following in zip_longest(own, own[1:]):
            start, end = segment.start, segment.end
            broken = text[end - 2 : end - 1].isalpha() and text[end - 1] == "-"
            if following is not None and broken and text[following.start].islower():
                yield start, end - 1
                yield HYPHEN
            else:
                yield start, end
                yield "\r\n"


def _table_pieces(text: str, records: Sequence[Sequence[Segment]], columns: Sequence[_Column]) -> Iterator[Piece]:
    """Markdown rows, of which the first one is the head of the table."""
    for number, record in enumerate(records):
        cells: list[list[Segment]] = [[] for _ in columns]
        for segment in record:
            cells[_column_of(segment, columns)].append(segment)
        for cell in cells:
            yield "| "
            for segment, following in zip_longest(cell, cell[1:]):
                yield from _escaped(text, segment)
                if following is None or not text[segment.start : segment.end].endswith(HYPHEN):
                    yield " "
        yield "|\r\n"
        if number == 0:
            yield f"|{' --- |' * len(columns)}\r\n"


def _escaped(text: str, segment: Segment) -> Iterator[Piece]:
    """The text of a segment. A bar in it would be the end of a cell."""
    start = segment.start
    for place in range(segment.start, segment.end):
        if text[place] == "|":
            yield start, place
            yield "\\"
            start = place
    yield start, segment.end


def _ruled_records(run: Sequence[_Row], columns: Sequence[_Column], rules: Sequence[Rule]) -> list[list[Segment]]:
    """The segments of each record if lines part the records, as those around the cells of a grid do; otherwise nothing."""
    left, right = columns[0].left, columns[-1].right
    top, bottom = max(row.top for row in run), min(row.bottom for row in run)
    margin = max(row.height for row in run)
    lengths: list[list[float]] = []
    for rule in sorted(rules, key=lambda rule: rule.top, reverse=True):
        length = min(rule.right, right) - max(rule.left, left)
        if rule.is_vertical or length <= 0 or not bottom - margin <= rule.top <= top + margin:
            continue
        if lengths and lengths[-1][0] - rule.top <= RULE_TOLERANCE:
            lengths[-1][1] += length
        else:
            lengths.append([rule.top, length])
    levels = [level for level, length in lengths if length >= MIN_RULE_SHARE * (right - left)]
    records: dict[int, list[Segment]] = {}
    for row in run:
        for segment in row.segments:
            middle = (segment.top + segment.bottom) / 2
            records.setdefault(sum(level > middle for level in levels), []).append(segment)
    is_grid = any(rule.is_vertical and left < rule.left < right and bottom < rule.top and rule.bottom < top for rule in rules)
    # Without vertical lines, a few lines may only part the head of a table from its rows.
    if len(records) < (2 if is_grid else max(MIN_ROWS, MIN_RULED_RECORDS * len(run))):
        return []
    return [record for number in sorted(records) for record in _full_rows(records[number], columns)]


def _full_rows(record: list[Segment], columns: Sequence[_Column]) -> list[list[Segment]]:
    """The rows between two lines if each of them fills the same columns, or else one record whose cells have several lines."""
    rows = _rows(record)
    filled = {tuple(_column_of(segment, columns) for segment in row.segments) for row in rows}
    return [row.segments for row in rows] if len(filled) == 1 and len(rows[0].segments) > 1 else [record]


def _records(run: Sequence[_Row], columns: Sequence[_Column]) -> list[list[Segment]]:
    """The segments of each record without lines between them, or nothing if these rows are too few for a table. A row with one
    segment that is not in the first column continues the row above it."""
    several = sum(len(row.segments) > 1 for row in run)
    alone = sum(len(row.segments) == 1 and _column_of(row.segments[0], columns) == 0 for row in run)
    if several < MIN_ROWS or alone > MAX_ROWS_ALONE * len(run):
        return []
    records: list[list[Segment]] = []
    for row in run:
        if records and len(row.segments) == 1 and _column_of(row.segments[0], columns) > 0:
            records[-1] += row.segments
        else:
            records.append(list(row.segments))
    return records


def _is_plain(text: str, run: Sequence[_Row], columns: Sequence[_Column]) -> bool:
    """Whether rows are not a table: a list, whose first column has its marks; numbered lines; contents with dots; a drawing; or
    program code, whose characters all have the same width."""
    segments = [segment for row in run for segment in row.segments]
    marks = [text[segment.start : segment.end].strip() for segment in segments if _column_of(segment, columns) == 0]
    if len(columns) == 2 and sum(_LIST_MARK.fullmatch(mark) is not None for mark in marks) >= 0.7 * len(marks):
        return True
    numbers = [int(mark) if _LINE_NUMBER.fullmatch(mark) else -1 for mark in marks]
    if numbers[0] >= 0 and sum(b == a + 1 for a, b in pairwise(numbers)) >= 0.7 * (len(numbers) - 1) > 0:
        return True
    if 2 * sum(_DOTS.search(text[row.segments[0].start : row.segments[-1].end]) is not None for row in run) >= len(run):
        return True
    cells = [text[segment.start : segment.end] for segment in segments]
    if 3 * sum(any(character.isalnum() for character in cell) for cell in cells) < 2 * len(cells):
        return True
    widths = [segment.width / (segment.end - segment.start) for segment in segments if segment.end - segment.start > 2]
    return len(widths) > 2 and max(widths) - min(widths) < MAX_WIDTH_DIFFERENCE * max(widths)
