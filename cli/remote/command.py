"""Shared parts of the commands that call a server: options that select the server, and exit statuses for errors."""

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

from cli.errors import CommandError, os_error_message
from cli.output import Output
from cli.safe_text import check_utf8, safe_text
from shared.packaged_files import installed_version

if TYPE_CHECKING:
    from enginehouse_client import Client

PANEL = "Work with a server"
SERVER_PANEL = "Server"
NOT_RUNNING_HINT = "Is it running? Start it with `enginehouse up`, or name its address with --url or ENGINEHOUSE_URL."
# A person at a terminal should learn soon that the server is down; a wait for a job should survive a restart of the server.
BRIEF_RETRIES = 2
STEADY_RETRIES = 10

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="ENGINEHOUSE_URL",
        help="Address of the server.",
        show_default="the server of the data folder, or http://127.0.0.1:5000",
        rich_help_panel=SERVER_PANEL,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        envvar="ENGINEHOUSE_API_KEY",
        help="API key. Other users of this machine can see command line options, but not the environment variable.",
        rich_help_panel=SERVER_PANEL,
    ),
]
Data = Annotated[
    Path,
    typer.Option(
        "--data", envvar="ENGINEHOUSE_DATA", help="Data folder of a server on this machine.", rich_help_panel=SERVER_PANEL
    ),
]
ConcurrencyKey = Annotated[str | None, typer.Option(help="Of your jobs with this key, --concurrency-limit run at once.")]
ConcurrencyLimit = Annotated[int | None, typer.Option(help="With --concurrency-key.", show_default="1")]
NotBefore = Annotated[str | None, typer.Option(help="Earliest start: seconds from now, or a time such as 2030-01-31T18:00:00Z.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True)
class CommandContext:
    """What a command works with: a client that fails soon, a client that survives a restart of the server, the output, and the
    address of the server.
    ``client_with_retries`` creates a client with a given number of retries."""

    client: "Client"
    patient_client: "Client"
    client_with_retries: "Callable[[int], Client]"
    out: Output
    address: str


def start_time(not_before: str | None) -> float | str | None:
    """The value of ``--not-before`` as the server takes it."""
    try:
        return None if not_before is None else float(not_before)
    except ValueError:
        return not_before


def server_command(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command whose first parameter is a CommandContext. The command gets the options that select the server and
    ``--json`` in its place.

    An error of the client is printed to standard error and sets the exit status (see ``exit_statuses``).
    """
    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    shared = [("as_json", AsJson, False), ("url", Url, None), ("key", Key, None), ("data", Data, Path(".enginehouse"))]
    keyword = inspect.Parameter.KEYWORD_ONLY

    @functools.wraps(command)
    def called(*, as_json: bool, url: str | None, key: str | None, data: Path, **arguments: Any) -> None:
        from cli.remote.exit_statuses import INTERRUPTED, status_of
        from enginehouse_client import Client, ConnectionFailed, EnginehouseError, RetryPolicy

        for name, value in {**arguments, "url": url, "key": key}.items():
            # Names of files may have any bytes. The rest is text for the server.
            if name != "paths":
                _check_utf8(name, value)
        address = server_url(url, data)

        def client_with_retries(retries: int) -> Client:
            return Client(address, api_key=key, retry_policy=RetryPolicy(retries=retries))

        try:
            with client_with_retries(BRIEF_RETRIES) as brief, client_with_retries(STEADY_RETRIES) as patient_client:
                try:
                    command(
                        CommandContext(brief, patient_client, client_with_retries, Output(as_json=as_json), address), **arguments
                    )
                finally:
                    _warn_of_other_version(brief.server_version or patient_client.server_version)
        except EnginehouseError as error:
            print(safe_text(str(error)), file=sys.stderr)
            if isinstance(error, ConnectionFailed):
                print(NOT_RUNNING_HINT, file=sys.stderr)
            raise typer.Exit(status_of(error)) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of our output has closed the pipe (`| head`); without this Python would report an error at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as error:
            raise CommandError(os_error_message(error)) from None

    parameters = [
        *(parameter.replace(kind=keyword) for parameter in own),
        *(inspect.Parameter(name, keyword, annotation=kind, default=default) for name, kind, default in shared),
    ]
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called


def _warn_of_other_version(server_version: str) -> None:
    """Say once if the server is of another release than this command, whose options and output may differ from what it supports."""
    own = installed_version()
    if server_version and own and server_version != own:
        print(f"Warning: the server has version {safe_text(server_version[:40])}, and this command has {own}.", file=sys.stderr)


def _check_utf8(name: str, value: object) -> None:
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str):
            check_utf8(text, f"The argument {name.replace('_', '-')}")


class Group(TyperGroup):
    """A command group with a default command: ``enginehouse deliveries --status failed`` runs ``list``."""

    default_command = "list"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not (args and (args[0] in self.commands or args[0] in ctx.help_option_names)) and self.uses_default(args):
            args = [self.default_command, *args]
        return super().parse_args(ctx, args)

    def uses_default(self, args: list[str]) -> bool:
        return not args or args[0].startswith("-")


def server_url(url: str | None, data: Path) -> str:
    """The given address, or that of the server that runs on the data folder, or the default address."""
    if url:
        if not url.startswith(("http://", "https://")):
            raise CommandError(f"--url must begin with http:// or https://, not {url[:80]!r}")
        return url
    try:
        return str(json.loads((data / "state.json").read_text())["api"])
    except (FileNotFoundError, NotADirectoryError):
        return "http://127.0.0.1:5000"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandError(f"{data / 'state.json'} cannot be read ({error}): select the server with --url.") from None
