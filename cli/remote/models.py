"""``enginehouse models list``: the models of a server."""

from typing import TYPE_CHECKING

from cli.remote.command import CommandContext, server_command

if TYPE_CHECKING:
    from enginehouse_client import Model


@server_command
def list_models(context: CommandContext) -> None:
    """List the models of a server and their state."""

    def row(model: "Model") -> tuple[object, ...]:
        default = "default" if model.default else ""
        return model.name, model.state, model.task, default, model.engine, model.workers, model.max_context, model.reason

    columns = ("model", "state", "task", "", "engine", "workers", "context", "reason")
    context.out.print_list(columns, context.client.models(), row)
