"""Print the summary of an ingest: how many documents ended in each state, which were replaced, and the reason for each file that
cannot be searched."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from cli.output import STYLES, plural
from cli.remote.bulk_ingest.uploader import FileOutcome
from cli.safe_text import safe_line
from enginehouse_client import Job

# Documents that are listed as replaced; with --json each file says what it replaced.
MAX_REPLACED = 20

# Columns without a terminal, so that each row is one line, whole.
UNLIMITED = 100_000


def print_summary(outcomes: Sequence[FileOutcome], files: int, batch: Job, seconds: float) -> None:
    """Print failures, counts and the batch on standard error; without a terminal, as plain lines."""
    console = Console(stderr=True, width=None if Console(stderr=True).is_terminal else UNLIMITED)
    failures = [outcome for outcome in outcomes if outcome.failed]
    if failures:
        table = Table(Column("file", overflow="fold"), "status", "reason", box=None, pad_edge=False)
        for outcome in sorted(failures, key=lambda outcome: (outcome.status, outcome.file)):
            styled = Text(outcome.status, STYLES.get(outcome.status, ""))
            table.add_row(Text(safe_line(outcome.file)), styled, Text(safe_line(outcome.reason)))
        console.print(table)
        console.print()
    _print_replaced(console, [outcome for outcome in outcomes if outcome.replaces])
    counts = Counter[tuple[str, bool]]()
    for outcome in outcomes:
        counts[outcome.status, outcome.duplicate] += outcome.count
    table = Table("status", "documents", box=None, pad_edge=False)
    for (status, duplicate), count in sorted(counts.items(), key=lambda item: (item[0][0] != "ready", item[0])):
        label = f"{status}, already in the collection" if duplicate else status
        table.add_row(Text(label, STYLES.get(status, "")), f"{count:,}")
    console.print(table)
    console.print(Text(f"batch {batch.id} is {batch.status}: {describe_counts(batch)}"))
    rate = f", {files / seconds:,.1f} files/s" if seconds > 1 else ""
    console.print(f"{plural(files, 'file')} in {seconds:,.1f} s{rate}", highlight=False)


def _print_replaced(console: Console, outcomes: Sequence[FileOutcome]) -> None:
    if not outcomes:
        return
    table = Table(Column("replaced", overflow="fold"), "by document", "instead of", box=None, pad_edge=False)
    for outcome in outcomes[:MAX_REPLACED]:
        table.add_row(Text(safe_line(outcome.file)), outcome.document, outcome.replaces)
    console.print(table)
    if len(outcomes) > MAX_REPLACED:
        console.print(f"and {len(outcomes) - MAX_REPLACED:,} more were replaced", highlight=False)
    console.print()


def describe_counts(batch: Job) -> str:
    """The counts of a batch in words; zeros are left out."""
    counts = dict(batch.counts or {})
    total = counts.pop("total", 0)
    counts["in progress"] = total - sum(counts.values())
    return ", ".join([plural(total, "job"), *(f"{count:,} {name}" for name, count in counts.items() if count)])
