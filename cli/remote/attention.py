"""``enginehouse attention``: what needs your attention; for administrators also what needs the operator's."""

from typing import TYPE_CHECKING

import typer

from cli.remote.command import PANEL, CommandContext, server_command

if TYPE_CHECKING:
    from enginehouse_client import Attention


@server_command
def show_attention(context: CommandContext) -> None:
    """List what needs your attention: failing jobs and webhooks, collections to reindex, limits that are nearly used. For
    administrators also queues, models, GPUs, dead letters and the disk."""

    def row(attention: "Attention") -> tuple[object, ...]:
        return attention.code, (attention.subject or {}).get("id", ""), attention.message

    context.out.print_list(
        ("code", "about", "message"), context.client.attention(), row, if_empty="Nothing needs your attention."
    )


def install(root: typer.Typer) -> None:
    """Add this command to the root."""
    root.command("attention", rich_help_panel=PANEL)(show_attention)
