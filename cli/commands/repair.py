"""Subcommands that compare records, files and indexes and repair them: of ``enginehouse collections``, and ``enginehouse trash``."""

from typing import Annotated

import typer

from cli.commands.context import load_settings, record_action, stack_redis
from cli.commands.options import AsJson, Data, RedisUrl
from cli.output import Output
from cli.remote.documents import collections

trash = typer.Typer(no_args_is_help=True, help="List, restore and delete documents that a repair found without a record.")


@collections.command("check")
def check_collections(
    fix: Annotated[bool, typer.Option("--fix", help="Repair what can be repaired.")] = False,
    as_json: AsJson = False,
    data: Data = None,
    redis: RedisUrl = None,
) -> None:
    """Compare records, files and indexes; exit with status 1 if problems remain. Use it while the stack runs, on its data folder."""
    from cli.admin.index_check import check_collections as check
    from cli.local.running_stack import with_stack_chroma

    settings = load_settings(data_dir=data, redis_url=redis)
    client = stack_redis(data, redis)
    raise typer.Exit(1 if check(client, with_stack_chroma(settings), fix=fix, as_json=as_json) else 0)


@collections.command("recover")
def recover_collections(as_json: AsJson = False, data: Data = None, redis: RedisUrl = None) -> None:
    """Make the records of documents again from their folders, after Redis was lost or restored from an older copy. Use it while the
    stack runs, on its data folder. Documents that are complete in the index are ready at once; others are indexed again."""
    from cli.admin.recovery import recover_documents
    from cli.local.running_stack import with_stack_chroma

    settings = with_stack_chroma(load_settings(data_dir=data, redis_url=redis))
    recover_documents(stack_redis(data, redis), settings, out=Output(as_json=as_json))


@trash.command("list")
def list_trash(as_json: AsJson = False, data: Data = None) -> None:
    """List folders in the trash, oldest first."""
    from cli.admin import trash as admin

    admin.list_trash(load_settings(data_dir=data), out=Output(as_json=as_json))


@trash.command("restore")
def restore_trash(
    document: Annotated[list[str] | None, typer.Argument(help="Document ids.", show_default="everything in the trash")] = None,
    data: Data = None,
) -> None:
    """Move folders back to the documents. `enginehouse collections recover` then makes their records."""
    from cli.admin import trash as admin

    admin.restore_from_trash(load_settings(data_dir=data), document or [])


@trash.command("empty")
def empty_trash(
    older_than_days: Annotated[float, typer.Option(min=0, help="Keep what was moved there more recently.")] = 0,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    data: Data = None,
) -> None:
    """Delete what is in the trash for good."""
    from cli.admin import trash as admin

    if not yes:
        typer.confirm("Delete the documents in the trash for good?", abort=True, err=True)
    with record_action("trash.empty", data):
        admin.empty_trash(load_settings(data_dir=data), older_than_days=older_than_days)


def install(root: typer.Typer) -> None:
    """Add these commands to the root."""
    root.add_typer(trash, name="trash")
