"""What a command prints: for people a table, for pipes one line a thing with tabs between its fields, for programs JSON.

Results go to standard output, everything said about them to standard error.
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
    """The outputs of one command."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    @property
    def terminal(self) -> bool:
        """Whether a person reads the results."""
        return sys.stdout.isatty()

    def print_list(self, columns: Sequence[str], things: Iterable[Any], row: Callable[[Any], Sequence[object]]) -> None:
        """Print records: ``row`` gives the cells of each, under ``columns``."""
        if self.as_json:
            print(json.dumps([dict(thing.raw) for thing in things], ensure_ascii=False))
        elif self.terminal:
            self._table(columns, [[_text(cell) for cell in row(thing)] for thing in things])
        else:
            for thing in things:
                print("\t".join(_flat(_text(cell)) for cell in row(thing)), flush=True)

    def print_record(self, record: Any, rows: Iterable[tuple[str, object]]) -> None:
        """Print one record: ``rows`` are the names and values that people look for."""
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
        """Print one line, which a terminal shows in this style and no terminal folds."""
        from rich.text import Text

        _console().print(Text(text, style), soft_wrap=True)

    def print_note(self, text: str) -> None:
        """Tell a person something that is no result."""
        print(text, file=sys.stderr, flush=True)

    def _table(self, columns: Sequence[str] | None, rows: Iterable[Sequence[str]]) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(*columns or ("", ""), show_header=columns is not None, box=None, pad_edge=False)
        # An id that is cut off is of no use; the last column is what gives way.
        for column in table.columns[:-1]:
            column.no_wrap = True
        for row in rows:
            table.add_row(*(Text(cell, STYLES.get(cell, "")) for cell in row))
        _console().print(table)


def clock(seconds: float | None) -> str:
    """A time of the server's, as the clock on the wall shows it here; with the date unless that is today's."""
    if seconds is None:
        return ""
    then = datetime.fromtimestamp(seconds).astimezone()
    return f"{then:%H:%M:%S}" if then.date() == datetime.now().astimezone().date() else f"{then:%Y-%m-%d %H:%M:%S}"


def first_line(text: str, longest: int = 60) -> str:
    """The beginning of a text, on one line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"


def _console() -> "Console":
    from rich.console import Console

    return Console()


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{key}={one}" for key, one in value.items() if one is not None)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def _flat(text: str) -> str:
    """So that a field is a field and a line is a line."""
    return text.replace("\t", " ").replace("\r", "").replace("\n", " ")
