"""``enginehouse jobs`` for administrators: list the jobs of all owners, and cancel, retry or delete those that match a filter.

An action first counts the jobs and asks; then it changes them part by part and prints how far it is.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

import typer

from cli.errors import CommandError
from cli.output import clock, first_line, plural
from cli.remote.command import CommandContext, server_command

UNIT_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
# Jobs that are changed between two lines of progress.
PART = 500

Owner = Annotated[str | None, typer.Option(help="Only jobs of this owner. Needs an administrator's key.")]
QueueName = Annotated[str | None, typer.Option(help="Only jobs of this queue, such as cpu. Needs an administrator's key.")]
OlderThan = Annotated[
    str | None, typer.Option(help="Only jobs submitted longer ago, such as 90s, 15m, 2h or 7d. Needs an administrator's key.")
]
NewerThan = Annotated[
    str | None, typer.Option(help="Only jobs submitted less long ago, such as 2h. Needs an administrator's key.")
]
FilterStatus = Annotated[
    Literal["queued", "in_progress", "completed", "failed", "cancelled", "expired"] | None,
    typer.Option(help="Only jobs with this status."),
]
Kind = Annotated[str | None, typer.Option(help="Only jobs of this kind, such as ingest.")]
Model = Annotated[str | None, typer.Option(help="Only jobs of this model.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count the jobs and change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]

Action = Literal["cancel", "retry", "delete"]


def list_all_jobs(context: CommandContext, values: Mapping[str, str | None], limit: int) -> None:
    """Print jobs of all owners, newest first."""

    def row(job: Mapping[str, Any]) -> tuple[object, ...]:
        about = (job["error"] or {}).get("message") or job["summary"]
        return job["id"], job["owner"], job["kind"], job["status"], job["queue"], clock(job["created_at"]), first_line(str(about))

    columns = ("job", "owner", "kind", "status", "queue", "created", "about")
    query = {name: str(value) for name, value in _filter(values, whole=True).items()}
    context.out.print_list(columns, _all_jobs(context, query), row, to_json=lambda job: job, limit=limit)


def _all_jobs(context: CommandContext, query: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    after: str | None = None
    while True:
        page = context.client.request(
            "GET", "/admin/jobs", query={**query, "limit": "100", **({"after": after} if after else {})}
        )
        yield from page["data"]
        after = page["next"]
        if after is None:
            return


def install_actions(group: typer.Typer) -> None:
    """Add ``cancel``, ``retry`` and ``delete`` to a group."""
    for action, text in (
        ("cancel", "Cancel the queued and running jobs of all owners that match a filter."),
        ("retry", "Run the ended jobs of all owners that match a filter, and did not complete, again as new jobs."),
        ("delete", "Delete the ended jobs of all owners that match a filter, with their results and events."),
    ):
        group.command(action, help=f"{text} Needs an administrator's key.")(_action_command(action))  # type: ignore[arg-type]


def _action_command(action: Action) -> Callable[..., None]:
    @server_command
    def act(
        context: CommandContext,
        owner: Owner = None,
        queue: QueueName = None,
        status: FilterStatus = None,
        kind: Kind = None,
        model: Model = None,
        older_than: OlderThan = None,
        newer_than: NewerThan = None,
        dry_run: DryRun = False,
        yes: Yes = False,
    ) -> None:
        values = {"owner": owner, "queue": queue, "status": status, "kind": kind, "model": model}
        wanted = _filter({**values, "older_than": older_than, "newer_than": newer_than})
        if not wanted:
            raise CommandError(
                f"Name the jobs to {action} with at least one of --owner, --queue, --status, --kind, --model and an age."
            )
        _change_jobs(context, action, wanted, dry_run=dry_run, yes=yes)

    return act


def _change_jobs(context: CommandContext, action: Action, wanted: Mapping[str, Any], *, dry_run: bool, yes: bool) -> None:
    counted = sum(part["matched"] for part in _parts(context, action, wanted, dry_run=True))
    if dry_run or not counted:
        if context.out.as_json:
            context.out.print_json({"action": action, "dry_run": True, "matched": counted})
        else:
            print(f"{plural(counted, 'job')} matched")
        return
    if not yes:
        if not sys.stdin.isatty():
            raise CommandError(f"{plural(counted, 'job')} matched. Confirm with --yes, as there is no terminal to ask on.")
        typer.confirm(f"{plural(counted, 'job')} matched. {action.capitalize()} them?", abort=True)
    done, seen, refused = 0, 0, dict[str, int]()
    for part in _parts(context, action, wanted, dry_run=False):
        done, seen = done + part["done"], seen + part["matched"]
        for code, number in part["refused"].items():
            refused[code] = refused.get(code, 0) + number
        if context.out.terminal:
            context.out.print_note(f"{seen} of {counted}")
    if context.out.as_json:
        context.out.print_json({"action": action, "dry_run": False, "matched": seen, "done": done, "refused": refused})
        return
    past = {"cancel": "cancelled", "retry": "retried", "delete": "deleted"}[action]
    others = "".join(f"; {number} not: {code}" for code, number in sorted(refused.items()))
    print(f"{done:,} of {plural(seen, 'job')} {past}{others}")


def _parts(context: CommandContext, action: Action, wanted: Mapping[str, Any], *, dry_run: bool) -> Iterator[dict[str, Any]]:
    after: str | None = None
    while True:
        body = {"filter": dict(wanted), "dry_run": dry_run, "limit": PART, "after": after}
        part: dict[str, Any] = context.client.request("POST", f"/admin/jobs/{action}", json=body)
        yield part
        after = part["next"]
        if after is None:
            return


def _filter(values: Mapping[str, str | None], *, whole: bool = False) -> dict[str, Any]:
    """The fields that are set; ages in seconds, rounded to whole ones if ``whole``."""
    ages = ("older_than", "newer_than")
    wanted: dict[str, Any] = {name: value for name, value in values.items() if value is not None and name not in ages}
    for name in ages:
        text = values.get(name)
        if text is not None:
            seconds = duration(text, f"--{name.replace('_', '-')}")
            wanted[name] = round(seconds) if whole else seconds
    return wanted


def duration(text: str, option: str) -> float:
    """Seconds of a duration such as ``15m``. Raises CommandError."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhd]?)", text)
    if match is None:
        raise CommandError(f"{option} {text[:40]}: use a number with s, m, h or d, such as 15m.")
    return float(match[1]) * UNIT_SECONDS[match[2]]
