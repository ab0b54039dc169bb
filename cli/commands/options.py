"""Options that several subcommands have."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Data = Annotated[Path | None, typer.Option("--data", help="Folder for all state.", show_default=".enginehouse")]
ModelsFile = Annotated[
    Path | None, typer.Option("--models", help="The models file.", show_default="./models.json, or the packaged one")
]
EngineName = Annotated[Literal["echo", "transformers"] | None, typer.Option(help="Engine for all generation models.")]
ModelName = Annotated[str | None, typer.Option(help="The model to serve.", show_default="the default model")]
RedisUrl = Annotated[str | None, typer.Option("--redis", help="URL of an external Redis, instead of the stack's own.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
