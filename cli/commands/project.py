"""``enginehouse init`` and ``demo``: first steps."""

from pathlib import Path
from typing import Annotated

import typer

from cli.commands.context import load_settings
from cli.commands.options import Data, EngineName, ModelsFile
from cli.commands.processes import Port


def init_project(
    folder: Annotated[Path, typer.Argument(help="Where to write the files; created if it does not exist.")] = Path(),
) -> None:
    """Write a starter models.json, .env and docker-compose.yml into a folder. Existing files are not overwritten."""
    from cli.local.project_folder import create_project

    create_project(folder)


def demo(
    data: Data = None,
    port: Port = None,
    engine: EngineName = None,
    models_file: ModelsFile = None,
) -> None:
    """Start the stack, index three PDFs, ask questions about them, print the answers, and stop everything."""
    from cli.local.demo import run_demo

    run_demo(load_settings(data_dir=data, port=port, engine=engine, models_file=models_file))


def install(root: typer.Typer) -> None:
    """Add these commands to the root."""
    root.command("init")(init_project)
    root.command()(demo)
