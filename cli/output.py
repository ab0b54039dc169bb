"""Output of commands: tables on a terminal, tab-separated lines below the names of their columns in a pipe, JSON on request.

Results go to standard output, notes and errors to standard error.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from cli.safe_text import safe_json, safe_line, safe_text

if TYPE_CHECKING:
    from rich.console import Console

STYLES = {
    **dict.fromkeys(("completed", "ready", "delivered"), "green"),
    **dict.fromkeys(("failed", "expired", "cancelled", "not_sent", "name_taken"), "red"),
    **dict.fromkeys(("empty", "needs_ocr", "encrypted", "unsupported", "too_large", "left_out"), "yellow"),
    **dict.fromkeys(("in_progress", "pending"), "cyan"),
}

ID = re.compile(r"[a-z]{1,20}_[0-9a-z]{20,}")
# Columns that may be cut are shortened to this width before columns are left out.
MIN_WIDTH = 8
GAP = 2


class Output:
    """Prints the results of one command."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    @property
    def terminal(self) -> bool:
        """Whether standard output is a terminal."""
        return sys.stdout.isatty()

    def print_list(
        self,
        columns: Sequence[str],
        records: Iterable[Any],
        row: Callable[[Any], Sequence[object]],
        *,
        to_json: Callable[[Any], Mapping[str, Any]] = lambda record: record.raw,
        limit: int | None = None,
        if_empty: str = "There are none.",
    ) -> None:
        """Print a list of records; ``row`` returns the cells of a record, ``to_json`` its JSON object. Of more than ``limit`` records the
        first are printed, and a note. ``if_empty`` is printed instead of an empty table."""
        every = iter(records)
        records = islice(every, limit)
        first = list(islice(records, 1))
        if not first and not self.as_json:
            self.print_note(if_empty)
            return
        records = chain(first, records)
        if self.as_json:
            self.print_json([dict(to_json(record)) for record in records])
        elif self.terminal:
            self._table(columns, [[safe_line(_text(cell)) for cell in row(record)] for record in records])
        else:
            for cells in chain([columns], map(row, records)):
                print("\t".join(safe_line(_text(cell)) for cell in cells), flush=True)
        if limit is not None and next(every, None) is not None:
            self.print_note(f"There are more than these {limit:,}: --limit shows more.")

    def print_record(
        self,
        record: Any,
        rows: Iterable[tuple[str, object]],
        *,
        to_json: Callable[[Any], Mapping[str, Any]] = lambda record: record.raw,
    ) -> None:
        """Print one record; ``rows`` are the names and values to show, ``to_json`` returns its JSON object."""
        if self.as_json:
            self.print_json(to_json(record))
            return
        shown = [(name, safe_text(_text(value))) for name, value in rows if value not in (None, "", {}, [])]
        if self.terminal:
            self._table(None, [list(pair) for pair in shown])
        else:
            for name, value in shown:
                print(f"{name}\t{safe_line(value)}")

    def print_json(self, value: Any) -> None:
        """Print one JSON value on one line."""
        print(safe_json(json.dumps(value, ensure_ascii=False, default=dict)), flush=True)

    def print_text(self, text: str, end: str = "\n") -> None:
        """Print a text, such as an answer; into a pipe or a file unchanged."""
        print(safe_text(text) if self.terminal else text, end=end, flush=True)

    def print_line(self, text: str, style: str) -> None:
        """Print one line, styled on a terminal and never wrapped."""
        from rich.text import Text

        _console().print(Text(safe_line(text), style), soft_wrap=True)

    def print_note(self, text: str) -> None:
        """Print a note to standard error."""
        print(safe_text(text), file=sys.stderr, flush=True)

    def _table(self, columns: Sequence[str] | None, rows: Iterable[Sequence[str]]) -> None:
        from rich.cells import cell_len
        from rich.table import Table
        from rich.text import Text

        cells = [list(row) for row in rows]
        count = len(columns) if columns is not None else 2
        texts = [[*([columns[index]] if columns else []), *(row[index] for row in cells)] for index in range(count)]
        lengths = [max(map(cell_len, column), default=0) for column in texts]
        # Other commands need ids and the first column, such as the name of a model, as a whole.
        whole = {index: max((len(row[index]) for row in cells if ID.fullmatch(row[index])), default=0) for index in range(count)}
        whole[0] = lengths[0]
        console = _console()
        widths = fit_widths(lengths, whole, console.width)
        table = Table(show_header=columns is not None, box=None, pad_edge=False)
        for index, width in enumerate(widths):
            if width is not None:
                table.add_column(columns[index] if columns else "", width=width, no_wrap=index < count - 1)
        for row in cells:
            kept = [cell for cell, width in zip(row, widths, strict=True) if width is not None]
            table.add_row(*(Text(cell, STYLES.get(cell, "")) for cell in kept))
        # If not even these fit, the lines are longer than the terminal.
        console.width = max(console.width, sum(width + GAP for width in widths if width is not None))
        console.print(table)


