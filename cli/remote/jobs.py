"""``enginehouse jobs`` and ``enginehouse job``: list, show, wait, follow, cancel, retry and delete jobs."""

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.output import clock, first_line, numbers_text, words
from cli.remote.administration import Model, NewerThan, OlderThan, Owner, QueueName, install_actions, list_all_jobs
from cli.remote.command import PANEL, CommandContext, Group, server_command
from cli.safe_text import check_utf8, safe_line

if TYPE_CHECKING:
    from enginehouse_client import Event, Job

# The first column of lists of jobs, which ``-`` reads.
LIST_COLUMN = "job"
NEW_ATTEMPT = "[the attempt was lost; the answer starts over]"

Jobs = Annotated[list[str], typer.Argument(help="Job ids; - reads them from standard input.", metavar="JOB…")]
WaitTimeout = Annotated[
    float | None, typer.Option(min=0, help="Seconds to wait before giving up with exit status 6.", show_default="no limit")
]
KindName = Literal[
    "generate",
    "ingest",
    "unpack",
    "search",
    "delete",
    "reindex",
    "batch",
    "embed",
    "rerank",
    "tokenize",
    "draw",
    "fetch",
    "request_batch",
]
StatusName = Literal["queued", "in_progress", "completed", "failed", "cancelled", "expired"]
StatusFilter = Annotated[StatusName | None, typer.Option(help="Only jobs with this status.")]
KindFilter = Annotated[KindName | None, typer.Option(help="Only jobs of this kind.")]
BatchFilter = Annotated[str | None, typer.Option(help="Only jobs of this batch.")]
CollectionFilter = Annotated[str | None, typer.Option(help="Only jobs that read or change this collection.")]


class JobGroup(Group):
    """``enginehouse job job_…`` runs ``show``."""

    default_command = "show"

    def uses_default(self, args: list[str]) -> bool:
        return bool(args) and (args[0].startswith("job_") or args[0] == "-")

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands and not args[0].startswith("-"):
            ctx.fail(
                f"{args[0][:80]!r} is neither a command of `enginehouse job` nor the id of a job: ids start with job_. "
                "`enginehouse jobs` lists jobs."
            )
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=JobGroup, no_args_is_help=True, help="Show, wait for, follow, cancel, retry and delete jobs.")


all_jobs = typer.Typer(cls=Group, help="List jobs; cancel, retry or delete the jobs of all owners that match a filter.")


@all_jobs.command("list")
@server_command
def jobs(
    context: CommandContext,
    status: StatusFilter = None,
    kind: KindFilter = None,
    model: Model = None,
    batch: BatchFilter = None,
    collection: CollectionFilter = None,
    search: Annotated[str | None, typer.Option(help="Only jobs with this text in their prompt's beginning or file name.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number to list.")] = 20,
    all_owners: Annotated[
        bool, typer.Option("--all-owners", help="List the jobs of all owners. Needs an administrator's key.")
    ] = False,
    owner: Owner = None,
    queue: QueueName = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
) -> None:
    """List jobs, newest first."""
    narrowed = {"owner": owner, "queue": queue, "older_than": older_than, "newer_than": newer_than}
    if all_owners or any(narrowed.values()):
        shared = {"status": status, "kind": kind, "model": model, "batch": batch, "collection": collection, "q": search}
        list_all_jobs(context, {**shared, **narrowed}, limit)
        return
    found = context.client.jobs(status=status, kind=kind, model=model, batch=batch, collection=collection, q=search)
    context.out.print_list((LIST_COLUMN, "kind", "status", "created", "took", "about"), found, _row, limit=limit)


@app.command()
@server_command
def show(context: CommandContext, ids: Jobs) -> None:
    """Show the current state of jobs."""
    for job in read_arguments(ids):
        show_job(context, context.client.get(job))


@app.command()
@server_command
def request(context: CommandContext, job: Annotated[str, typer.Argument(help="Job id.")]) -> None:
    """Print what a job was asked to do, as JSON; null if its prompt was deleted."""
    context.out.print_json(context.client.job_request(job))


