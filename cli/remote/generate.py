"""``enginehouse generate``: one generation, or one for each line of standard input."""

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import CommandError
from cli.remote.command import PANEL, CommandContext, server_command
from cli.remote.jobs import WaitTimeout, follow_job, print_id, print_results

if TYPE_CHECKING:
    from enginehouse_client import Job


@server_command
def generate(
    context: CommandContext,
    prompt: Annotated[str, typer.Argument(help="What to say to the model; - reads standard input.", metavar="PROMPT")] = "-",
    system: Annotated[str | None, typer.Option(help="A message of role system before it.")] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Give the prompt to the model as it is, past its chat template.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the answer and print it.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Print the answer while it is written.")] = False,
    lines: Annotated[
        bool, typer.Option("--lines", help="Each line of the prompt is one of its own; answers come in the same order.")
    ] = False,
    concurrency: Annotated[int, typer.Option("--jobs", min=1, max=200, help="With --lines: jobs under way at once.")] = 8,
    wait_timeout: WaitTimeout = None,
    model: Annotated[str | None, typer.Option(show_default="the server's default")] = None,
    collection: Annotated[str | None, typer.Option(help="Answer from this collection, with citations.")] = None,
    passages: Annotated[int | None, typer.Option(help="How many passages to find.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="The longest answer.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 takes the likeliest token.")] = None,
    top_p: Annotated[float | None, typer.Option()] = None,
    top_k: Annotated[int | None, typer.Option()] = None,
    stop: Annotated[list[str] | None, typer.Option(help="A text that ends the answer; may be given again.")] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    priority: Annotated[str | None, typer.Option(help="interactive, default, batch, or 0 (first) to 9.")] = None,
    expires_in: Annotated[float | None, typer.Option(help="Seconds by which it must have started.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds by which it must have ended.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; may be given again.")] = None,
    webhook: Annotated[str | None, typer.Option(help="An address that is told of the end.")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="The same key again makes no second job.")] = None,
) -> None:
    """Submit a generation and print its id; with --wait or --follow its answer.

    Reads the prompt from standard input when none is given:  enginehouse generate --wait < question.txt
    """
    if follow and (wait or lines):
        raise CommandError("--follow shows one answer as it is written; --wait and --lines do not go with it.")
    options: dict[str, Any] = {
        "model": model,
        "collection": collection,
        "passages": passages,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "stop": stop or None,
        "seed": seed,
        "priority": int(priority) if priority and priority.isdigit() else priority,
        "expires_in": expires_in,
        "timeout": timeout,
        "metadata": _pairs(metadata or ()),
        "webhook": {"url": webhook} if webhook else None,
        "idempotency_key": idempotency_key,
    }
    given = {name: value for name, value in options.items() if value is not None}

    def submit(text: str) -> "Job":
        if plain:
            return context.client.generate(text, **given)
        messages = [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": text}]
        return context.client.generate(messages=messages, **given)  # type: ignore[arg-type]

    if lines:
        if idempotency_key:
            raise CommandError("--idempotency-key names one job; with --lines there are many.")

        def finish(text: str) -> "Job":
            job = submit(text)
            return context.patient_client.wait(job, timeout=wait_timeout) if wait else job

        found = _in_order(finish, _lines(prompt), concurrency)
        if wait:
            print_results(context, found)
        else:
            for job in found:
                print_id(context, job)
        return
    job = submit(sys.stdin.read() if prompt == "-" else prompt)
    if follow:
        follow_job(context, job.id)
    elif wait:
        print_results(context, [context.patient_client.wait(job, timeout=wait_timeout)])
    else:
        print_id(context, job)


def install(root: typer.Typer) -> None:
    """Put this command under the root."""
    root.command(rich_help_panel=PANEL)(generate)


def _pairs(given: Iterable[str]) -> dict[str, str] | None:
    pairs = [pair.partition("=") for pair in given]
    if any(not equals for _, equals, _ in pairs):
        raise CommandError("--metadata: must be NAME=VALUE")
    return {name: value for name, _, value in pairs} or None


def _lines(prompt: str) -> Iterator[str]:
    source = sys.stdin if prompt == "-" else prompt.splitlines()
    return (line.rstrip("\r\n") for line in source if line.strip())


def _in_order(work: Any, texts: Iterator[str], concurrency: int) -> Iterator["Job"]:
    """What ``work`` makes of each text, in the order of the texts, with so many under way at once."""
    with ThreadPoolExecutor(concurrency) as pool:
        under_way: deque[Future[Job]] = deque()
        try:
            for text in texts:
                under_way.append(pool.submit(work, text))
                if len(under_way) >= concurrency:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()
