"""``enginehouse engines``: engines that need their own packages."""

from typing import Annotated, Literal

import typer

from cli.commands.context import load_settings
from cli.commands.options import AsJson, Data
from cli.output import Output

Engine = Annotated[Literal["vllm"], typer.Argument(help="The engine.")]


engines = typer.Typer(no_args_is_help=True, help="Install, list, check and remove engines that need their own packages.")


@engines.command("add")
def add_engine(
    engine: Engine,
    requirement: Annotated[
        str | None,
        typer.Option(help="What pip installs: another version, or the path of a wheel.", show_default="the tested version"),
    ] = None,
    data: Data = None,
) -> None:
    """Install an engine into an environment in the data folder; run it again to continue an installation."""
    from cli.local.engines import add_engine

    add_engine(load_settings(data_dir=data), engine, requirement)


@engines.command("list")
def list_engines(as_json: AsJson = False, data: Data = None) -> None:
    """List these engines, and the Python interpreters that run them."""
    from cli.local.engines import list_engines

    list_engines(load_settings(data_dir=data), Output(as_json=as_json))


@engines.command("check")
def check_engine(engine: Engine, as_json: AsJson = False, data: Data = None) -> None:
    """Show what an engine lacks on this machine; exit with status 1 if it cannot run."""
    from cli.local.engines import check_engine

    raise typer.Exit(0 if check_engine(load_settings(data_dir=data), engine, Output(as_json=as_json)) else 1)


@engines.command("remove")
def remove_engine(engine: Engine, data: Data = None) -> None:
    """Delete the environment of an engine."""
    from cli.local.engines import remove_engine

    remove_engine(load_settings(data_dir=data), engine)


def install(root: typer.Typer) -> None:
    """Add these commands to the root."""
    root.add_typer(engines, name="engines")