@all_jobs.command("count")
@server_command
def count(
    context: CommandContext,
    status: StatusFilter = None,
    kind: KindFilter = None,
    model: Model = None,
    batch: BatchFilter = None,
    collection: CollectionFilter = None,
) -> None:
    """Count your jobs by status, kind and model."""
    counts = context.client.job_counts(status=status, kind=kind, model=model, batch=batch, collection=collection)
    if context.out.as_json:
        context.out.print_json(counts.raw)
        return
    numbers = {"status": counts.status, "kind": counts.kind, "model": counts.model}
    rows = [(by, name, number) for by, group in numbers.items() for name, number in sorted(group.items())]
    context.out.print_list(("by", "name", "jobs"), [*rows, ("all", "", counts.total)], lambda row: row)


@app.command()
@server_command
def wait(context: CommandContext, ids: Jobs, wait_timeout: WaitTimeout = None) -> None:
    """Wait until jobs have ended and print their results: the text of a generation, else JSON. Exit status 3 if any job did
    not complete."""
    print_results(context, [context.patient_client.wait(job, timeout=wait_timeout) for job in read_arguments(ids)])


@app.command()
@server_command
def follow(
    context: CommandContext,
    job: Annotated[str, typer.Argument(help="Job id.")],
    after: Annotated[int, typer.Option(min=0, help="Start after this event.")] = 0,
) -> None:
    """Print an answer while it is generated; with --json every event, one per line. Exit status 3 if the job does not complete."""
    follow_job(context, job, after)


@app.command()
@server_command
def cancel(context: CommandContext, ids: Jobs) -> None:
    """Cancel jobs. A queued job is cancelled immediately, a running one shortly after."""
    for job in map(context.client.cancel, read_arguments(ids)):
        _print_change(context, job, "is cancelled" if job.ended else "is being cancelled")


@app.command()
@server_command
def retry(context: CommandContext, ids: Jobs) -> None:
    """Run ended jobs again, as new jobs, and print their ids."""
    for job in map(context.client.retry, read_arguments(ids)):
        print_id(context, job)


@app.command()
@server_command
def delete(context: CommandContext, ids: Jobs) -> None:
    """Delete ended jobs with their results and events."""
    for job in read_arguments(ids):
        context.client.delete(job)
        if context.out.as_json:
            context.out.print_json({"id": job, "deleted": True})
        else:
            context.out.print_note(f"{job} is deleted")


def install(root: typer.Typer) -> None:
    """Add these commands to the root."""
    install_actions(all_jobs)
    root.add_typer(all_jobs, name="jobs", rich_help_panel=PANEL)
    root.add_typer(app, name="job", rich_help_panel=PANEL)


def read_arguments(ids: Iterable[str], *, whole_lines: bool = False) -> Iterator[str]:
    """Yield the arguments; ``-`` stands for the first field of each line of standard input, or for ``whole_lines``."""
    for argument in ids:
        if argument == "-":
            yield from _lines_of_input(whole_lines=whole_lines)
        else:
            yield argument


def _lines_of_input(*, whole_lines: bool) -> Iterator[str]:
    count = 0
    for line in sys.stdin:
        if not line.strip():
            continue
        if whole_lines:
            yield line.rstrip("\r\n")
        elif (id := check_utf8(line.split()[0], "An id on standard input")) == LIST_COLUMN and not count:
            continue  # the line may begin the output of `enginehouse jobs`
        else:
            yield id
        count += 1
    if not count:
        print("Standard input is empty, so there is nothing to do.", file=sys.stderr)


def print_id(context: CommandContext, job: "Job") -> None:
    """Print only the id, or the job as JSON."""
    if context.out.as_json:
        context.out.print_json(job.raw)
    else:
        print(job.id, flush=True)


