"""``enginehouse keys``: API keys."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.commands.context import load_settings, record_action, stack_redis
from cli.commands.options import AsJson, Data, RedisUrl
from cli.errors import CommandError
from cli.output import Output
from shared.rights import SCOPES
from shared.settings import KEY_LIMITS

if TYPE_CHECKING:
    from shared.owners.closed_marker import ClosedMarker

Scopes = Annotated[
    list[str] | None,
    typer.Option("--scope", help=f"{', '.join(SCOPES)}; repeatable.", show_default="everything that an owner may do"),
]
AllowedModels = Annotated[
    list[str] | None, typer.Option("--model", help="A model that the key may use; repeatable.", show_default="all")
]
AllowedCollections = Annotated[
    list[str] | None, typer.Option("--collection", help="A collection that the key may use; repeatable.", show_default="all")
]
Expires = Annotated[
    str | None,
    typer.Option(help="After a duration such as 90d or 12h, or at a time such as 2030-01-31T12:00.", show_default="never"),
]
KeyRate = Annotated[int | None, typer.Option(min=1, help="Limit of this key, in addition to the owner's limit for all keys.")]


keys = typer.Typer(
    no_args_is_help=True, help="Create, change, rotate and revoke API keys. Once a key exists, every request needs one."
)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="Name of the key.")],
    owner: Annotated[
        str, typer.Option(help="Owner whose jobs the key can see; `local` owns the jobs created before the first key.")
    ] = "",
    admin: Annotated[bool, typer.Option("--admin", help="Give it every scope, including admin and metrics.")] = False,
    scope: Scopes = None,
    model: AllowedModels = None,
    collection: AllowedCollections = None,
    expires: Expires = None,
    requests_per_second: KeyRate = None,
    as_json: AsJson = False,
    data: Data = None,
    redis: RedisUrl = None,
) -> None:
    """Create a key and print its secret, which is not shown again."""
    from cli.admin import api_keys

    if admin and scope:
        raise CommandError("--admin: grants every scope, so omit --scope.")
    client, marker, out = stack_redis(data, redis), closed_marker(data), Output(as_json=as_json)
    options = api_keys.key_options(
        scopes=scope, models=model, collections=collection, expires=expires, requests_per_second=requests_per_second
    )
    with record_action("key.create", data, name=name, for_owner=owner or name, scopes=scope, admin=admin or None) as targets:
        key = api_keys.create_key(
            client, marker, name, owner=owner, admin=admin, requests_per_second=None, out=out, options=options
        )
        targets.append(key.id)


@keys.command("list")
def list_keys(as_json: AsJson = False, data: Data = None, redis: RedisUrl = None) -> None:
    """List keys without their secrets."""
    from cli.admin import api_keys

    api_keys.list_keys(stack_redis(data, redis), out=Output(as_json=as_json))


@keys.command("show")
def show_key(key_id: str, as_json: AsJson = False, data: Data = None, redis: RedisUrl = None) -> None:
    """Show the rights and times of a key."""
    from cli.admin import api_keys

    api_keys.show_key(stack_redis(data, redis), key_id, out=Output(as_json=as_json))


@keys.command("change")
def change_key(
    key_id: str,
    name: Annotated[str | None, typer.Option(help="Another name.", show_default="as before")] = None,
    scope: Scopes = None,
    model: AllowedModels = None,
    collection: AllowedCollections = None,
    expires: Expires = None,
    requests_per_second: KeyRate = None,
    clear: Annotated[
        list[str] | None,
        typer.Option(help="Remove a restriction: scopes, models, collections, expires or requests-per-second; repeatable."),
    ] = None,
    as_json: AsJson = False,
    data: Data = None,
    redis: RedisUrl = None,
) -> None:
    """Change the name, the rights or the expiry of a key. Everything else stays unchanged."""
    from cli.admin import api_keys

    options = api_keys.key_options(
        scopes=scope, models=model, collections=collection, expires=expires, requests_per_second=requests_per_second
    )
    details = {"scopes": scope, "models": model, "collections": collection, "expires": expires, "cleared": clear}
    with record_action("key.change", data, key_id, **details):
        api_keys.change_key(
            stack_redis(data, redis), key_id, name=name, options=options, clear=clear or [], out=Output(as_json=as_json)
        )


@keys.command("rotate")
def rotate_key(
    key_id: str,
    overlap: Annotated[str, typer.Option(help="How long the old key stays valid, such as 1d or 2h.")] = "1d",
    as_json: AsJson = False,
    data: Data = None,
    redis: RedisUrl = None,
) -> None:
    """Replace a key by one with the same rights, and print its secret."""
    from cli.admin import api_keys

    with record_action("key.rotate", data, key_id) as targets:
        targets.append(api_keys.rotate_key(stack_redis(data, redis), key_id, overlap=overlap, out=Output(as_json=as_json)).id)


@keys.command("revoke")
def revoke_key(key_id: str, data: Data = None, redis: RedisUrl = None) -> None:
    """Revoke a key immediately."""
    from cli.admin import api_keys

    with record_action("key.revoke", data, key_id):
        api_keys.revoke_key(stack_redis(data, redis), key_id)


@keys.command("limit")
def limit_key(
    key_id: str,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help=f"NAME=NUMBER, repeatable: {', '.join(KEY_LIMITS)}. 0 removes a limit.", show_default="show the limits"
        ),
    ] = None,
    data: Data = None,
    redis: RedisUrl = None,
) -> None:
    """Set or show the token limits of a key, which apply in addition to its owner's limits."""
    from cli.admin import owners as admin

    with record_action("key.limit", data, key_id, limits=limit or None):
        admin.limit_key(stack_redis(data, redis), key_id, limits=limit or [])


@keys.command("remove-all")
def remove_all_keys(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    data: Data = None,
    redis: RedisUrl = None,
) -> None:
    """Delete all keys and return to a server without keys, which accepts calls of its own machine and user. Restart the stack afterwards."""
    from cli.admin import api_keys

    client = stack_redis(data, redis)
    if not yes:
        typer.confirm("Delete all API keys, so that local calls need none?", abort=True)
    with record_action("key.remove_all", data):
        api_keys.remove_all_keys(client, closed_marker(data))


def install(root: typer.Typer) -> None:
    """Add these commands to the root."""
    root.add_typer(keys, name="keys")


def closed_marker(data: Path | None) -> "ClosedMarker":
    from shared.owners.closed_marker import ClosedMarker

    return ClosedMarker(load_settings(data_dir=data).data_dir)
