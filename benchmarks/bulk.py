"""Bulk ingest: ten thousand small files through ``enginehouse ingest``, with one question per second at the same time.

All files must become ready, counts must be exact, memory must not grow, and questions must stay fast: their p50 and p95 are
compared with those of the idle stack. A question is a generation with a collection, from request to response: retrieval,
prompt and the echo engine. Run: ``.venv/bin/python -m benchmarks.bulk [--files 10000] [--plot FILE]``; ``--samples FILE``
writes the memory of each process.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.charts import Axis, Chart, Series, side_by_side
from benchmarks.figures import figure, percentile
from testing.repository import REPOSITORY
from testing.stack import MINILM, Stack

WORDS = [
    "engine",
    "house",
    "boiler",
    "valve",
    "piston",
    "steam",
    "night",
    "wheel",
    "coal",
    "gauge",
    "keeper",
    "pressure",
    "pipe",
    "fire",
    "water",
    "brass",
    "lamp",
    "tower",
    "yard",
]
FORMATS = ("txt", "md", "html", "csv", "json")
COLOURS = ("#3b6fb6", "#c4572f", "#4a9a5b", "#8a5fb0", "#b5902b", "#777777", "#d36ba6", "#2aa3a3")

Sample = dict[str, float]
"""Seconds since the start (``at``), number of ready documents (``ready``), and memory of each service in MB."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--files", type=int, default=10_000)
    arguments.add_argument("--questions", type=int, default=60, help="questions to the idle stack, one per second")
    arguments.add_argument("--at-once", type=int, default=16, help="files processed at once")
    arguments.add_argument("--samples", type=Path, help="file for the memory samples, as JSON lines")
    arguments.add_argument("--plot", type=Path, help="file for the plot, as SVG")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "files"
        write_files(files, options.files)
        stack = Stack(Path(folder), embedding=MINILM, environment={"ENGINEHOUSE_LOG_LEVEL": "WARNING"}).start()
        try:
            stack.warm_up()
            samples = measure(stack, files, options.files, options.questions, options.at_once)
        finally:
            stack.stop()
            stack.kill()
    if options.samples is not None:
        options.samples.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    if options.plot is not None:
        options.plot.write_text(draw_plot(samples))