def fit_widths(widths: Sequence[int], whole: Mapping[int, int], available: int) -> list[int | None]:
    """The width of each column of a table with these text widths; None leaves a column out.

    The widest column is shortened first. A column in ``whole`` is never narrower than the width given there, and never left out.
    If shortening is not enough, other columns are left out from the right.
    """
    fitted: list[int | None] = list(widths)
    while True:
        shown = {index: width for index, width in enumerate(fitted) if width is not None}
        excess = sum(shown.values()) + GAP * (len(shown) - 1) - available
        if excess <= 0:
            return fitted
        slack = {index: width - max(MIN_WIDTH, whole.get(index, 0)) for index, width in shown.items()}
        shrinkable = sorted((index for index in shown if slack[index] > 0), key=lambda index: shown[index])
        if shrinkable:
            *narrower, widest = shrinkable
            runner_up = shown[narrower[-1]] if narrower else 0
            fitted[widest] = shown[widest] - min(excess, slack[widest], max(1, shown[widest] - runner_up))
        elif optional := [index for index in shown if not whole.get(index)]:
            fitted[optional[-1]] = None
        else:
            return fitted


def plural(count: int, noun: str) -> str:
    """A count with its noun: ``1 file``, ``2,000 files``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def clock(seconds: float | None) -> str:
    """Format a Unix time in local time. On a terminal, the date is left out if it is today."""
    if seconds is None:
        return ""
    then = datetime.fromtimestamp(seconds).astimezone()
    today = then.date() == datetime.now().astimezone().date()
    return f"{then:%H:%M:%S}" if today and sys.stdout.isatty() else f"{then:%Y-%m-%d %H:%M:%S}"


def duration_text(seconds: float) -> str:
    """A readable length of time, in the largest unit of which there are at least two: ``95 s``, ``12 min``, ``26 h``, ``3 d``."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def size_text(number: int) -> str:
    """A readable number of bytes: ``812 bytes``, ``64 KiB``, ``3 MiB``, ``1.5 GiB``."""
    if number >= 1024**3:
        return f"{number / 1024**3:,.1f} GiB"
    for unit, length in (("MiB", 1024**2), ("KiB", 1024)):
        if number >= length:
            return f"{number / length:.0f} {unit}"
    return plural(number, "byte")


def words(name: str) -> str:
    """The name of a field as words."""
    return name.replace("_", " ")


def numbers_text(numbers: Mapping[str, object] | None) -> str:
    """Named numbers of a record: ``prompt tokens 12, completion tokens 5``."""
    return ", ".join(f"{words(name)} {value}" for name, value in (numbers or {}).items() if value is not None)


def first_line(text: str, longest: int = 60) -> str:
    """The beginning of a text, on one line, cut to ``longest`` characters."""
    flat = " ".join(text.split())
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"


def _console() -> "Console":
    from rich.console import Console

    return Console()


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items() if item is not None)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
