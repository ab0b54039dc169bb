"""``enginehouse models prepare``: download or convert weights, with a progress bar per model."""

import os

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cli.errors import CommandError
from shared.data_folder import open_data_folder
from shared.models.catalogue import ModelEntry, load_catalogue
from shared.settings import Settings


def prepare_models(settings: Settings, names: list[str]) -> None:
    """Prepare the named models, or without names all models whose weights are in Python packages, which needs no network.

    Raises NotFound for an unknown name, ModelUnavailable if weights cannot be fetched.
    """
    open_data_folder(settings.data_dir)
    catalogue = load_catalogue(settings.models_file)
    chosen: list[ModelEntry] = [catalogue.get_model(name) for name in names] or [
        model for model in catalogue.models if model.url.startswith("package:")
    ]
    if not chosen:
        raise CommandError(f"{settings.models_file} has no model that needs no download: name the models to prepare.")
    for model in chosen:
        if model.uses_server:
            raise CommandError(f"Model {model.name!r} runs on the server at {model.url}; there is nothing to prepare.")
    if all(model.url.startswith("package:") for model in chosen):
        # The progress bars of the libraries would mix with ours. For a download they are the only ones.
        os.environ |= {"TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    from workers.gpu.weights import describe_unpinned_revision, prepare_adapters, prepare_model

    columns = (TextColumn("{task.fields[name]}"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    console = Console()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        for model in chosen:
            bar = progress.add_task("starting", name=model.name, total=1.0)
            last_step = ""

            def report(doing: str, fraction: float, *, bar: TaskID = bar, name: str = model.name) -> None:
                nonlocal last_step
                progress.update(bar, description=doing, completed=fraction)
                if not console.is_terminal and doing != last_step:
                    last_step = doing
                    console.print(f"{name}: {doing}")

            folder = prepare_model(model, settings.prepared_models, report)
            prepare_adapters(model, report)
            progress.update(bar, description="ready", completed=1.0)
            if advice := describe_unpinned_revision(model, folder):
                progress.console.print(escape(advice), soft_wrap=True, highlight=False)
            if not console.is_terminal:
                console.print(f"{model.name} is ready in {folder}", soft_wrap=True)
