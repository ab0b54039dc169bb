"""``enginehouse dead-letters``: jobs that lost all their attempts."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli.commands.context import load_settings, record_action, stack_redis
from cli.commands.options import AsJson, Data, RedisUrl
from cli.output import Output

if TYPE_CHECKING:
    from cli.admin.dead_letters import DeadLetters


dead_letters = typer.Typer(no_args_is_help=True, help="List, show, replay and drop jobs that lost all their attempts.")


@dead_letters.command("list")
def list_dead_letters(as_json: AsJson = False, data: Data = None, redis: RedisUrl = None) -> None:
    """List dead letters, newest first."""
    _dead_letters(data, redis).print_all(Output(as_json=as_json))


@dead_letters.command("show")
def show_dead_letter(job: str, as_json: AsJson = False, data: Data = None, redis: RedisUrl = None) -> None:
    """Show a dead letter with its attempts."""
    _dead_letters(data, redis).print_one(job, Output(as_json=as_json))


@dead_letters.command("replay")
def replay_dead_letter(job: str, data: Data = None, redis: RedisUrl = None) -> None:
    """Run a dead letter again, as a new job."""
    with record_action("dead_letter.replay", data, job):
        _dead_letters(data, redis).replay(job)


@dead_letters.command("drop")
def drop_dead_letter(job: str, data: Data = None, redis: RedisUrl = None) -> None:
    """Remove a job from the dead letters."""
    with record_action("dead_letter.drop", data, job):
        _dead_letters(data, redis).drop(job)


def install(root: typer.Typer) -> None:
    """Add these commands to the root."""
    root.add_typer(dead_letters, name="dead-letters")


def _dead_letters(data: Path | None, url: str | None) -> "DeadLetters":
    from cli.admin.dead_letters import DeadLetters

    return DeadLetters(stack_redis(data, url), load_settings(data_dir=data, redis_url=url))
