"""``enginehouse models list``: the models of a server."""

from typing import TYPE_CHECKING

from cli.remote.command import CommandContext, server_command

if TYPE_CHECKING:
    from enginehouse_client import Model


@server_command
def list_models(context: CommandContext) -> None:
    """List the models of a server and their state.

    \b
    A model has one of these states:
    ready       a worker has loaded it and runs its jobs
    warming     a worker has loaded it and prepares for the first job
    loading     a worker fetches, converts or reads its weights
    draining    its worker finishes jobs before it unloads the model
    failed      a worker could not load it and will try again; see the reason
    unloaded    no worker has it; a job loads it, if loading on demand is on
    not_served  no running worker can load it
    """

    def row(model: "Model") -> tuple[object, ...]:
        default = "yes" if model.default else ""
        return model.name, model.state, model.task, default, model.engine, model.workers, model.max_context, model.reason

    columns = ("model", "state", "task", "default", "engine", "workers", "context", "reason")
    context.out.print_list(columns, context.client.models(), row)
