"""``enginehouse owners``: shares and limits of owners."""

from typing import Annotated

import typer

from cli.commands.context import record_action, stack_redis
from cli.commands.options import AsJson, Data, RedisUrl
from cli.output import Output
from shared.settings import OWNER_LIMITS

owners = typer.Typer(no_args_is_help=True, help="Set and list the shares and limits of single owners.")


@owners.command("set")
def set_owner(
    owner: str,
    weight: Annotated[float | None, typer.Option(min=0.01, max=100, help="Relative share of a full queue, 1 at first.")] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=NUMBER, repeatable: "
            + ", ".join(OWNER_LIMITS)
            + ". 0 means no limit, NAME=default returns to the setting."
        ),
    ] = None,
    data: Data = None,
    redis: RedisUrl = None,
) -> None:
    """Set the share and the limits of an owner, for all of its keys."""
    from cli.admin import owners as admin

    with record_action("owner.set", data, owner, weight=weight, limits=limit or None):
        admin.set_owner(stack_redis(data, redis), owner, weight=weight, limits=limit or [])


@owners.command("list")
def list_owners(as_json: AsJson = False, data: Data = None, redis: RedisUrl = None) -> None:
    """List owners that have a share or limits of their own."""
    from cli.admin import owners as admin

    admin.list_owners(stack_redis(data, redis), out=Output(as_json=as_json))


def install(root: typer.Typer) -> None:
    """Add these commands to the root."""
    root.add_typer(owners, name="owners")
