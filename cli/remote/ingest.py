"""``enginehouse ingest``: upload files and folders into a collection and wait until each is indexed."""

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import CommandError
from cli.output import plural
from cli.remote.command import PANEL, CommandContext, ConcurrencyKey, ConcurrencyLimit, NotBefore, server_command, start_time
from cli.remote.jobs import read_arguments

if TYPE_CHECKING:
    from cli.remote.bulk_ingest.file_discovery import InputFile
    from cli.remote.bulk_ingest.uploader import FileOutcome
    from cli.remote.bulk_ingest.url_file import ServerUrl

# Up to this many files are sent without listing the collection first; the server recognises duplicate bytes itself.
LIST_COLLECTION_ABOVE = 10
RESUME_HINT = "Run the same command again to continue."


@server_command
def ingest(
    context: CommandContext,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files, folders (recursive), patterns such as 'in/**/*.pdf', s3://BUCKET/PREFIX, and URLs that the server fetches; - reads "
            "them from standard input, one per line.",
            metavar="FILE|FOLDER|URL…",
        ),
    ] = None,
    *,
    collection: Annotated[str, typer.Option("--collection", "-c", help="Target collection; created if it does not exist.")],
    include: Annotated[list[str] | None, typer.Option(help="Only files that match, such as '*.pdf'; repeatable.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Skip files that match; repeatable.")] = None,
    concurrency: Annotated[int, typer.Option("--jobs", "-j", min=1, max=100, help="Files processed at the same time.")] = 8,
    retries: Annotated[int, typer.Option(min=0, help="Retries of a request while the server is unreachable.")] = 10,
    again: Annotated[bool, typer.Option("--again", help="Also send files that the server has but could not read.")] = False,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Let files replace other documents of the collection that have their names."),
    ] = False,
    urls: Annotated[
        Path | None,
        typer.Option("--urls", help="File with URLs to fetch and send, one per line; - is standard input.", allow_dash=True),
    ] = None,
    max_url_bytes: Annotated[int, typer.Option(min=1, help="Maximum size of a fetched file.")] = 256 * 2**20,
    url_seconds: Annotated[float, typer.Option(min=0.1, help="Maximum time to fetch a file.")] = 120.0,
    allow_network: Annotated[
        list[str] | None, typer.Option(help="Non-public range from which URLs may be fetched, such as 10.0.0.0/8; repeatable.")
    ] = None,
    not_before: NotBefore = None,
    concurrency_key: ConcurrencyKey = None,
    concurrency_limit: ConcurrencyLimit = None,
    prefix: Annotated[str, typer.Option(help="Text before the names of all files, such as '2024/'.")] = "",
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Keep running: send new and changed files of one folder or bucket. Implies --replace."),
    ] = False,
    delete_removed: Annotated[
        bool, typer.Option("--delete-removed", help="With --watch: delete the documents of removed files.")
    ] = False,
) -> None:
    """Upload files into a collection, wait until all are indexed, and report each one. Exit status 3 if any is not searchable.

    A file is named by its path inside the given folder. If the collection has another file of this name, it is not sent, unless
    --replace is given. --prefix keeps both.

    Run the command again to continue an interrupted ingest: files that the collection already holds are skipped. One batch job
    counts all files; its id is printed first, and cancelling it stops the ingest. With --json each outcome is printed as one
    line on standard output as it arrives.

    URLs among the arguments are fetched by the server, and again only if their pages have changed since. With --urls, files are fetched by
    this command, from public addresses only. Both are named by their URLs.

    With --watch the command runs until Ctrl-C. It remembers what it has sent, so it can be started again at any time, and waits while
    the server restarts. Documents of removed files stay, unless --delete-removed is given.

    With --not-before the files are sent at once and indexed from that time on, and the server fetches URLs from then on. The command does
    not wait for that.

    --concurrency-key limits how many jobs with this key run at once: those of these files, and any others with the same key.
    """
    from cli.remote.bulk_ingest.file_discovery import find_files
    from cli.remote.bulk_ingest.progress_display import ProgressDisplay
    from cli.remote.bulk_ingest.s3_bucket import SCHEME, bucket_files
    from cli.remote.bulk_ingest.summary import print_summary
    from cli.remote.bulk_ingest.uploader import NAME_TAKEN, SERVER_UNREACHABLE, Uploader
    from cli.remote.bulk_ingest.url_file import split_urls
    from cli.remote.exit_statuses import NOT_COMPLETED
    from enginehouse_client import EnginehouseError
    from shared.documents.models import check_collection_name
    from shared.errors import InvalidValue

    try:
        check_collection_name(collection)
    except InvalidValue as error:
        raise CommandError(f"--collection: {error.message}") from None
    if not_before is not None and (watch or delete_removed):
        raise CommandError("--not-before cannot be combined with --watch.")
    if concurrency_limit is not None and concurrency_key is None:
        raise CommandError("--concurrency-limit needs --concurrency-key.")
    if watch or delete_removed:
        _watch(
            context,
            retries,
            watch=watch,
            paths=paths if urls is None else None,
            collection=collection,
            include=include or (),
            exclude=exclude or (),
            prefix=prefix,
            concurrency=concurrency,
            again=again,
            delete_removed=delete_removed,
            concurrency_key=concurrency_key,
            concurrency_limit=concurrency_limit,
        )
        return
    if not paths and urls is None:
        raise CommandError("Name files or folders, or a file of URLs with --urls.")
    server_urls, local = split_urls(read_arguments(paths or (), whole_lines=True))
    if server_urls and prefix:
        raise CommandError("--prefix is for files of this machine. The server names files that it fetches by their URLs.")
    files: list[InputFile | ServerUrl] = [*server_urls]
    buckets = [path for path in local if path.startswith(SCHEME)]
    files += bucket_files(buckets, include=include or (), exclude=exclude or (), prefix=prefix)
    local = [path for path in local if not path.startswith(SCHEME)]
    files += find_files(local, include=include or (), exclude=exclude or (), prefix=prefix)
    if urls is not None:
        files += _url_files(urls, max_url_bytes, url_seconds, allow_network or (), prefix)
    if not files:
        raise CommandError("No files match: nothing to ingest.")
    started = time.monotonic()
    outcomes: list[FileOutcome] = []
    with context.client_with_retries(retries) as client:
        batch = client.open_batch(not_before=start_time(not_before))
        context.out.print_note(f"Batch {batch.id} counts the jobs of {plural(len(files), 'file')}.")
        with ProgressDisplay(len(files)) as display:
            uploader = Uploader(
                client,
                collection,
                batch,
                display,
                again=again,
                replace=replace,
                wait=not_before is None,
                concurrency_key=concurrency_key,
                concurrency_limit=concurrency_limit,
            )
            try:
                if len(files) > LIST_COLLECTION_ABOVE:
                    uploader.load_existing_documents()
                for outcome in uploader.upload_files(files, concurrency):
                    outcomes.append(outcome)
                    if context.out.as_json:
                        context.out.print_json(outcome.raw)
                # Every file has its outcome, but members of archives may still be in progress.
                batch = client.seal(batch)
                batch = client.wait(batch) if not_before is None else batch
            except (KeyboardInterrupt, BrokenPipeError, *SERVER_UNREACHABLE):
                display.__exit__(None, None, None)
                # If this fails too, the server seals the batch some time after its last job.
                with suppress(EnginehouseError):
                    batch = context.client.seal(batch)
                print_summary(outcomes, len(files), batch, time.monotonic() - started)
                context.out.print_note(f"Interrupted before all files were done. {RESUME_HINT}")
                raise
    print_summary(outcomes, len(files), batch, time.monotonic() - started)
    if uploader.unsent:
        reason = "cancelled" if batch.cancel_requested_at else "sealed by another client"
        context.out.print_note(f"Batch {batch.id} was {reason}, so {_not_sent(uploader.unsent)}. {RESUME_HINT}")
    if taken := sum(outcome.status == NAME_TAKEN for outcome in outcomes):
        context.out.print_note(
            f"{_not_sent(taken)}, because the collection has another file of the same name. "
            "Add --replace to replace it, or --prefix to keep both."
        )
    if renamed := [outcome for outcome in outcomes if outcome.known_as]:
        first = renamed[0]
        unchanged = " Nothing was replaced: to rename a document, delete it and ingest the file again." * replace
        context.out.print_note(
            f"{plural(len(renamed), 'file')} not added under a new name, because the collection has the same bytes under another one, "
            f"such as {first.known_as} for {first.file}.{unchanged}"
        )
    counts = batch.counts or {}
    if not_before is not None and not batch.ended:
        if any(outcome.failed for outcome in outcomes):
            raise typer.Exit(NOT_COMPLETED)
        context.out.print_note(f"They are indexed later. Follow batch {batch.id} with: enginehouse job follow {batch.id}")
        return
    if any(outcome.failed for outcome in outcomes) or batch.status != "completed" or counts["completed"] != counts["total"]:
        raise typer.Exit(NOT_COMPLETED)


