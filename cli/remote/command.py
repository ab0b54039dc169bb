"""What all commands share that call a server: the options that say which one, and what their errors become."""

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from cli.errors import CommandError
from cli.remote.output import Output

if TYPE_CHECKING:
    from enginehouse_client import Client

PANEL = "Work with a server"
SERVER_PANEL = "Server"
# Whoever sits before a terminal wants to hear soon that nobody answers; who waits for a job wants it to outlast a restart.
BRIEF_RETRIES = 2
STEADY_RETRIES = 10

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="ENGINEHOUSE_URL",
        help="The server.",
        show_default="the one that runs on the data folder, or http://127.0.0.1:5000",
        rich_help_panel=SERVER_PANEL,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        envvar="ENGINEHOUSE_API_KEY",
        help="The API key, where the server wants one. Others on this machine can see options; the variable they cannot.",
        rich_help_panel=SERVER_PANEL,
    ),
]
Data = Annotated[
    Path,
    typer.Option(
        "--data", envvar="ENGINEHOUSE_DATA", help="Data folder of a stack on this machine.", rich_help_panel=SERVER_PANEL
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True)
class CommandContext:
    """What a command works with: the server, once for calls that shall fail soon and once for those that shall last; and its
    output. ``patient`` is a client with as many retries as it is told."""

    client: "Client"
    patient_client: "Client"
    client_with_retries: "Callable[[int], Client]"
    out: Output


def server_command(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose first parameter is a ``Here``: it gets the options that name the server instead, and ``--json``.

    What the client raises is said in one sentence on standard error, and becomes the exit status of ``statuses``.
    """
    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    shared = [("as_json", AsJson, False), ("url", Url, None), ("key", Key, None), ("data", Data, Path(".enginehouse"))]
    keyword = inspect.Parameter.KEYWORD_ONLY

    @functools.wraps(command)
    def called(*, as_json: bool, url: str | None, key: str | None, data: Path, **arguments: Any) -> None:
        from cli.remote.exit_statuses import INTERRUPTED, status_of
        from enginehouse_client import Client, EnginehouseError, RetryPolicy

        address = server_url(url, data)

        def client_with_retries(retries: int) -> Client:
            return Client(address, api_key=key, retry_policy=RetryPolicy(retries=retries))

        try:
            with client_with_retries(BRIEF_RETRIES) as brief, client_with_retries(STEADY_RETRIES) as patient_client:
                command(CommandContext(brief, patient_client, client_with_retries, Output(as_json=as_json)), **arguments)
        except EnginehouseError as error:
            print(error, file=sys.stderr)
            raise typer.Exit(status_of(error)) from None
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            raise CommandError(f"{error.filename or error}: {error.strerror or 'cannot be read'}") from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read our output has had enough (`| head`); Python must not complain about it at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    parameters = [
        *(one.replace(kind=keyword) for one in own),
        *(inspect.Parameter(name, keyword, annotation=kind, default=default) for name, kind, default in shared),
    ]
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in parameters}
    return called


class Group(TyperGroup):
    """A group of commands of which one is meant when none is named: ``enginehouse deliveries --status failed`` lists."""

    default_command = "list"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not (args and (args[0] in self.commands or args[0] == "--help")) and self.uses_default(args):
            args = [self.default_command, *args]
        return super().parse_args(ctx, args)

    def uses_default(self, args: list[str]) -> bool:
        return not args or args[0].startswith("-")


def server_url(url: str | None, data: Path) -> str:
    """The address that was named, else that of the stack that runs on the data folder, else the usual one."""
    if url:
        if not url.startswith(("http://", "https://")):
            raise CommandError(f"--url: must begin with http:// or https://, not {url[:80]!r}")
        return url
    try:
        return str(json.loads((data / "state.json").read_text())["api"])
    except (FileNotFoundError, NotADirectoryError):
        return "http://127.0.0.1:5000"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandError(f"{data / 'state.json'} cannot be read ({error}): name the server with --url.") from None
