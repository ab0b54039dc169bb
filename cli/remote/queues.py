"""``enginehouse queues`` and ``workers`` for administrators: what waits, for whom and why; pause queues, drain workers."""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import typer

from cli.output import clock, duration_text, plural, words
from cli.remote.command import PANEL, CommandContext, Group, server_command

queues = typer.Typer(cls=Group, help="List, pause and resume queues. Needs an administrator's key.")
workers = typer.Typer(cls=Group, help="List, drain and resume workers. Needs an administrator's key.")

QueueArgument = Annotated[str, typer.Argument(help="cpu, io, gpu.MODEL, or the name of a model.", metavar="QUEUE")]
WorkerArgument = Annotated[str, typer.Argument(help="Name of a worker, such as gpu0@host.", metavar="WORKER")]


@queues.command("list")
@server_command
def list_queues(
    context: CommandContext,
    by_owner: Annotated[bool, typer.Option("--by-owner", help="One line for each owner with jobs in a queue.")] = False,
) -> None:
    """List queues with what waits in them and why."""
    found = context.client.request("GET", "/admin/queues")["data"]
    if by_owner:
        entries = [{"queue": queue["queue"], **owner} for queue in found for owner in queue["owners"]]
        context.out.print_list(
            ("queue", "owner", "waiting", "end users", "oldest", "waiting for"), entries, _owner_row, to_json=lambda entry: entry
        )
        return
    columns = ("queue", "waiting", "oldest", "waiting for", "running", "slots", "workers", "owners")
    context.out.print_list(columns, found, _queue_row, to_json=lambda queue: queue)


@queues.command("pause")
@server_command
def pause_queue(
    context: CommandContext,
    queue: QueueArgument,
    unload: Annotated[bool, typer.Option("--unload", help="Also unload the model; it stays unloaded until you resume.")] = False,
) -> None:
    """Let no job be claimed from a queue. Running jobs go on, and a paused model is not loaded on demand."""
    _set_pause(context, queue, {"paused": True, "unload": unload}, "is paused")


@queues.command("resume")
@server_command
def resume_queue(context: CommandContext, queue: QueueArgument) -> None:
    """End the pause of a queue."""
    _set_pause(context, queue, {"paused": False}, "is resumed")


@workers.command("list")
@server_command
def list_workers(context: CommandContext) -> None:
    """List the live workers. Each process of a cpu worker is an entry."""
    columns = ("worker", "pool", "model", "state", "running", "slots", "since", "version", "drained")
    context.out.print_list(
        columns, context.client.request("GET", "/admin/workers")["data"], _worker_row, to_json=lambda worker: worker
    )


@workers.command("drain")
@server_command
def drain_worker(context: CommandContext, worker: WorkerArgument) -> None:
    """Let a worker claim no further job. Its running jobs go on; once it runs none, it can be stopped."""
    found = context.client.request("PUT", f"/admin/workers/{quote(worker, safe='')}", json={"drained": True})["data"]
    if context.out.as_json:
        context.out.print_json(found)
    else:
        context.out.print_note(f"{worker} drains; it runs {plural(sum(entry['running'] for entry in found), 'job')}")


@workers.command("resume")
@server_command
def resume_worker(context: CommandContext, worker: WorkerArgument) -> None:
    """Let a drained worker claim jobs again."""
    found = context.client.request("PUT", f"/admin/workers/{quote(worker, safe='')}", json={"drained": False})["data"]
    if context.out.as_json:
        context.out.print_json(found)
    else:
        context.out.print_note(f"{worker} is resumed")


def install(root: typer.Typer) -> None:
    """Add these commands to the root."""
    root.add_typer(queues, name="queues", rich_help_panel=PANEL)
    root.add_typer(workers, name="workers", rich_help_panel=PANEL)


def _set_pause(context: CommandContext, queue: str, body: Mapping[str, Any], what: str) -> None:
    if queue not in ("cpu", "io") and not queue.startswith("gpu."):
        queue = f"gpu.{queue}"
    changed = context.client.request("PUT", f"/admin/queues/{quote(queue, safe='')}", json=dict(body))
    if context.out.as_json:
        context.out.print_json(changed)
    else:
        context.out.print_note(
            f"{queue} {what}. Waiting in it: {plural(changed['waiting'], 'job')}; running: {changed['running']}"
        )


def _age(seconds: float | None) -> str:
    return "" if seconds is None else duration_text(seconds)


def _queue_row(queue: Mapping[str, Any]) -> tuple[object, ...]:
    reason = "paused" if queue["paused_at"] else words(queue["waiting_for"])
    numbers = (queue["running"], queue["slots"], queue["workers"], len(queue["owners"]))
    return queue["queue"], queue["waiting"], _age(queue["oldest_seconds"]), reason, *numbers


def _owner_row(entry: Mapping[str, Any]) -> tuple[object, ...]:
    reason = words(entry["waiting_for"])
    return entry["queue"], entry["owner"], entry["waiting"], entry["end_users"], _age(entry["oldest_seconds"]), reason


def _worker_row(worker: Mapping[str, Any]) -> tuple[object, ...]:
    drained = f"since {clock(worker['drained_at'])}" if worker["drained_at"] else ""
    numbers = (worker["running"], worker["slots"])
    return (
        worker["id"],
        worker["pool"],
        worker["model"],
        worker["state"],
        *numbers,
        clock(worker["since"]),
        worker["version"],
        drained,
    )
