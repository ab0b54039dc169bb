"""Cost of the guards: jobs per second of this code, beside a copy without what protects it from strangers.

Cut out is what each job meets: the worker class that keeps slow clients from threads, the checks of Origin and of encodings, the slots of
owners, headers that keep browsers from guessing, the rates of keys and owners, the limits of owners, and the count of their bytes. Both
stacks run at the same time and take turns, so that load on the machine meets both alike. Two stacks of the same code can differ by some
percent, so each round starts new ones, and the figures are medians over the rounds. Run: ``.venv/bin/python -m benchmarks.guards_cost``.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.cut_code import copy_code
from benchmarks.figures import figure, percentile

CODE = ("api", "benchmarks", "cli", "client", "docs", "shared", "testing", "web", "workers", "models.json", "pyproject.toml")
WITH, WITHOUT = "with guards", "without guards"
CUTS = (
    ("cli/local/process_commands.py", "api.gunicorn_worker.GuardedWorker", "gthread"),
    (
        "api/app.py",
        "    _set_default_headers(app)\n    _reject_encoded_bodies(app)\n    _reject_foreign_pages(app, settings)\n",
        "",
    ),
    ("api/auth.py", "if not made_by.alone:\n                slots", "if False:\n                slots"),
    ("shared/owners/lua/authenticate.lua", "reset_ms = take({", "reset_ms = (function() return 0, 0, 0, 0 end)({"),
    (
        "shared/jobs/lua/lib/limits.lua",
        "as_table(redis.call('HGETALL', PREFIX .. 'owner:' .. owner .. ':limits'))",
        "{}",
    ),
    (
        "shared/jobs/lua/lib/job.lua",
        "local function add_owner_bytes(owner, bytes)\n",
        "local function add_owner_bytes() end\nlocal function unused()\n",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=300, help="jobs of each turn")
    parser.add_argument("--turns", type=int, default=4, help="turns of each stack in a round")
    parser.add_argument("--rounds", type=int, default=5, help="how often both stacks are started")
    options = parser.parse_args()
    labels = {"clients": options.clients, "jobs": options.jobs, "turns": options.turns, "rounds": options.rounds}
    rounds = [one_round(options.clients, options.jobs, options.turns) for _ in range(options.rounds)]
    for case in (WITH, WITHOUT):
        figure("guards_cost.jobs_per_second", percentile([speeds[case] for speeds in rounds], 50), "1/s", case=case, **labels)
    ratios = [speeds[WITH] / speeds[WITHOUT] for speeds in rounds]
    figure("guards_cost.jobs_per_second_ratio", percentile(ratios, 50), f"{WITH} / {WITHOUT}", **labels)
    figure("guards_cost.least_ratio", min(ratios), f"{WITH} / {WITHOUT}", **labels)
    figure("guards_cost.greatest_ratio", max(ratios), f"{WITH} / {WITHOUT}", **labels)


def one_round(clients: int, jobs: int, turns: int) -> dict[str, float]:
    """Jobs per second with and without guards, on newly started stacks."""
    with ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        stacks = {
            WITH: start(cleanup, copy_code(folder / "with", CODE), folder / "data with"),
            WITHOUT: start(cleanup, copy_code(folder / "without", CODE, CUTS), folder / "data without"),
        }
        speeds: dict[str, list[float]] = {case: [] for case in stacks}
        for turn in range(1 + turns):
            # The first turn warms both up. They take turns at going first.
            for case in sorted(stacks, reverse=bool(turn % 2)):
                speed = ask(stacks[case], f"{clients} {jobs}")
                if turn:
                    speeds[case].append(float(speed))
        return {case: sum(found) / len(found) for case, found in speeds.items()}


def start(cleanup: ExitStack, checkout: Path, data: Path) -> "subprocess.Popen[str]":
    """Start the stack of a checkout and wait until it is ready."""
    data.mkdir()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(checkout), str(checkout / "client")])}
    command = [sys.executable, "-m", "benchmarks.checkout_stack", str(data)]
    process = subprocess.Popen(command, cwd=checkout, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    # Leaving the context closes its input, whereupon it stops its stack, and waits for its end.
    cleanup.enter_context(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def ask(process: "subprocess.Popen[str]", line: str) -> str:
    """What the process answers to a line."""
    assert process.stdin is not None
    assert process.stdout is not None
    print(line, file=process.stdin, flush=True)
    return process.stdout.readline()


if __name__ == "__main__":
    main()
