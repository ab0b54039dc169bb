"""``enginehouse models``: prepare, load, unload and list models."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.commands.context import load_settings, record_action, stack_redis
from cli.commands.options import Data, ModelsFile, RedisUrl
from cli.remote.models import list_models

if TYPE_CHECKING:
    from cli.admin.model_loading import ModelLoader

Gpu = Annotated[str | None, typer.Option(help="Number or name (gpu0@host) of a gpu worker.")]
StackModelsFile = Annotated[
    Path | None, typer.Option("--models", help="The models file.", show_default="that of the stack on the data folder")
]
Wait = Annotated[float, typer.Option(min=0, help="Maximum seconds to wait for completion.")]


models = typer.Typer(no_args_is_help=True, help="List, prepare, load and unload models.")
models.command("list")(list_models)


@models.command()
def prepare(
    names: Annotated[
        list[str] | None, typer.Argument(help="Models to prepare.", show_default="the models that need no download")
    ] = None,
    data: Data = None,
    models_file: ModelsFile = None,
) -> None:
    """Download or convert the weights of models before their workers start."""
    from cli.local.prepare import prepare_models

    prepare_models(load_settings(data_dir=data, models_file=models_file), names or [])


@models.command("load")
def load_model(
    name: str,
    gpu: Gpu = None,
    wait: Wait = 600,
    data: Data = None,
    models_file: StackModelsFile = None,
    redis: RedisUrl = None,
) -> None:
    """Load a model on the given GPU, else on an empty one, else on the one that has been idle the longest."""
    with record_action("model.set", data, name, gpu=gpu):
        _model_loader(data, models_file, redis).load_model(name, gpu, wait=wait)


@models.command("unload")
def unload_model(
    name: str,
    gpu: Gpu = None,
    wait: Wait = 60,
    data: Data = None,
    models_file: StackModelsFile = None,
    redis: RedisUrl = None,
) -> None:
    """Unload a model, everywhere or on the given GPU. Its jobs wait, or load it again if loading on demand is enabled."""
    with record_action("model.unload", data, name, gpu=gpu):
        _model_loader(data, models_file, redis).unload_model(name, gpu, wait=wait)


def install(root: typer.Typer) -> None:
    """Add these commands to the root."""
    root.add_typer(models, name="models")


def _model_loader(data: Path | None, models_file: Path | None, url: str | None) -> "ModelLoader":
    from cli.admin.model_loading import ModelLoader
    from cli.local.running_stack import with_stack_models
    from shared.models.catalogue import load_catalogue

    settings = load_settings(data_dir=data, models_file=models_file, redis_url=url)
    if models_file is None:
        settings = with_stack_models(settings)
    return ModelLoader(stack_redis(data, url), load_catalogue(settings.models_file, engine=settings.engine), settings)
