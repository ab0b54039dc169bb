"""``enginehouse generate``: one generation, or one per line of standard input."""

import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import CommandError
from cli.remote.command import PANEL, CommandContext, ConcurrencyKey, ConcurrencyLimit, NotBefore, server_command, start_time
from cli.remote.jobs import WaitTimeout, follow_job, print_id, print_results
from cli.safe_text import check_utf8

if TYPE_CHECKING:
    from enginehouse_client import Job


@server_command
def generate(
    context: CommandContext,
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads standard input.", metavar="PROMPT")] = "-",
    system: Annotated[str | None, typer.Option(help="A system message before the prompt.")] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Pass the prompt to the model unchanged, without its chat template.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the answer and print it.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Print the answer while it is generated.")] = False,
    lines: Annotated[
        bool, typer.Option("--lines", help="Treat each line as a separate prompt; answers are printed in the same order.")
    ] = False,
    concurrency: Annotated[int, typer.Option("--jobs", min=1, max=200, help="With --lines: number of concurrent jobs.")] = 8,
    wait_timeout: WaitTimeout = None,
    model: Annotated[str | None, typer.Option(help="The model that answers.", show_default="the server's default")] = None,
    collection: Annotated[str | None, typer.Option(help="Answer from this collection, with citations.")] = None,
    passages: Annotated[int | None, typer.Option(help="Number of passages to retrieve.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Maximum answer length in tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 always takes the most likely token.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Choose among the most likely tokens with this total probability.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Choose among this many most likely tokens.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="A string that ends the answer; repeatable.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the random choices.")] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Keep other requests from changing the answer; slows down all of them.")
    ] = False,
    priority: Annotated[str | None, typer.Option(help="interactive, default, batch, or 0 (first) to 9.")] = None,
    end_user: Annotated[str | None, typer.Option(help="The person for whom the job runs; end users of a key take turns.")] = None,
    not_before: NotBefore = None,
    concurrency_key: ConcurrencyKey = None,
    concurrency_limit: ConcurrencyLimit = None,
    expires_in: Annotated[float | None, typer.Option(help="Seconds within which the job must start.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds within which the job must end.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; repeatable.")] = None,
    webhook: Annotated[str | None, typer.Option(help="Address that is notified when the job ends.")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="Submitting again with the same key creates no second job.")] = None,
) -> None:
    """Submit a generation and print its id, or with --wait or --follow its answer.

    Without a prompt, standard input is read:  enginehouse generate --wait < question.txt
    """
    if follow and (wait or lines):
        raise CommandError("--follow cannot be combined with --wait or --lines.")
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
        "deterministic": deterministic or None,
        "priority": int(priority) if priority and re.fullmatch("[0-9]{1,9}", priority) else priority,
        "end_user": end_user,
        "not_before": start_time(not_before),
        "concurrency_key": concurrency_key,
        "concurrency_limit": concurrency_limit,
        "expires_in": expires_in,
        "timeout": timeout,
        "metadata": parse_pairs(metadata or ()),
        "webhook": {"url": webhook} if webhook else None,
        "idempotency_key": idempotency_key,
    }
    chosen = {name: value for name, value in options.items() if value is not None}

    def submit(text: str) -> "Job":
        if plain:
            return context.client.generate(text, **chosen)
        messages = [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": text}]
        return context.client.generate(messages=messages, **chosen)  # type: ignore[arg-type]

    if lines:
        if idempotency_key:
            raise CommandError("--idempotency-key cannot be combined with --lines, which submits many jobs.")

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
    job = submit(_read_prompt() if prompt == "-" else prompt)
    if follow:
        follow_job(context, job.id)
    elif wait:
        print_results(context, [context.patient_client.wait(job, timeout=wait_timeout)])
    else:
        print_id(context, job)


def install(root: typer.Typer) -> None:
    """Add this command to the root."""
    root.command(rich_help_panel=PANEL)(generate)


def parse_pairs(arguments: Iterable[str]) -> dict[str, str] | None:
    pairs = [pair.partition("=") for pair in arguments]
    if any(not equals for _, equals, _ in pairs):
        raise CommandError("--metadata must be NAME=VALUE.")
    return {name: value for name, _, value in pairs} or None


def _read_prompt() -> str:
    prompt = check_utf8(sys.stdin.read(), "Standard input")
    if not prompt.strip():
        raise CommandError("There is no prompt: standard input is empty.")
    return prompt


def _lines(prompt: str) -> Iterator[str]:
    source = sys.stdin if prompt == "-" else prompt.splitlines()
    count = 0
    for number, line in enumerate(source, 1):
        if line.strip():
            count += 1
            yield check_utf8(line.rstrip("\r\n"), f"Line {number} of the prompts")
    if not count:
        print("There are no prompts: every line is empty.", file=sys.stderr)


def _in_order(work: Any, texts: Iterator[str], concurrency: int) -> Iterator["Job"]:
    """Apply ``work`` to the texts, ``concurrency`` at a time, and yield the results in order. If reading a text fails, the results of
    those before it are yielded first."""
    unreadable: CommandError | None = None
    with ThreadPoolExecutor(concurrency) as pool:
        active: deque[Future[Job]] = deque()
        try:
            while unreadable is None:
                try:
                    active.append(pool.submit(work, next(texts)))
                except StopIteration:
                    break
                except CommandError as error:
                    unreadable = error
                if len(active) >= concurrency:
                    yield active.popleft().result()
            while active:
                yield active.popleft().result()
        finally:
            for future in active:
                future.cancel()
    if unreadable is not None:
        raise unreadable
