"""``enginehouse models prepare``: fetches or converts weights, with a progress bar for each model.

Knows nothing about how a model is made ready; ``workers.gpu.weights`` does.
"""

import os

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from shared.models.catalogue import ModelEntry, load_catalogue
from shared.settings import Settings


def prepare_models(settings: Settings, names: list[str]) -> None:
    """Make the named models ready, or without names those whose weights came by pip, which needs no network.

    Raises NotFound for an unknown name, ModelUnavailable for weights that cannot be had.
    """
    catalogue = load_catalogue(settings.models_file)
    chosen: list[ModelEntry] = [catalogue.get(name) for name in names] or [
        m for m in catalogue.models if m.url.startswith("package:")
    ]
    if all(model.url.startswith("package:") for model in chosen):
        # The libraries' own bars would write across ours; for a download they are what shows progress.
        os.environ |= {"TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    from workers.gpu.weights import prepare

    columns = (TextColumn("{task.fields[name]}"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    console = Console()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        for model in chosen:
            bar = progress.add_task("starting", name=model.name, total=1.0)
            said = ""

            def report(doing: str, fraction: float, *, bar: TaskID = bar, name: str = model.name) -> None:
                nonlocal said
                progress.update(bar, description=doing, completed=fraction)
                if not console.is_terminal and doing != said:
                    said = doing
                    console.print(f"{name}: {doing}")

            folder = prepare(model, settings.prepared_models, report)
            progress.update(bar, description="ready", completed=1.0)
            if not console.is_terminal:
                console.print(f"{model.name} is ready in {folder}", soft_wrap=True)
