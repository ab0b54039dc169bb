"""Subcommands that show the state of a server, check it, and copy it."""

import os
from pathlib import Path
from typing import Annotated

import typer

from cli.commands.context import load_settings, record_action, stack_redis
from cli.commands.options import AsJson, Data, RedisUrl
from cli.output import Output


def status(as_json: AsJson = False, data: Data = None, redis: RedisUrl = None) -> None:
    """Show processes, queues, workers, models, memory, disk and the last failures; exit with status 1 if there are problems."""
    from cli.admin.status import show_status

    settings = load_settings(data_dir=data, redis_url=redis)
    raise typer.Exit(0 if show_status(settings, explicit=redis is not None, out=Output(as_json=as_json)) else 1)


def top(
    once: Annotated[bool, typer.Option("--once", help="Print it once. This is the default without a terminal.")] = False,
    seconds: Annotated[float, typer.Option("--interval", min=0.2, max=60, help="Seconds between two readings.")] = 2.0,
    as_json: AsJson = False,
    data: Data = None,
    redis: RedisUrl = None,
) -> None:
    """Show queues, workers, GPUs, rates and the oldest jobs, live until Ctrl-C."""
    from cli.admin.top import show_top

    settings = load_settings(data_dir=data, redis_url=redis)
    show_top(stack_redis(data, redis), settings, once=once, seconds=seconds, out=Output(as_json=as_json))


def show_config(
    every: Annotated[bool, typer.Option("--all", help="Also show settings that have their default value.")] = False,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Show the settings of the stack on a data folder if it runs, else of this environment, and where they come from; secrets are hidden."""
    from cli.admin.configuration import show_settings

    options = {"--data": ("data_dir", None if data is None else data.resolve())}
    show_settings(os.environ, every=every, out=Output(as_json=as_json), options=options)


def doctor(as_json: AsJson = False, data: Data = None, redis: RedisUrl = None) -> None:
    """Check this machine and the stack that runs on it; print each problem with its fix, and exit with status 1 if there are any."""
    from cli.admin.doctor import report_problems

    settings = load_settings(data_dir=data, redis_url=redis)
    problems = report_problems(settings, explicit_redis=redis is not None, out=Output(as_json=as_json))
    raise typer.Exit(1 if problems else 0)


def backup(
    target: Annotated[Path, typer.Argument(help="A folder or a .tar file, which must not exist.")],
    as_json: AsJson = False,
    data: Data = None,
    redis: RedisUrl = None,
) -> None:
    """Copy jobs, keys, documents and indexes of a running stack. Use it on a host that has the data folder."""
    from cli.admin.backup import create_backup
    from cli.local.running_stack import stack_redis_url, with_stack_chroma

    settings = load_settings(data_dir=data, redis_url=redis)
    client, url = stack_redis(data, redis), stack_redis_url(settings, explicit=redis is not None)
    with record_action("backup.create", data, str(target)):
        create_backup(client, url, with_stack_chroma(settings), target, out=Output(as_json=as_json))


def restore(
    source: Annotated[Path, typer.Argument(help="The backup, a folder or a .tar file.")],
    without_redis: Annotated[
        bool, typer.Option("--without-redis", help="Leave Redis out, whose files are copied separately, as in containers.")
    ] = False,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """Make a data folder from a backup, after comparing every file with its digest. The stack must not run."""
    from cli.admin.restore import restore_backup

    external = bool(os.environ.get("ENGINEHOUSE_CHROMA_URL"))
    settings = load_settings(data_dir=data)
    out = Output(as_json=as_json)
    with record_action("backup.restore", data, str(source)):
        restore_backup(source, settings, with_redis=not without_redis, external_chroma=external, out=out)


def install(root: typer.Typer) -> None:
    """Add these commands to the root."""
    root.command()(status)
    root.command()(top)
    root.command("config")(show_config)
    root.command()(doctor)
    root.command()(backup)
    root.command()(restore)
