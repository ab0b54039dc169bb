"""``enginehouse ingest``: files and folders into a collection, until each has its end."""

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import CommandError
from cli.remote.command import PANEL, CommandContext, server_command
from cli.remote.jobs import read_arguments

if TYPE_CHECKING:
    from cli.remote.bulk_ingest.uploader import FileOutcome

# Fewer are sent without asking first what is there: the server finds the same bytes by itself.
WORTH_ASKING = 10
AGAIN = "Run it again to go on where it stopped."


@server_command
def ingest(
    context: CommandContext,
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders with all below them, patterns such as 'in/**/*.pdf'; - reads such from standard input.",
            metavar="FILE|FOLDER…",
        ),
    ],
    collection: Annotated[str, typer.Option("--collection", "-c", help="Where to; made when there is none.")],
    include: Annotated[list[str] | None, typer.Option(help="Only files like this, such as '*.pdf'; may be given again.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="No files like this; may be given again.")] = None,
    concurrency: Annotated[int, typer.Option("--jobs", "-j", min=1, max=100, help="Files under way at once.")] = 8,
    retries: Annotated[int, typer.Option(min=0, help="How often a request is sent again when the server cannot be had.")] = 10,
    again: Annotated[bool, typer.Option("--again", help="Also send what the server has and could not read.")] = False,
) -> None:
    """Put files into a collection, wait until all are read, and say what became of each. Status 3 if one cannot be searched.

    Run it again to go on where it stopped: what the collection holds already is not sent again. One batch job counts all that is
    sent; its id is printed first, and cancelling it stops the ingest. With --json each end is one line on standard output, as it
    comes.
    """
    from cli.remote.bulk_ingest.file_discovery import find_files
    from cli.remote.bulk_ingest.progress_display import ProgressDisplay
    from cli.remote.bulk_ingest.summary import print_summary
    from cli.remote.bulk_ingest.uploader import SERVER_UNREACHABLE, Uploader
    from enginehouse_client import EnginehouseError

    files = find_files(read_arguments(paths, whole_lines=True), include=include or (), exclude=exclude or ())
    if not files:
        raise CommandError("There is no such file: nothing to ingest.")
    started = time.monotonic()
    outcomes: list[FileOutcome] = []
    with context.client_with_retries(retries) as client:
        batch = client.open_batch()
        context.out.print_note(f"Batch {batch.id} counts the jobs of these {len(files):,} files.")
        with ProgressDisplay(len(files)) as board:
            sending = Uploader(client, collection, batch, board, again=again)
            try:
                if len(files) > WORTH_ASKING:
                    sending.remember()
                for end in sending.run(files, concurrency):
                    outcomes.append(end)
                    if context.out.as_json:
                        context.out.print_json(end.raw)
                # All files have their end, but members of archives may still be read.
                batch = client.wait(client.seal(batch))
            except (KeyboardInterrupt, BrokenPipeError, *SERVER_UNREACHABLE):
                board.__exit__(None, None, None)
                # Should this fail too, the server seals it some time after the last of its jobs.
                with suppress(EnginehouseError):
                    batch = context.client.seal(batch)
                print_summary(outcomes, len(files), batch, time.monotonic() - started)
                context.out.print_note(f"Not all files have been seen to their end. {AGAIN}")
                raise
    print_summary(outcomes, len(files), batch, time.monotonic() - started)
    if sending.unsent:
        what = "cancelled" if batch.cancel_requested_at else "sealed by somebody else"
        context.out.print_note(f"Batch {batch.id} was {what}, so {sending.unsent:,} files were not sent. {AGAIN}")
    counts = batch.counts or {}
    if any(end.failed for end in outcomes) or batch.status != "completed" or counts["completed"] != counts["total"]:
        from cli.remote.exit_statuses import NOT_COMPLETED

        raise typer.Exit(NOT_COMPLETED)


def install(root: typer.Typer) -> None:
    """Put this command under the root."""
    root.command(rich_help_panel=PANEL)(ingest)
