"""``enginehouse webhooks`` and ``deliveries``: addresses that are told of jobs, and what became of each telling."""

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.remote.command import PANEL, CommandContext, Group, server_command
from cli.remote.output import clock, first_line

if TYPE_CHECKING:
    from enginehouse_client import Delivery, Webhook

webhooks = typer.Typer(cls=Group, help="Addresses that are told how jobs end.")
deliveries = typer.Typer(cls=Group, help="What was told to webhooks, each try, and telling it again.")

Id = Annotated[str, typer.Argument(help="Id of a webhook.", metavar="WEBHOOK")]
Events = Annotated[
    list[str] | None, typer.Option("--event", help="Hear of these only, such as job.completed; may be given again.")
]
Kinds = Annotated[list[str] | None, typer.Option("--kind", help="Hear of jobs of these kinds only; may be given again.")]
Description = Annotated[str | None, typer.Option()]
Deliveries = Annotated[list[str], typer.Argument(help="Ids of deliveries.", metavar="DELIVERY…")]
Secret = Annotated[str | None, typer.Option(help="Sign with this.", show_default="a new one")]


@webhooks.command("list")
@server_command
def list_webhooks(context: CommandContext) -> None:
    """List the webhooks that are kept, oldest first."""

    def row(one: "Webhook") -> tuple[object, ...]:
        return one.id, one.url, "enabled" if one.enabled else one.disabled_reason, one.events, one.job_kinds, one.description

    context.out.print_list(("webhook", "address", "state", "events", "job_kinds", "description"), context.client.webhooks(), row)


@webhooks.command("show")
@server_command
def show_webhook(context: CommandContext, webhook: Id) -> None:
    """Show one of them."""
    _show(context, context.client.webhook(webhook))


@webhooks.command("create")
@server_command
def create_webhook(
    context: CommandContext,
    address: Annotated[str, typer.Argument(help="Where to tell it.")],
    events: Events = None,
    kinds: Kinds = None,
    description: Description = None,
    secret: Secret = None,
) -> None:
    """Keep an address that is told of all your jobs. Its secret is shown this once."""
    _show(
        context,
        context.client.create_webhook(
            address, events=events or None, job_kinds=kinds or None, description=description, secret=secret
        ),
    )


@webhooks.command("change")
@server_command
def change_webhook(
    context: CommandContext,
    webhook: Id,
    address: Annotated[str | None, typer.Option(help="Where to tell it from now on.")] = None,
    events: Events = None,
    kinds: Kinds = None,
    description: Description = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="Also brings back one that answered 410.")] = None,
) -> None:
    """Change a webhook."""
    changed = context.client.change_webhook(
        webhook, url=address, events=events or None, job_kinds=kinds or None, description=description, enabled=enabled
    )
    _show(context, changed)


@webhooks.command("delete")
@server_command
def delete_webhook(context: CommandContext, webhook: Id) -> None:
    """Forget a webhook; what was still to be told to it is not."""
    context.client.delete_webhook(webhook)
    if context.out.as_json:
        context.out.print_json({"id": webhook, "deleted": True})
    else:
        context.out.print_note(f"{webhook} is forgotten")


@webhooks.command("rotate")
@server_command
def rotate_webhook(context: CommandContext, webhook: Id) -> None:
    """Give it a new secret, which is shown this once; the old one signs too for 24 hours."""
    _show(context, context.client.rotate_webhook(webhook))


@webhooks.command("secret")
@server_command
def show_secret(
    context: CommandContext,
    rotate: Annotated[bool, typer.Option("--rotate", help="Make a new one; the old one signs too for 24 hours.")] = False,
) -> None:
    """Print the secret that the webhooks of single jobs are signed with, unless they bring one of their own."""
    secret = context.client.webhook_secret(rotate=rotate)
    if context.out.as_json:
        context.out.print_json({"secret": secret})
    else:
        print(secret)


