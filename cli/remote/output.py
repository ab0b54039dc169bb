"""Output of commands: tables on a terminal, tab-separated lines in a pipe, JSON on request.

Results go to standard output, notes and errors to standard error.
"""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

STYLES = {
    **dict.fromkeys(("completed", "ready", "delivered"), "green"),
    **dict.fromkeys(("failed", "expired", "cancelled", "not_sent"), "red"),
    **dict.fromkeys(("empty", "needs_ocr", "encrypted", "unsupported", "too_large", "left_out"), "yellow"),
    **dict.fromkeys(("in_progress", "pending"), "cyan"),
}


class Output:
    """Prints the results of one command."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    @property
    def terminal(self) -> bool:
        """Whether standard output is a terminal."""
        return sys.stdout.isatty()

    def print_list(self, columns: Sequence[str], records: Iterable[Any], row: Callable[[Any], Sequence[object]]) -> None:
        """Print a list of records; ``row`` returns the cells of a record."""
        if self.as_json:
            print(json.dumps([dict(record.raw) for record in records], ensure_ascii=False))
        elif self.terminal:
            self._table(columns, [[_text(cell) for cell in row(record)] for record in records])
        else:
            for record in records:
                print("\t".join(_flat(_text(cell)) for cell in row(record)), flush=True)

    def print_record(self, record: Any, rows: Iterable[tuple[str, object]]) -> None:
        """Print one record; ``rows`` are the names and values to show."""
        if self.as_json:
            self.print_json(record.raw)
            return
        shown = [(name, _text(value)) for name, value in rows if value not in (None, "", {}, [])]
        if self.terminal:
            self._table(None, [list(pair) for pair in shown])
        else:
            for name, value in shown:
                print(f"{name}\t{_flat(value)}")

    def print_json(self, value: Any) -> None:
        """Print one JSON value on one line."""
        print(json.dumps(value, ensure_ascii=False, default=dict), flush=True)

    def print_line(self, text: str, style: str) -> None:
        """Print one line, styled on a terminal and never wrapped."""
        from rich.text import Text

        _console().print(Text(text, style), soft_wrap=True)

    def print_note(self, text: str) -> None:
        """Print a note to standard error."""
        print(text, file=sys.stderr, flush=True)

    def _table(self, columns: Sequence[str] | None, rows: Iterable[Sequence[str]]) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(*columns or ("", ""), show_header=columns is not None, box=None, pad_edge=False)
        # A truncated id is useless, so only the last column may wrap.
        for column in table.columns[:-1]:
            column.no_wrap = True
        for row in rows:
            table.add_row(*(Text(cell, STYLES.get(cell, "")) for cell in row))
        _console().print(table)


def clock(seconds: float | None) -> str:
    """Format a Unix time in local time, with the date unless it is today."""
    if seconds is None:
        return ""
    then = datetime.fromtimestamp(seconds).astimezone()
    return f"{then:%H:%M:%S}" if then.date() == datetime.now().astimezone().date() else f"{then:%Y-%m-%d %H:%M:%S}"


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


def _flat(text: str) -> str:
    """Remove the characters that separate fields and lines."""
    return text.replace("\t", " ").replace("\r", "").replace("\n", " ")
