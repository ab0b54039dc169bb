"""The ``enginehouse`` command: the root of its subcommands, and its exit statuses. The subcommands are in ``cli.commands``, and those that
call a server over HTTP in ``cli.remote``. Each module adds its own to the root with ``install``.

A subcommand parses its options, reads the settings and calls one function. It imports what it needs itself, so that
``enginehouse --help`` and shell completion stay fast.
"""

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from cli.commands import dead_letters, engines, keys, models, operations, owners, processes, project, repair
from cli.errors import DISK_FULL, CommandError, os_error_message
from cli.remote import attention, documents, evaluate, generate, ingest, jobs, queues, request_batches, usage, webhooks
from cli.safe_text import accept_all_bytes, safe_text
from cli.typer_output import correct_output
from shared.errors import EnginehouseError, SettingsError

correct_output()

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run LLM jobs on your own GPUs.",
    context_settings={"help_option_names": ["--help", "-h"]},
)

for commands in (processes, project, operations, models, engines, keys, owners, dead_letters, repair):
    commands.install(app)
for commands in (generate, jobs, queues, attention, usage, ingest, documents, evaluate, request_batches, webhooks):
    commands.install(app)


@app.command("version")
def show_version() -> None:
    """Print the version."""
    try:
        print(version("enginehouse"))
    except PackageNotFoundError:
        raise CommandError("Enginehouse is not installed in this environment: run `make setup`.") from None


def _show_version_and_exit(requested: bool) -> None:
    if requested:
        show_version()
        raise typer.Exit


@app.callback()
def root(
    show: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version_and_exit)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point: run the command, and print our own errors as sentences with an exit status."""
    accept_all_bytes()
    try:
        app(prog_name="enginehouse")
    except (CommandError, SettingsError) as error:
        problems = error.problems if isinstance(error, SettingsError) else [str(error)]
        print(safe_text("\n".join(problems)), file=sys.stderr)
        sys.exit(2)
    except EnginehouseError as error:
        print(safe_text(error.message), file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        print(safe_text(os_error_message(error)), file=sys.stderr)
        sys.exit(2)
    except UnicodeEncodeError as error:
        print(safe_text(f"An argument is not UTF-8: {error.object!r:.80}"), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
