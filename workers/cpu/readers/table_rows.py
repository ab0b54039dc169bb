"""Rows of the tables in documents, as lines of text in which each value has the title of its column.

A sheet may hold anything: a banner above the table, several tables, no titles at all. A value without its title is found less
easily, but a value with the title of something else is wrong, so rows are labelled only if the titles are beyond doubt.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from workers.cpu.readers.reader import ReadError
from workers.cpu.readers.text_builder import TextBuilder, clean_text

MAX_CELLS = 20_000_000
_TITLE_ROWS = 3  # the rows at the beginning of a block among which its titles are looked for
_SAMPLE_ROWS = 20
_NUMBER = re.compile(r"[-+($€£¥]{0,3}\s?\.?\d[\d.,'\u2019\u00a0\u202f ]*[%€$£¥)]{0,2}|\d{4}-\d\d-\d\d.{0,20}|\d\d?:\d\d.{0,10}")
_YEAR = re.compile(r"(?:FY\s?)?(?:19|20)\d\d(?:-\d\d){0,2}")

Row = list[str]


def add_table(builder: TextBuilder, rows: Iterable[Sequence[str]], *, titled: bool = False) -> None:
    """Add rows, one per line. ``titled`` says that the first row has titles. Raises ReadError beyond MAX_CELLS, which counts
    empty cells too."""
    titles: Row = []
    numeric: list[bool] = []
    for filled, group in groupby(_cleaned(rows), key=bool):
        if not filled:
            continue
        block = _Block(group)
        own = 0 if titled and not numeric else block.title_row()
        if own is not None or (titles and not block.continues(titles, numeric)):
            titles = []
        numbers = block.columns_of_numbers(0 if own is None else own + 1)
        alone = False  # whether the row before had one cell, which may be the banner of another table
        for number, row in enumerate(block.rows()):
            if number == own or (alone and titles and _breaks(row, numbers)):
                titles = row
                builder.add_line(_plain(row))
            elif titles and (own is None or number > own) and not _is_alone(row):
                builder.add_line(_labelled(titles, row))
            else:
                builder.add_line(_plain(row))
            alone = _is_alone(row)
        numeric = block.numeric_columns(0 if own is None else own + 1)


class _Block:
    """Consecutive rows that are not empty. Its first rows show what it is."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rest = rows
        self._first = [row for row, _ in zip(rows, range(_SAMPLE_ROWS), strict=False)]

    def rows(self) -> Iterator[Row]:
        yield from self._first
        yield from self._rest

    def title_row(self) -> int | None:
        """Which row has the titles of the rows after it, or None."""
        banner = False
        for number, row in enumerate(self._first[:_TITLE_ROWS]):
            filled = sum(map(bool, row))
            if filled < 2:
                continue
            rest = self._first[number + 1 :]
            if any(
                sum(map(bool, later)) > filled and not any(map(_is_number, later)) for later in rest[: _TITLE_ROWS - number - 1]
            ):
                banner = True  # a row of more titles follows
                continue
            return number if _are_titles(row, rest) and (not banner or _has_numbers_below(row, rest)) else None
        return None

    def numeric_columns(self, start: int) -> list[bool]:
        """Whether each column has numbers only."""
        rows = self._first[start:]
        width = max(map(len, rows), default=0)
        columns = ([row[column] for row in rows if column < len(row) and row[column]] for column in range(width))
        return [bool(values) and all(map(_is_number, values)) for values in columns]

    def columns_of_numbers(self, start: int) -> set[int]:
        """The columns in which most values are numbers."""
        rows = self._first[start:]
        counts: dict[int, int] = {}
        for row in rows:
            for column, value in enumerate(row):
                if value:
                    counts[column] = counts.get(column, 0) + (1 if _is_number(value) else -1)
        return {column for column, count in counts.items() if count > 0}

    def continues(self, titles: Row, numeric: list[bool]) -> bool:
        """Whether these rows belong to the table before them: they fill the same columns, with numbers where it has numbers."""
        own = self.numeric_columns(0)
        return any(numeric) and own == numeric and all(len(row) <= len(titles) for row in self._first)


def _is_alone(row: Row) -> bool:
    """Whether the first cell of a row is its only one. The end of a row never has empty cells."""
    return len(row) == 1


def _breaks(row: Row, numbers: set[int]) -> bool:
    """Whether a row has titles instead of the numbers that its columns had so far."""
    return (
        len(row) > 1
        and all(value and not _is_number(value) for value in row)
        and len(set(row)) == len(row)
        and any(column < len(row) for column in numbers)
    )


def _are_titles(row: Row, following: list[Row]) -> bool:
    titles = [value for value in row if value]
    columns = {column for values in following for column, value in enumerate(values) if value}
    if not following or len(set(titles)) < len(titles) or any(len(title) >= 100 for title in titles):
        return False
    if titles[0].endswith(":") or _is_form(following):
        return False
    untitled = [column for column in columns if column >= len(row) or not row[column]]
    if len(untitled) > 1 + len(titles) // 2 or (untitled and untitled != [0] and not _has_numbers_below(row, following)):
        return False
    numbers = [column for column, value in enumerate(row) if value and _is_number(value)]
    if not numbers:
        return True
    years = [row[column] for column in numbers]
    below = [values[column] for values in following for column in numbers if column < len(values) and values[column]]
    return (
        len(numbers) > 1
        and all(_YEAR.fullmatch(year) for year in years)
        and years in (sorted(years), sorted(years, reverse=True))
        and not all(_YEAR.fullmatch(value) for value in below)
    )


def _is_form(rows: list[Row]) -> bool:
    """Whether rows are names and values of one thing: two columns, of which the second mixes numbers and words."""
    values = [row[1] for row in rows if len(row) == 2]
    return len(values) == len(rows) > 1 and any(map(_is_number, values)) and not all(map(_is_number, values))


def _has_numbers_below(row: Row, following: list[Row]) -> bool:
    return any(
        _is_number(value) and column < len(row) and row[column] and not _is_number(row[column])
        for values in following
        for column, value in enumerate(values)
    )


def _is_number(value: str) -> bool:
    return len(value) < 40 and _NUMBER.fullmatch(value) is not None


def _cleaned(rows: Iterable[Sequence[str]]) -> Iterator[Row]:
    cells = 0
    for row in rows:
        cells += len(row) or 1
        if cells > MAX_CELLS:
            raise ReadError("too_large", f"The file has a table of more than {MAX_CELLS} cells.")
        values = [" ".join(clean_text(value).split()) for value in row]
        while values and not values[-1]:
            values.pop()
        yield values


def _plain(row: Row) -> str:
    return " | ".join(row).strip(" |")


def _labelled(titles: Row, row: Row) -> str:
    pieces = []
    for column, value in enumerate(row):
        title = titles[column] if column < len(titles) else ""
        if value:
            pieces.append(f"{title}: {value}" if title else value)
    return "; ".join(pieces)
