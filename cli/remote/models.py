"""``enginehouse models list``: what a server can answer with."""

from typing import TYPE_CHECKING

from cli.remote.command import Here, calling

if TYPE_CHECKING:
    from enginehouse_client import Model


@calling
def list_models(here: Here) -> None:
    """List the models of a server, and what their workers say of themselves."""

    def row(model: "Model") -> tuple[object, ...]:
        default = "default" if model.default else ""
        return model.name, model.state, model.task, default, model.engine, model.workers, model.max_context, model.reason

    columns = ("model", "state", "task", "", "engine", "workers", "context", "reason")
    here.out.many(columns, here.house.models(), row)
