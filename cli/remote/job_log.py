"""``enginehouse logs JOB``: what happened to a job and when."""

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from cli.remote.command import CommandContext, server_command
from cli.safe_text import safe_text


@server_command
def show_job_log(context: CommandContext, job: Annotated[str, typer.Argument(help="Job id.")]) -> None:
    """Print the log of a job."""
    log = context.client.job_log(job)
    if context.out.as_json:
        context.out.print_json(dict(log))
        return
    origin = [f"{name} {log[key]}" for name, key in (("request", "request_id"), ("trace", "trace_id")) if log[key]]
    if origin:
        print(safe_text(f"{job}: {', '.join(origin)}"))
    for line in log["lines"]:
        print(safe_text(_format(line)))


def _format(line: Mapping[str, Any]) -> str:
    at = line["at"]
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) + f".{round(at * 1000) % 1000:03d}"
    worker = f" [{line['worker']}, attempt {line['attempt']}]" if line["worker"] else ""
    return f"{clock} {line['level'].upper():<7} {line['message']}{worker}"
