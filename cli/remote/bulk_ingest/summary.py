"""Print the summary of an ingest: how many documents ended in each state, and the reason for each that cannot be searched."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.output import STYLES
from cli.remote.bulk_ingest.uploader import FileOutcome
from enginehouse_client import Job


def print_summary(outcomes: Sequence[FileOutcome], files: int, batch: Job, seconds: float) -> None:
    """Print failures, counts and the batch on standard error; without a terminal, as plain lines."""
    console = Console(stderr=True, width=None if Console(stderr=True).is_terminal else 200)
    failures = [outcome for outcome in outcomes if outcome.failed]
    if failures:
        table = Table("file", "status", "reason", box=None, pad_edge=False)
        for outcome in sorted(failures, key=lambda outcome: (outcome.status, outcome.file)):
            table.add_row(Text(outcome.file), Text(outcome.status, STYLES.get(outcome.status, "")), Text(outcome.reason))
        console.print(table)
        console.print()
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
    console.print(f"{files:,} files in {seconds:,.1f} s{rate}", highlight=False)


def describe_counts(batch: Job) -> str:
    """The counts of a batch in words; zeros are left out."""
    counts = dict(batch.counts or {})
    total = counts.pop("total", 0)
    counts["in progress"] = total - sum(counts.values())
    return ", ".join([f"{total:,} jobs", *(f"{count:,} {name}" for name, count in counts.items() if count)])