@webhooks.command("listen")
@server_command
def listen_webhooks(
    context: CommandContext,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of 127.0.0.1; 0 takes a free one.")] = 8765,
    secret: Annotated[str, typer.Option(help="What to verify with.", show_default="your own secret")] = "",
    keep: Annotated[bool, typer.Option("--keep", help="Hear of all jobs: keep this address while it listens.")] = False,
) -> None:
    """Receive webhooks here, verify them, and print what arrives, with --json one a line: to see them while you build a receiver.

    The server calls addresses of its own machine only when started with ENGINEHOUSE_WEBHOOK_ALLOW=127.0.0.0/8.
    """
    from cli.remote.webhook_receiver import WebhookReceiver

    if keep and secret:
        raise typer.BadParameter("an address that is kept has a secret of its own", param_hint="--secret")
    with WebhookReceiver(port, context.out) as listener:
        kept = context.client.create_webhook(listener.url, description="enginehouse webhooks listen") if keep else None
        try:
            listener.run((kept.secret if kept else secret) or context.client.webhook_secret())
        finally:
            if kept:
                context.client.delete_webhook(kept.id)


@deliveries.command("list")
@server_command
def list_deliveries(
    context: CommandContext,
    status: Annotated[Literal["pending", "delivered", "failed"] | None, typer.Option(help="Only those.")] = None,
    webhook: Annotated[str | None, typer.Option(help="Only those to this webhook.")] = None,
    job: Annotated[str | None, typer.Option(help="Only those about this job.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
) -> None:
    """List deliveries, newest first."""

    def row(one: "Delivery") -> tuple[object, ...]:
        return one.id, one.status, one.event, one.job, len(one.attempts), one.url, first_line(one.reason or _latest(one))

    columns = ("delivery", "status", "event", "job", "attempts", "address", "about")
    context.out.print_list(columns, islice(context.client.deliveries(status=status, webhook=webhook, job=job), limit), row)


@deliveries.command("show")
@server_command
def show_deliveries(context: CommandContext, ids: Deliveries) -> None:
    """Show deliveries with all their attempts."""
    for delivery in ids:
        found = context.client.delivery(delivery)
        attempts = [(f"attempt {one.number}", f"{clock(one.started_at)} {_outcome(one.raw)}") for one in found.attempts]
        names = ("id", "status", "event", "job", "webhook", "url", "reason")
        times = [(name, clock(getattr(found, name))) for name in ("created_at", "next_attempt_at", "ended_at")]
        context.out.print_record(found, [*((name, getattr(found, name)) for name in names), *times, *attempts])


@deliveries.command("redeliver")
@server_command
def redeliver(context: CommandContext, ids: Deliveries) -> None:
    """Tell it again now, under the same id, and start its schedule of retries again."""
    for delivery in map(context.client.redeliver, ids):
        if context.out.as_json:
            context.out.print_json(delivery.raw)
        else:
            context.out.print_note(f"{delivery.id} is sent again")


def install(root: typer.Typer) -> None:
    """Put these commands under the root."""
    root.add_typer(webhooks, name="webhooks", rich_help_panel=PANEL)
    root.add_typer(deliveries, name="deliveries", rich_help_panel=PANEL)


def _show(context: CommandContext, webhook: "Webhook") -> None:
    names = ("id", "url", "enabled", "disabled_reason", "events", "job_kinds", "description", "secret")
    until = clock(webhook.previous_secret_until)
    made = clock(webhook.created_at)
    context.out.print_record(
        webhook, [*((name, getattr(webhook, name)) for name in names), ("old secret until", until), ("made", made)]
    )


def _latest(delivery: "Delivery") -> str:
    return _outcome(delivery.attempts[-1].raw) if delivery.attempts else ""


def _outcome(one: object) -> str:
    told = one if isinstance(one, dict) else {}
    answer = f"answered {told['status']} in {told['latency']:.2f} s" if told.get("status") else told.get("error")
    return f"{told.get('outcome') or 'under way'}: {answer or ''}".rstrip(": ")
