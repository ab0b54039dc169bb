"""An idle stack: CPU time of the start, memory and CPU of each process at rest, and the time that it takes to stop.

Run: ``.venv/bin/python -m benchmarks.idle``; with ``--generate-model gemma-3-270m --embed-model all-minilm-l6-v2`` for real models,
which the first jobs load (``--jobs``). Memory is the proportional set size (PSS): a page that several processes share counts once.
"""

import argparse
import json
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import psutil

from benchmarks.figures import figure
from shared.packaged_files import packaged_file
from testing.fault_rig.processes import process_tree
from testing.stack import Stack


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=60, help="how long to measure the CPU at rest")
    arguments.add_argument("--settle", type=float, default=20, help="how long to wait before, after the stack is ready")
    arguments.add_argument("--generate-model", default="echo")
    arguments.add_argument("--embed-model", default="hash")
    arguments.add_argument("--jobs", action="store_true", help="run a generation, an ingest and a search before")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options)


def measure(folder: Path, options: argparse.Namespace) -> None:
    labels = {"generate_model": options.generate_model, "embed_model": options.embed_model, "jobs": options.jobs}
    stack = Stack(folder, environment={"ENGINEHOUSE_LOG_LEVEL": "WARNING"})
    stack.models.write_text(json.dumps(chosen_models(stack.models, options)))
    started = time.monotonic()
    try:
        stack.start(flower=True, seconds=600)
        assert stack.process is not None
        pid = stack.process.pid
        figure("idle.start_seconds", time.monotonic() - started, "s", **labels)
        figure("idle.start_cpu_seconds", sum(cpu_seconds(process_tree(pid)).values()), "s", **labels)
        if options.jobs:
            stack.warm_up()
            stack.ended(stack.generate("hello", max_tokens=8)["id"])
        time.sleep(options.settle)
        figure("idle.settled_cpu_seconds", sum(cpu_seconds(process_tree(pid)).values()), "s", **labels)
        processes = process_tree(pid)
        before, since = cpu_seconds(processes), time.monotonic()
        switches = context_switches(processes)
        time.sleep(options.seconds)
        elapsed = time.monotonic() - since
        used, switched = cpu_seconds(processes), context_switches(processes)
        memory: Counter[str] = Counter()
        for process in processes:
            memory[process_name(process)] += process.memory_full_info().pss
        for name, size in memory.most_common():
            percent = 100 * (used[name] - before[name]) / elapsed
            about = {"process": name, "switches_per_second": round((switched[name] - switches[name]) / elapsed, 1)}
            figure("idle.process_cpu", percent, "% of a core", **about, **labels)
            figure("idle.process_memory", size / 1e6, "MB PSS", process=name, **labels)
        figure("idle.cpu", 100 * (sum(used.values()) - sum(before.values())) / elapsed, "% of a core", **labels)
        figure("idle.memory", sum(memory.values()) / 1e6, "MB PSS", **labels)
        started = time.monotonic()
        stack.stop()
        figure("idle.stop_seconds", time.monotonic() - started, "s", **labels)
    finally:
        stack.kill()


def chosen_models(file: Path, options: argparse.Namespace) -> list[dict[str, object]]:
    """Entries of the models file of tests and of the default one, without the models that were not chosen."""
    entries = [*json.loads(file.read_text()), *json.loads(packaged_file("models.json").read_text())]
    chosen = {entry["name"]: entry for entry in entries if entry["name"] in (options.generate_model, options.embed_model)}
    chosen[options.generate_model]["default"] = True
    return list(chosen.values())


def process_name(process: psutil.Process) -> str:
    """The part of the command line that tells the processes of a stack apart."""
    words = process.cmdline()
    modules = [words[place + 1] for place, word in enumerate(words[:-1]) if word in ("-m", "--app")]
    parent = process.parent()
    is_child = parent is not None and parent.cmdline() == words
    return " ".join(modules or [Path(words[0]).name]) + (" (child)" if is_child else "")


def cpu_seconds(processes: list[psutil.Process]) -> dict[str, float]:
    """CPU seconds by name, without those of children that have ended."""
    used: defaultdict[str, float] = defaultdict(float)
    for process in processes:
        times = process.cpu_times()
        used[process_name(process)] += times.user + times.system
    return used


def context_switches(processes: list[psutil.Process]) -> Counter[str]:
    """Voluntary context switches by name, which are mostly wake-ups."""
    switches: Counter[str] = Counter()
    for process in processes:
        for status in Path(f"/proc/{process.pid}/task").glob("*/status"):
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            switches[process_name(process)] += int(fields["voluntary_ctxt_switches"])
    return switches


if __name__ == "__main__":
    main()
