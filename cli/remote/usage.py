"""``enginehouse usage``: usage by day, model, kind of job, end user or owner."""

import csv
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from cli.output import size_text, words
from cli.remote.command import PANEL, CommandContext, server_command
from cli.safe_text import safe_line

NUMBERS = (
    *("jobs", "prompt_tokens", "cached_tokens", "completion_tokens", "embedding_tokens"),
    *("gpu_seconds", "lost_seconds", "pages", "bytes"),
)
TITLES = {"gpu_seconds": "GPU seconds", "bytes": "size"}


@server_command
def show_usage(
    context: CommandContext,
    by: Annotated[str, typer.Option(help="day, model, kind, end_user or owner, or several separated by commas.")] = "day",
    since: Annotated[
        str | None, typer.Option(help="The first day (UTC), such as 2026-01-01.", show_default="29 days ago")
    ] = None,
    until: Annotated[str | None, typer.Option(help="The last day (UTC), inclusive.", show_default="today")] = None,
    owner: Annotated[str | None, typer.Option(help="Only this owner. Needs an administrator's key.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Show usage: jobs, tokens, GPU seconds, pages and bytes. Administrators see all owners."""
    groups: tuple[Any, ...] = tuple(by.split(","))
    report = context.client.usage(*groups, since=since, until=until, owner=owner)
    columns = (*report.group_by, *NUMBERS)
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerows([columns, *([_cell(entry[column]) for column in columns] for entry in report.data)])
    elif context.out.as_json:
        context.out.print_json(report.raw)
    else:

        def row(entry: Mapping[str, Any]) -> tuple[object, ...]:
            return tuple(
                size_text(entry[column]) if column == "bytes" else _shown(entry.get(column, "all")) for column in columns
            )

        entries = [*report.data, report.total] if len(report.data) > 1 else report.data
        titles = [TITLES.get(column, words(column)) for column in columns]
        context.out.print_list(titles, entries, row)


def install(root: typer.Typer) -> None:
    """Add this command to the root."""
    root.command("usage", rich_help_panel=PANEL)(show_usage)


def _cell(value: Any) -> Any:
    """A cell on one line, which no spreadsheet treats as a formula."""
    if not isinstance(value, str):
        return value
    return safe_line(f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value)


def _shown(value: Any) -> object:
    return "-" if value in (None, "") else f"{value:.1f}" if isinstance(value, float) else value