def measure(stack: Stack, folder: Path, files: int, questions: int, at_once: int) -> list[Sample]:
    """Ingest, ask questions and sample memory at the same time; print the figures."""
    idle: list[float] = []
    busy: list[float] = []
    samples: list[Sample] = []
    with repeat(lambda: idle.append(ask(stack))) as asking:
        wait([asking], timeout=questions)
    start = time.perf_counter()
    command = [sys.executable, "-m", "cli.main", "ingest", str(folder), "--collection", "bulk", "--json"]
    with (
        repeat(lambda: busy.append(ask(stack))),
        repeat(lambda: samples.append({"at": time.perf_counter() - start, **sample_stack(stack)}), every=5.0),
    ):
        completed = subprocess.run(
            [*command, "--jobs", str(at_once), "--url", stack.url], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True
        )
    seconds = time.perf_counter() - start
    statuses = [json.loads(line)["status"] for line in completed.stdout.splitlines()]
    assert statuses == ["ready"] * files, f"{len(statuses)} documents for {files} files: {sorted(set(statuses))}"
    assert stack.client.get("/collections/bulk").json()["documents"] == files
    figure("bulk.files_per_second", files / seconds, "1/s", files=files)
    for percent in (50, 95):
        value = percentile(busy, percent) / percentile(idle, percent)
        figure(
            f"bulk.question_p{percent}",
            value,
            "busy / idle",
            questions=len(busy),
            idle_ms=round(percentile(idle, percent) * 1000, 1),
            busy_ms=round(percentile(busy, percent) * 1000, 1),
        )
    # Skip the first quarter, in which processes still load libraries and models.
    settled = samples[len(samples) // 4 :]
    for name in settled[-1]:
        if name not in ("at", "ready"):
            first, last = ([sample[name] for sample in part if name in sample] for part in (settled[:6], settled[-6:]))
            grown = percentile(last, 50) / percentile(first, 50)
            figure("bulk.memory_growth", grown, "last / first", process=name, megabytes=round(percentile(last, 50)))
    return samples


def write_files(folder: Path, count: int) -> None:
    """Write distinct files of 20 to 80 words, in five formats."""
    chance = random.Random(20261124)
    for number in range(count):
        file_format = FORMATS[number % len(FORMATS)]
        subfolder = folder / f"{number // 500:03}"
        subfolder.mkdir(parents=True, exist_ok=True)
        notes = " ".join(chance.choices(WORDS, k=chance.randint(20, 80)))
        title = f"Engine house number {number}"
        text = {
            "txt": f"{title}. {notes}.\n",
            "md": f"# {title}\n\n{notes}.\n",
            "html": f"<!doctype html><html><head><title>{title}</title></head><body><h1>{title}</h1><p>{notes}.</p></body></html>\n",
            "csv": f"house,notes\n{number},{notes}\n",
            "json": json.dumps({"house": number, "notes": notes}),
        }[file_format]
        (subfolder / f"{number}.{file_format}").write_text(text)


@contextmanager
def repeat(do: Callable[[], object], *, every: float = 1.0) -> Iterator[Future[None]]:
    """Call ``do`` at a fixed interval in a thread while the block runs. An exception stops it and is raised at the end."""
    over = threading.Event()

    def run() -> None:
        start, turn = time.monotonic(), 0
        while not over.wait(max(0.0, start + turn * every - time.monotonic())):
            turn += 1
            do()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        try:
            yield running
        finally:
            over.set()
        running.result()


def ask(stack: Stack) -> float:
    """Ask a question; return the seconds until the answer."""
    body = {"prompt": "Which engine house has a boiler of brass?", "collection": "warm", "max_tokens": 16}
    start = time.perf_counter()
    answer = stack.post("/generate", body, Prefer="wait=60")
    seconds = time.perf_counter() - start
    assert answer.json()["status"] == "completed", answer.text
    return seconds


def sample_stack(stack: Stack) -> Sample:
    """Ready documents, and resident memory in MB of each service with its child processes, except parsers."""
    answer = stack.client.get("/collections/bulk")
    found: Sample = {"ready": float(answer.json()["documents"]) if answer.status_code == 200 else 0.0}
    for name, pid in stack.pids().items():
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            try:
                if process.name() != "parse_child":
                    found[name] = found.get(name, 0.0) + process.memory_info().rss / 2**20
            except psutil.NoSuchProcess:
                continue
    return found


def draw_plot(samples: list[Sample]) -> str:
    """Plots of memory and of ready documents over time, side by side."""
    end = samples[-1]["at"]
    services = sorted((name for name in samples[-1] if name not in ("at", "ready")), key=lambda name: -samples[-1][name])
    most = max(sample[services[0]] for sample in samples if services[0] in sample)
    ready = samples[-1]["ready"]

    def ticks(top: float) -> list[float]:
        step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if top / step <= 6)
        return [step * number for number in range(int(top / step) + 1)]

    seconds = Axis("seconds", 0, end, ticks(end))
    memory = [
        Series(
            name, COLOURS[number % len(COLOURS)], [(sample["at"], sample[name]) for sample in samples if name in sample], "points"
        )
        for number, name in enumerate(services)
    ]
    return side_by_side(
        [
            Chart("Resident memory of each service", seconds, Axis("MB", 0, most * 1.05, ticks(most)), memory),
            Chart(
                "Ready documents",
                seconds,
                Axis("documents", 0, ready * 1.05, ticks(ready)),
                [Series("documents", COLOURS[0], [(sample["at"], sample["ready"]) for sample in samples], "points")],
            ),
        ]
    )


if __name__ == "__main__":
    main()