def _watch(
    context: CommandContext,
    retries: int,
    *,
    watch: bool,
    paths: list[str] | None,
    collection: str,
    include: Sequence[str],
    exclude: Sequence[str],
    prefix: str,
    concurrency: int,
    again: bool,
    delete_removed: bool,
    concurrency_key: str | None,
    concurrency_limit: int | None,
) -> None:
    from cli.remote.bulk_ingest.folder_watch import WatchedFolder, WatchedSource
    from cli.remote.bulk_ingest.s3_bucket import SCHEME, Bucket, BucketUnavailable
    from cli.remote.ingest_watch import SourceWatch, WatchOptions

    if not watch:
        raise CommandError("--delete-removed needs --watch.")
    source: WatchedSource
    if paths is not None and len(paths) == 1 and paths[0].startswith(SCHEME):
        source = Bucket(paths[0], include=include, exclude=exclude, prefix=prefix)
        try:
            source.list_files()
        except BucketUnavailable as error:
            raise CommandError(str(error)) from None
    elif paths is not None and len(paths) == 1 and Path(paths[0]).is_dir():
        source = WatchedFolder(Path(paths[0]), include, exclude, prefix)
    else:
        raise CommandError("--watch needs exactly one folder, or s3://BUCKET/PREFIX.")
    options = WatchOptions(
        source=source,
        collection=collection,
        include=include,
        exclude=exclude,
        prefix=prefix,
        concurrency=concurrency,
        again=again,
        delete_removed=delete_removed,
        list_above=LIST_COLLECTION_ABOVE,
        concurrency_key=concurrency_key,
        concurrency_limit=concurrency_limit,
    )
    with context.client_with_retries(retries) as client:
        SourceWatch(context, client, options).run()


def _url_files(urls: Path, size: int, seconds: float, networks: Sequence[str], prefix: str) -> Sequence["InputFile"]:
    from cli.remote.bulk_ingest.url_file import url_files
    from shared.webhooks.ssrf import AddressPolicy, parse_networks
    from workers.io.url_download import Downloader, DownloadLimits

    try:
        allowed = parse_networks(",".join(networks))
    except ValueError as error:
        raise CommandError(f"--allow-network: {error}") from None
    policy = AddressPolicy(allowed, setting="--allow-network")
    lines = sys.stdin if str(urls) == "-" else urls.read_text(encoding="utf-8", errors="replace").splitlines()
    return url_files(lines, Downloader(policy, DownloadLimits(size, seconds, "--max-url-bytes")), prefix=prefix)


def _not_sent(count: int) -> str:
    return f"{plural(count, 'file')} {'was' if count == 1 else 'were'} not sent"


def install(root: typer.Typer) -> None:
    """Add this command to the root."""
    root.command(rich_help_panel=PANEL)(ingest)