def print_results(context: CommandContext, ended: Iterable["Job"]) -> None:
    """Print the results of ended jobs. Raises Exit with status 3 afterwards if any job did not complete."""
    from cli.remote.exit_statuses import NOT_COMPLETED

    failed = False
    for job in ended:
        failed = failed or job.status != "completed"
        if context.out.as_json:
            context.out.print_json(job.raw)
        elif job.status != "completed":
            message = (job.error or {}).get("message")
            context.out.print_note(f"{job.id} is {job.status}: {message}" if message else f"{job.id} is {job.status}.")
        elif "text" in (job.result or {}):
            context.out.print_text(job.text)
            _print_citations(context, job)
        else:
            context.out.print_json(job.result)
    if failed:
        raise typer.Exit(NOT_COMPLETED)


def follow_job(context: CommandContext, job: str, after: int = 0) -> None:
    """Print the events of a job until it ends. Raises Exit with status 3 if it did not complete."""
    last: Event | None = None
    for event in context.patient_client.stream(job, after=after):
        last = event
        if context.out.as_json:
            context.out.print_json({"id": event.id, "event": event.type, "data": event.data})
        elif event.type == "restart":
            print(flush=True)
            context.out.print_note(NEW_ATTEMPT)
        else:
            context.out.print_text(event.text, end="")
    if not context.out.as_json:
        print(flush=True)
        ended = context.patient_client.get(job)
        if ended.status == "completed" and "text" in (ended.result or {}):
            _print_citations(context, ended)
        else:
            print_results(context, [ended])
    elif last is not None and last.data.get("status") != "completed":
        from cli.remote.exit_statuses import NOT_COMPLETED

        raise typer.Exit(NOT_COMPLETED)


def show_job(context: CommandContext, job: "Job") -> None:
    """Print one job: a summary, or everything as JSON."""
    result = dict(job.result or {})
    rows: list[tuple[str, object]] = [
        ("job", job.id),
        ("kind", job.kind),
        ("status", job.status),
        ("phase", "" if job.ended else job.phase),
        ("model", job.model),
        ("created", clock(job.created_at)),
        ("started", clock(job.started_at)),
        ("ended", clock(job.ended_at)),
        ("queue position", job.queue_position),
        ("waiting for", words(job.waiting_for or "")),
        ("progress", numbers_text(job.progress)),
        ("batch", job.batch),
        ("batch counts", numbers_text(job.counts)),
        ("retry of", job.retry_of),
        ("metadata", dict(job.metadata)),
        *((f"attempt {attempt.number}", f"{attempt.worker}: {attempt.outcome or 'running'}") for attempt in job.attempts),
        ("error", (job.error or {}).get("message")),
        ("usage", numbers_text(result.pop("usage", None))),
        ("finish reason", result.pop("finish_reason", None)),
        ("citations", [_citation(item) for item in result.pop("citations", ())]),
        ("text", result.pop("text", None)),
        ("result", result),
    ]
    context.out.print_record(job, rows)


def _print_citations(context: CommandContext, job: "Job") -> None:
    for citation in job.citations:
        document = safe_line(citation.document)
        context.out.print_note(f"{citation.marker} {document}, page {citation.page}: {first_line(citation.quote)}")


def _citation(item: dict[str, Any]) -> str:
    return f"{item['marker']} {item['document']}, page {item['page']}" + " (OCR)" * (item.get("source") == "ocr")


def _row(job: "Job") -> tuple[object, ...]:
    took = f"{job.ended_at - job.started_at:.1f} s" if job.ended_at and job.started_at else ""
    waiting = f"waiting: {words(job.waiting_for)}" if job.waiting_for else ""
    about = (job.error or {}).get("message") or waiting or job.summary or ""
    return job.id, job.kind, job.status, clock(job.created_at), took, first_line(str(about))


def _print_change(context: CommandContext, job: "Job", what: str) -> None:
    if context.out.as_json:
        context.out.print_json(job.raw)
    else:
        context.out.print_note(f"{job.id} {what}")
