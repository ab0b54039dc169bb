"""Sections of a screen for operators: a titled table each on a terminal; in a pipe, lines that begin with the name of their section, of
which the first has the names of the columns."""

from collections.abc import Sequence
from dataclasses import dataclass

from cli.output import Output


@dataclass(frozen=True)
class Section:
    """Rows of one kind of thing."""

    name: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[object, ...]]


def print_sections(sections: Sequence[Section], out: Output) -> None:
    """Print sections one after the other."""
    for section in sections:
        if out.terminal:
            out.print_line(section.name.capitalize() + ("" if section.rows else ": none"), "bold")
            if section.rows:
                out.print_list(section.columns, section.rows, lambda row: row)
                print()
        elif section.rows:
            name = section.name
            out.print_list((name, *section.columns), section.rows, lambda row, name=name: (name, *row))  # type: ignore[misc]
