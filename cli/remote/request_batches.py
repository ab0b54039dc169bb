"""``enginehouse batch``: run the requests of a file, watch them, and get their answers."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from cli.errors import CommandError
from cli.output import clock
from cli.remote.command import (
    PANEL,
    CommandContext,
    ConcurrencyKey,
    ConcurrencyLimit,
    Group,
    NotBefore,
    server_command,
    start_time,
)
from cli.remote.generate import parse_pairs
from cli.remote.jobs import WaitTimeout
from cli.safe_text import safe_line

if TYPE_CHECKING:
    from enginehouse_client import RequestBatch

batch = typer.Typer(cls=Group, help="Run the requests of a file as a batch, and get their answers.")

TEXT_INTERVAL_SECONDS = 10.0

Id = Annotated[str, typer.Argument(help="Batch id.", metavar="BATCH")]


@batch.command("submit")
@server_command
def submit_batch(
    context: CommandContext,
    file: Annotated[
        Path, typer.Argument(help="A JSON object per line: custom_id, method, url, body.", exists=True, dir_okay=False)
    ],
    endpoint: Annotated[
        str | None, typer.Option(help="The call that all requests make.", show_default="the url of the first line")
    ] = None,
    window: Annotated[str, typer.Option(help="Time within which the batch must end, such as 30m, 24h or 7d.")] = "24h",
    not_before: NotBefore = None,
    concurrency_key: ConcurrencyKey = None,
    concurrency_limit: ConcurrencyLimit = None,
    metadata: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; repeatable.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end, with a bar, and print the answers.")] = False,
    wait_timeout: WaitTimeout = None,
) -> None:
    """Run the requests of a file and print the id of the batch, or with --wait the answers."""
    try:
        submitted = context.patient_client.submit_requests(
            file,
            endpoint=endpoint,
            completion_window=window,
            metadata=parse_pairs(metadata or ()),
            not_before=start_time(not_before),
            concurrency_key=concurrency_key,
            concurrency_limit=concurrency_limit,
        )
    except ValueError as error:
        raise CommandError(safe_line(str(error))) from None
    if not wait:
        if context.out.as_json:
            context.out.print_json(dict(submitted.raw))
        else:
            print(submitted.id)
        return
    context.out.print_note(f"batch {submitted.id}")
    with _progress() as on_poll:
        ended = context.patient_client.wait_for_requests(submitted, timeout=wait_timeout, on_poll=on_poll)
    _print_results(context, ended)
    _report_end(context, ended)


@batch.command("list")
@server_command
def list_batches(context: CommandContext) -> None:
    """List batches, newest first."""

    def row(found: "RequestBatch") -> tuple[object, ...]:
        counts = found.request_counts
        return (
            found.id,
            found.status,
            found.endpoint,
            counts["total"],
            counts["completed"],
            counts["failed"],
            clock(found.created_at),
        )

    columns = ("batch", "status", "endpoint", "requests", "completed", "failed", "created")
    context.out.print_list(columns, context.client.request_batches(), row)


@batch.command("status")
@server_command
def show_batch(
    context: CommandContext,
    batch: Id,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end, with a bar.")] = False,
    wait_timeout: WaitTimeout = None,
) -> None:
    """Show a batch: how many of its requests have ended, and when the last one probably will."""
    if wait:
        with _progress() as on_poll:
            found = context.patient_client.wait_for_requests(batch, timeout=wait_timeout, on_poll=on_poll)
    else:
        found = context.client.request_batch(batch)
    counts = found.request_counts
    rows: list[tuple[str, object]] = [
        ("batch", found.id),
        ("status", found.status),
        ("endpoint", found.endpoint),
        ("model", found.model),
        ("must end within", found.completion_window),
        ("file with requests", found.input_file_id),
        ("file with answers", found.output_file_id),
        ("file with errors", found.error_file_id),
        ("job", found.job_id),
    ]
    times = [
        (name, clock(found.raw.get(field)))
        for name, field in (("created", "created_at"), ("started", "in_progress_at"), ("expires", "expires_at"))
    ]
    rows += [("requests", counts["total"]), ("completed", counts["completed"]), ("failed", counts["failed"]), *times]
    rows.append(("estimated end", clock(found.estimated_end_at)))
    context.out.print_record(found, rows)
    _print_errors(found)
    if wait and found.status != "completed":
        _exit_not_completed()


@batch.command("results")
@server_command
def show_results(context: CommandContext, batch: Id) -> None:
    """Print the lines of an ended batch as JSON: those with answers, then those with errors."""
    found = context.client.request_batch(batch)
    if not found.ended:
        raise CommandError(
            f"Batch {found.id} has not ended (status {found.status}). Wait with: enginehouse batch status {found.id} --wait"
        )
    _print_results(context, found)
    _report_end(context, found)


@batch.command("cancel")
@server_command
def cancel_batch(context: CommandContext, batch: Id) -> None:
    """Cancel a batch. Requests that have ended keep their answers."""
    found = context.client.cancel_requests(batch)
    if context.out.as_json:
        context.out.print_json(dict(found.raw))
    else:
        context.out.print_note(f"{found.id} is {found.status}")


def install(root: typer.Typer) -> None:
    """Add these commands to the root."""
    root.add_typer(batch, name="batch", rich_help_panel=PANEL)


def _print_results(context: CommandContext, found: "RequestBatch") -> None:
    for line in context.patient_client.request_results(found):
        print(json.dumps(line, ensure_ascii=not sys.stdout.encoding.lower().startswith("utf")))


def _report_end(context: CommandContext, found: "RequestBatch") -> None:
    """Say how the batch ended, and exit with a status unless all requests are answered."""
    counts = found.request_counts
    context.out.print_note(
        f"{found.id} is {found.status}: {counts['completed']} of {counts['total']} requests are answered, {counts['failed']} failed"
    )
    _print_errors(found)
    if found.status != "completed" or counts["failed"]:
        _exit_not_completed()


def _exit_not_completed() -> NoReturn:
    from cli.remote.exit_statuses import NOT_COMPLETED

    raise typer.Exit(NOT_COMPLETED)


def _print_errors(found: "RequestBatch") -> None:
    for error in (found.errors or {}).get("data", ()):
        line = f"line {error['line']}: " if error["line"] else ""
        print(safe_line(f"{line}{error['message']} ({error['code']})"), file=sys.stderr)


@contextmanager
def _progress() -> Iterator[Callable[["RequestBatch"], None]]:
    """A bar on standard error; without a terminal, an occasional line of text."""
    if not sys.stderr.isatty():
        yield _TextProgress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns: list[Any] = [TextColumn("{task.description}", markup=False), BarColumn(bar_width=32), MofNCompleteColumn()]
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        task = bars.add_task("validating", total=None)

        def update(found: "RequestBatch") -> None:
            counts = found.request_counts
            description = f"{found.status}, {counts['failed']} failed" if counts["failed"] else found.status
            done = counts["completed"] + counts["failed"]
            bars.update(task, description=description, completed=done, total=counts["total"] or None)

        yield update


class _TextProgress:
    def __init__(self) -> None:
        self._last_text_at = time.monotonic()

    def __call__(self, found: "RequestBatch") -> None:
        if time.monotonic() - self._last_text_at >= TEXT_INTERVAL_SECONDS:
            self._last_text_at = time.monotonic()
            counts = found.request_counts
            done = counts["completed"] + counts["failed"]
            print(
                f"{found.status}: {done} of {counts['total']} requests done, {counts['failed']} failed",
                file=sys.stderr,
                flush=True,
            )
