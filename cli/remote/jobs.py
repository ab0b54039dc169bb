"""``enginehouse jobs`` and ``enginehouse job``: look at jobs, wait for them, follow, cancel, repeat, forget."""

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.remote.command import PANEL, CommandContext, Group, server_command
from cli.remote.output import clock, first_line

if TYPE_CHECKING:
    from enginehouse_client import Event, Job

NEW_ATTEMPT = "[an attempt was lost: the answer begins anew]"

Jobs = Annotated[list[str], typer.Argument(help="Ids of jobs; - reads them from standard input.", metavar="JOB…")]
WaitTimeout = Annotated[
    float | None, typer.Option(min=0, help="Seconds after which waiting ends with status 6.", show_default="no end")
]
StatusName = Literal["queued", "in_progress", "completed", "failed", "cancelled", "expired"]


class JobGroup(Group):
    """``enginehouse job job_…`` shows it."""

    default_command = "show"

    def uses_default(self, args: list[str]) -> bool:
        return bool(args) and (args[0].startswith("job_") or args[0] == "-")


app = typer.Typer(cls=JobGroup, no_args_is_help=True, help="One job, or several: what becomes of them.")


@server_command
def jobs(
    context: CommandContext,
    status: Annotated[StatusName | None, typer.Option(help="Only those.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only generate, ingest, search, delete or batch.")] = None,
    model: Annotated[str | None, typer.Option(help="Only those of this model.")] = None,
    batch: Annotated[str | None, typer.Option(help="Only those of this batch job.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
) -> None:
    """List jobs, newest first."""
    found = context.client.jobs(status=status, kind=kind, model=model, batch=batch)
    context.out.print_list(("job", "kind", "status", "made", "took", "about"), islice(found, limit), _row)


@app.command()
@server_command
def show(context: CommandContext, ids: Jobs) -> None:
    """Show jobs as they stand."""
    for job in read_arguments(ids):
        show_job(context, context.client.get(job))


@app.command()
@server_command
def wait(context: CommandContext, ids: Jobs, wait_timeout: WaitTimeout = None) -> None:
    """Wait until jobs have ended, and print what each gave: a generation's text, else its result. Status 3 if one did not
    complete."""
    print_results(context, [context.patient_client.wait(job, timeout=wait_timeout) for job in read_arguments(ids)])


@app.command()
@server_command
def follow(
    context: CommandContext,
    job: Annotated[str, typer.Argument(help="Id of a job.")],
    after: Annotated[int, typer.Option(min=0, help="Begin after this event.")] = 0,
) -> None:
    """Print an answer while it is written; with --json every event, one a line. Status 3 if the job does not complete."""
    follow_job(context, job, after)


@app.command()
@server_command
def cancel(context: CommandContext, ids: Jobs) -> None:
    """Stop jobs. A queued one is cancelled at once, a running one soon."""
    for job in map(context.client.cancel, read_arguments(ids)):
        _say(context, job, "is cancelled" if job.ended else "will stop")


@app.command()
@server_command
def retry(context: CommandContext, ids: Jobs) -> None:
    """Do ended jobs again, as new jobs, whose ids are printed."""
    for job in map(context.client.retry, read_arguments(ids)):
        print_id(context, job)


@app.command()
@server_command
def delete(context: CommandContext, ids: Jobs) -> None:
    """Forget ended jobs, with their results and events."""
    for job in read_arguments(ids):
        context.client.delete(job)
        if context.out.as_json:
            context.out.print_json({"id": job, "deleted": True})
        else:
            context.out.print_note(f"{job} is forgotten")


def install(root: typer.Typer) -> None:
    """Put these commands under the root."""
    root.command(rich_help_panel=PANEL)(jobs)
    root.add_typer(app, name="job", rich_help_panel=PANEL)


def read_arguments(ids: Iterable[str], *, whole_lines: bool = False) -> Iterator[str]:
    """What was given, and for ``-`` the first field of each line of standard input, or the ``whole_lines``."""
    for given in ids:
        if given == "-":
            yield from (line.rstrip("\r\n") if whole_lines else line.split()[0] for line in sys.stdin if line.strip())
        else:
            yield given


def print_id(context: CommandContext, job: "Job") -> None:
    """For whoever goes on with it: the id alone, or the job as JSON."""
    if context.out.as_json:
        context.out.print_json(job.raw)
    else:
        print(job.id, flush=True)


def print_results(context: CommandContext, ended: Iterable["Job"]) -> None:
    """What ended jobs gave. Raises the Exit of status 3 once all are printed, if one did not complete."""
    from cli.remote.exit_statuses import NOT_COMPLETED

    failed = False
    for job in ended:
        failed = failed or job.status != "completed"
        if context.out.as_json:
            context.out.print_json(job.raw)
        elif job.status != "completed":
            context.out.print_note(f"{job.id} is {job.status}: {(job.error or {}).get('message', '')}")
        elif "text" in (job.result or {}):
            print(job.text, flush=True)
            _cite(context, job)
        else:
            context.out.print_json(job.result)
    if failed:
        raise typer.Exit(NOT_COMPLETED)


def follow_job(context: CommandContext, job: str, after: int = 0) -> None:
    """Print the events of a job until its end. Raises the Exit of status 3 when it did not complete."""
    last: Event | None = None
    for event in context.patient_client.stream(job, after=after):
        last = event
        if context.out.as_json:
            context.out.print_json({"id": event.id, "event": event.type, "data": event.data})
        elif event.type == "restart":
            print(flush=True)
            context.out.print_note(NEW_ATTEMPT)
        else:
            print(event.text, end="", flush=True)
    if not context.out.as_json:
        print(flush=True)
        ended = context.patient_client.get(job)
        if ended.status == "completed" and "text" in (ended.result or {}):
            _cite(context, ended)
        else:
            print_results(context, [ended])
    elif last is not None and last.data.get("status") != "completed":
        from cli.remote.exit_statuses import NOT_COMPLETED

        raise typer.Exit(NOT_COMPLETED)


def show_job(context: CommandContext, job: "Job") -> None:
    """One job for people, all that is known of it for programs."""
    result = dict(job.result or {})
    rows: list[tuple[str, object]] = [
        ("job", job.id),
        ("kind", job.kind),
        ("status", job.status),
        ("phase", "" if job.ended else job.phase),
        ("model", job.model),
        ("made", clock(job.created_at)),
        ("started", clock(job.started_at)),
        ("ended", clock(job.ended_at)),
        ("place in the queue", job.queue_position),
        ("waits for", job.waiting_for),
        ("progress", job.progress),
        ("of the batch", job.batch),
        ("jobs of the batch", job.counts),
        ("again after", job.retry_of),
        ("metadata", dict(job.metadata)),
        *((f"attempt {one.number}", f"{one.worker}: {one.outcome or 'running'}") for one in job.attempts),
        ("error", (job.error or {}).get("message")),
        ("usage", result.pop("usage", None)),
        ("finish reason", result.pop("finish_reason", None)),
        ("citations", [f"{one['marker']} {one['document']}, page {one['page']}" for one in result.pop("citations", ())]),
        ("text", result.pop("text", None)),
        ("result", result),
    ]
    context.out.print_record(job, rows)


def _cite(context: CommandContext, job: "Job") -> None:
    for citation in job.citations:
        context.out.print_note(f"{citation.marker} {citation.document}, page {citation.page}: {first_line(citation.quote)}")


def _row(job: "Job") -> tuple[object, ...]:
    took = f"{job.ended_at - job.started_at:.1f} s" if job.ended_at and job.started_at else ""
    about = (job.error or {}).get("message") or (job.result or {}).get("text") or job.waiting_for or ""
    return job.id, job.kind, job.status, clock(job.created_at), took, first_line(str(about))


def _say(context: CommandContext, job: "Job", what: str) -> None:
    if context.out.as_json:
        context.out.print_json(job.raw)
    else:
        context.out.print_note(f"{job.id} {what}")
