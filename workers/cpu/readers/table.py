"""Reader of CSV files.

Each row becomes a line; if the table has titles, each value is written with the title of its column.
"""

import csv
import io
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from workers.cpu.readers.reader import InMemoryReader, Source, read_source
from workers.cpu.readers.table_rows import add_table
from workers.cpu.readers.text import decode_text, replacement_fault
from workers.cpu.readers.text_builder import TextBuilder

SAMPLE_CHARACTERS = 64 * 1024
"""Length of each of the parts of a file, at its beginning, middle and end, in which its delimiter is looked for."""

_DELIMITERS = ",;\t|"
_MIN_AGREEMENT = 0.35
_DECLARED = re.compile(r"sep=([,;\t|])[ \t]*\r?\n", re.IGNORECASE)  # Excel's first line
_UNCLOSED = "has a quotation mark that is never closed, so that each line was read as a row"


class CsvReader(InMemoryReader):
    """Values separated by commas, semicolons, tabs or vertical bars."""

    name = "csv"

    def __init__(self, source: Source, password: str) -> None:
        decoded = decode_text(read_source(source))
        text = decoded.text.lstrip("\ufeff")
        csv.field_size_limit(2**31 - 1)
        faults = [replacement_fault(decoded)]
        declared = _DECLARED.match(text)
        if declared:
            text, dialect = text[declared.end() :], _Dialect(declared[1])
        else:
            dialect = _find_dialect(text)
        rows = dialect.rows(text)
        if dialect.is_unclosed(text):
            rows = dialect.rows_of_lines(text)
            faults.append(_UNCLOSED)
        builder = TextBuilder()
        try:
            add_table(builder, _without_gaps(rows))
        except csv.Error:
            builder = TextBuilder()
            builder.add_text(text)
        builder.fault = "; ".join(filter(None, faults))
        super().__init__(builder.build_pages())


def _without_gaps(rows: Iterable[list[str]]) -> Iterator[list[str]]:
    """The rows without the blank ones between them: a file holds one table, perhaps below a banner."""
    begun = False
    for row in rows:
        filled = sum(bool(value.strip()) for value in row)
        begun = begun or filled > 1
        if filled or not begun:
            yield row


@dataclass(frozen=True)
class _Dialect:
    """How a file separates and quotes its values. Without a delimiter, each line is one value.

    A quotation mark within quotes is doubled or, with ``escape``, stands behind a backslash.
    """

    delimiter: str = ""
    quote: str = '"'
    escape: bool = False

    def rows(self, text: str) -> Iterator[list[str]]:
        return self._read(io.StringIO(text, newline=""), csv.QUOTE_MINIMAL)

    def rows_of_lines(self, text: str) -> Iterator[list[str]]:
        """The rows if each line is one. Quotation marks count only in lines that have them in pairs."""
        for line in io.StringIO(text, newline=""):
            yield from self._read([line], csv.QUOTE_NONE if line.count(self.quote) % 2 else csv.QUOTE_MINIMAL)

    def is_unclosed(self, text: str) -> bool:
        marks = text.count(self.quote) - (text.count("\\" + self.quote) if self.escape else 0)
        if marks % 2 == 0:
            return False
        # An odd mark within a value does no harm; one that opens a value takes everything to the end of the file as that value.
        return any(value.count("\n") + value.count("\r") > 1 for value in deque(self.rows(text), 1).pop())

    def agreement(self, parts: Sequence[str]) -> tuple[float, int]:
        """Which share of the rows have the most frequent number of values, and that number."""
        counts = Counter(len(row) for part in parts for row in self.rows(part) if row)
        columns, rows = max(
            ((number, rows) for number, rows in counts.items() if number > 1), key=lambda item: item[1], default=(1, 0)
        )
        return round(rows / max(1, counts.total()), 1), columns

    def _read(self, lines: Iterable[str], quoting: Literal[0, 3]) -> Iterator[list[str]]:
        return csv.reader(
            lines,
            delimiter=self.delimiter or "\x1f",
            quotechar=self.quote,
            doublequote=not self.escape,
            escapechar="\\" if self.escape else None,
            skipinitialspace=self.delimiter != "\t",
            quoting=quoting,
        )


def _find_dialect(text: str) -> _Dialect:
    """The dialect in which most rows have the same number of values."""
    parts = [text[:SAMPLE_CHARACTERS]]
    for start in (len(text) // 2, len(text) - SAMPLE_CHARACTERS):
        if start > SAMPLE_CHARACTERS:
            parts.append(text[start : start + SAMPLE_CHARACTERS].partition("\n")[2])
    quote = "'" if re.match(r"'[^'\r\n]{0,200}'[,;\t|]", text) else '"'
    escapes = (False, True) if "\\" + quote in text else (False,)
    dialects = [_Dialect(delimiter, quote, escape) for escape in escapes for delimiter in _DELIMITERS if delimiter in parts[0]]
    best = max(dialects, key=lambda dialect: dialect.agreement(parts), default=_Dialect())
    return best if best.agreement(parts)[0] >= _MIN_AGREEMENT else _Dialect(quote=quote)
