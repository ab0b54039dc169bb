"""``enginehouse webhooks`` and ``deliveries``: registered webhooks, and the deliveries to them."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.output import clock, first_line
from cli.remote.command import PANEL, CommandContext, Group, server_command

if TYPE_CHECKING:
    from enginehouse_client import Delivery, Webhook

webhooks = typer.Typer(cls=Group, help="Register, change and test webhooks.")
deliveries = typer.Typer(cls=Group, help="List, show and redeliver webhook deliveries.")

# An enumeration, because Typer does not accept a list of literals. The list of the server is slow to import; a test compares the two.
WebhookKind = StrEnum(
    "WebhookKind", ["generate", "ingest", "search", "delete", "reindex", "unpack", "fetch", "batch", "request_batch"]
)

Id = Annotated[str, typer.Argument(help="Webhook id.", metavar="WEBHOOK")]
Events = Annotated[list[str] | None, typer.Option("--event", help="Only these events, such as job.completed; repeatable.")]
Kinds = Annotated[list[WebhookKind] | None, typer.Option("--kind", help="Only jobs of this kind; repeatable.")]
Description = Annotated[str | None, typer.Option(help="A text for yourself.")]
Deliveries = Annotated[list[str], typer.Argument(help="Delivery ids.", metavar="DELIVERY…")]
Secret = Annotated[str | None, typer.Option(help="Secret for the signatures.", show_default="a new one")]


@webhooks.command("list")
@server_command
def list_webhooks(context: CommandContext) -> None:
    """List registered webhooks, oldest first."""

    def row(webhook: "Webhook") -> tuple[object, ...]:
        return webhook.id, webhook.url, _state(webhook), webhook.events, webhook.job_kinds, webhook.description

    context.out.print_list(("webhook", "address", "state", "events", "job kinds", "description"), context.client.webhooks(), row)


@webhooks.command("show")
@server_command
def show_webhook(context: CommandContext, webhook: Id) -> None:
    """Show a webhook."""
    _show(context, context.client.webhook(webhook))


@webhooks.command("create")
@server_command
def create_webhook(
    context: CommandContext,
    address: Annotated[str, typer.Argument(help="Address of the receiver.")],
    events: Events = None,
    kinds: Kinds = None,
    description: Description = None,
    secret: Secret = None,
) -> None:
    """Register an address that receives events of all your jobs. Its secret is not shown again."""
    _show(
        context,
        context.client.create_webhook(
            address, events=events or None, job_kinds=_names(kinds), description=description, secret=secret
        ),
    )


@webhooks.command("change")
@server_command
def change_webhook(
    context: CommandContext,
    webhook: Id,
    address: Annotated[str | None, typer.Option(help="New address of the receiver.")] = None,
    events: Events = None,
    kinds: Kinds = None,
    description: Description = None,
    enabled: Annotated[
        bool | None,
        typer.Option("--enable/--disable", help="--enable also enables a webhook that was disabled by a response of 410."),
    ] = None,
) -> None:
    """Change a webhook."""
    changed = context.client.change_webhook(
        webhook, url=address, events=events or None, job_kinds=_names(kinds), description=description, enabled=enabled
    )
    _show(context, changed)


@webhooks.command("delete")
@server_command
def delete_webhook(context: CommandContext, webhook: Id) -> None:
    """Delete a webhook and its pending deliveries."""
    context.client.delete_webhook(webhook)
    if context.out.as_json:
        context.out.print_json({"id": webhook, "deleted": True})
    else:
        context.out.print_note(f"{webhook} is deleted")


@webhooks.command("rotate")
@server_command
def rotate_webhook(context: CommandContext, webhook: Id) -> None:
    """Create a new secret, which is not shown again. For 24 hours, deliveries are also signed with the old one."""
    _show(context, context.client.rotate_webhook(webhook))


@webhooks.command("secret")
@server_command
def show_secret(
    context: CommandContext,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Create a new secret. For 24 hours, deliveries are also signed with the old one.")
    ] = False,
) -> None:
    """Print the secret that signs webhooks of single jobs, unless they have their own."""
    secret = context.client.webhook_secret(rotate=rotate)
    if context.out.as_json:
        context.out.print_json({"secret": secret})
    else:
        print(secret)


@webhooks.command("listen")
@server_command
def listen_webhooks(
    context: CommandContext,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of 127.0.0.1; 0 selects a free one.")] = 8765,
    secret: Annotated[str, typer.Option(help="Secret to verify with.", show_default="your secret")] = "",
    keep: Annotated[bool, typer.Option("--keep", help="Register this address for all jobs while listening.")] = False,
) -> None:
    """Receive, verify and print webhooks while you develop a receiver; with --json one line per message.

    A server calls addresses of its own machine only if it was started with ENGINEHOUSE_WEBHOOK_ALLOW=127.0.0.0/8.
    """
    from cli.remote.webhook_receiver import WebhookReceiver

    if keep and secret:
        raise typer.BadParameter("a registered webhook has its own secret", param_hint="--secret")
    with WebhookReceiver(port, context.out) as receiver:
        registered = context.client.create_webhook(receiver.url, description="enginehouse webhooks listen") if keep else None
        try:
            received = receiver.serve((registered.secret if registered else secret) or context.client.webhook_secret())
        finally:
            if registered:
                context.client.delete_webhook(registered.id)
    raise typer.Exit(128 + received)


@deliveries.command("list")
@server_command
def list_deliveries(
    context: CommandContext,
    status: Annotated[
        Literal["pending", "delivered", "failed"] | None, typer.Option(help="Only deliveries with this status.")
    ] = None,
    webhook: Annotated[str | None, typer.Option(help="Only deliveries to this webhook.")] = None,
    job: Annotated[str | None, typer.Option(help="Only deliveries about this job.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number to list.")] = 20,
) -> None:
    """List deliveries, newest first."""

    def row(delivery: "Delivery") -> tuple[object, ...]:
        about = first_line(delivery.reason or _latest(delivery))
        return delivery.id, delivery.status, delivery.event, delivery.job, len(delivery.attempts), delivery.url, about

    columns = ("delivery", "status", "event", "job", "attempts", "address", "about")
    context.out.print_list(columns, context.client.deliveries(status=status, webhook=webhook, job=job), row, limit=limit)


@deliveries.command("show")
@server_command
def show_deliveries(context: CommandContext, ids: Deliveries) -> None:
    """Show deliveries with all attempts."""
    for delivery in ids:
        found = context.client.delivery(delivery)
        attempts = [
            (f"attempt {attempt.number}", f"{clock(attempt.started_at)} {_outcome(attempt.raw)}") for attempt in found.attempts
        ]
        rows: list[tuple[str, object]] = [
            ("delivery", found.id),
            ("status", found.status),
            ("event", found.event),
            ("job", found.job),
            ("webhook", found.webhook),
            ("address", found.url),
            ("reason", found.reason),
            ("created", clock(found.created_at)),
            ("next attempt", clock(found.next_attempt_at)),
            ("ended", clock(found.ended_at)),
        ]
        context.out.print_record(found, [*rows, *attempts])


@deliveries.command("redeliver")
@server_command
def redeliver(context: CommandContext, ids: Deliveries) -> None:
    """Send deliveries again now, with the same id, and restart their retry schedules."""
    for delivery in map(context.client.redeliver, ids):
        if context.out.as_json:
            context.out.print_json(delivery.raw)
        else:
            context.out.print_note(f"{delivery.id} is sent again")


def install(root: typer.Typer) -> None:
    """Add these commands to the root."""
    root.add_typer(webhooks, name="webhooks", rich_help_panel=PANEL)
    root.add_typer(deliveries, name="deliveries", rich_help_panel=PANEL)


def _show(context: CommandContext, webhook: "Webhook") -> None:
    rows = (
        ("webhook", webhook.id),
        ("address", webhook.url),
        ("state", _state(webhook)),
        ("events", webhook.events),
        ("job kinds", webhook.job_kinds),
        ("description", webhook.description),
        ("secret", webhook.secret),
        ("old secret until", clock(webhook.previous_secret_until)),
        ("created", clock(webhook.created_at)),
    )
    context.out.print_record(webhook, rows)


def _state(webhook: "Webhook") -> str:
    return "enabled" if webhook.enabled else f"disabled: {webhook.disabled_reason}" if webhook.disabled_reason else "disabled"


def _names(kinds: Kinds) -> list[str] | None:
    return [kind.value for kind in kinds] if kinds else None


def _latest(delivery: "Delivery") -> str:
    return _outcome(delivery.attempts[-1].raw) if delivery.attempts else ""


def _outcome(attempt: object) -> str:
    fields = attempt if isinstance(attempt, dict) else {}
    answer = f"answered {fields['status']} in {fields['latency']:.2f} s" if fields.get("status") else fields.get("error")
    return f"{fields.get('outcome') or 'in progress'}: {answer or ''}".rstrip(": ")
