"""What is said at the end of an ingest: how many files ended how, and why each that cannot be searched cannot."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.remote.bulk_ingest.uploader import FileOutcome
from cli.remote.output import STYLES
from enginehouse_client import Job


def print_summary(outcomes: Sequence[FileOutcome], files: int, batch: Job, seconds: float) -> None:
    """Print it on standard error, with what the batch counts; with no terminal there, in plain lines."""
    console = Console(stderr=True, width=None if Console(stderr=True).is_terminal else 200)
    rejected = [end for end in outcomes if end.failed]
    if rejected:
        reasons = Table("file", "end", "reason", box=None, pad_edge=False)
        for end in sorted(rejected, key=lambda end: (end.status, end.file)):
            reasons.add_row(Text(end.file), Text(end.status, STYLES.get(end.status, "")), Text(end.reason))
        console.print(reasons)
        console.print()
    counts = Counter[tuple[str, bool]]()
    for end in outcomes:
        counts[end.status, end.known] += end.count
    table = Table("end", "documents", box=None, pad_edge=False)
    for (status, known), count in sorted(counts.items(), key=lambda item: (item[0][0] != "ready", item[0])):
        table.add_row(Text(f"{status}{', there already' if known else ''}", STYLES.get(status, "")), f"{count:,}")
    console.print(table)
    console.print(Text(f"batch {batch.id} is {batch.status}: {counted(batch)}"))
    rate = f", {files / seconds:,.1f} files/s" if seconds > 1 else ""
    console.print(f"{files:,} files in {seconds:,.1f} s{rate}", highlight=False)


def counted(batch: Job) -> str:
    """The counts of a batch in words, those that are none left out."""
    counts = dict(batch.counts or {})
    total = counts.pop("total", 0)
    counts["under way"] = total - sum(counts.values())
    return ", ".join([f"{total:,} jobs", *(f"{count:,} {name}" for name, count in counts.items() if count)])
