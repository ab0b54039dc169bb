"""Ten thousand small files by ``enginehouse ingest``, with one question a second meanwhile.

All must end, counts must be exact, no process may grow, and questions must not wait: their p95 beside that of the idle stack.
A question is a generation over a collection, from the request to its answer: retrieval, prompt and the echo engine.
Run: ``.venv/bin/python -m benchmarks.bulk [--files 10000] [--plot FILE]``; ``--samples FILE`` keeps the memory of each process.
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
from testing.stack import Stack

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
KINDS = ("txt", "md", "html", "csv", "json")
COLOURS = ("#3b6fb6", "#c4572f", "#4a9a5b", "#8a5fb0", "#b5902b", "#777777", "#d36ba6", "#2aa3a3")

Sample = dict[str, float]
"""Seconds since the start (``at``), documents that are ready (``ready``), and megabytes of each service."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--files", type=int, default=10_000)
    arguments.add_argument("--questions", type=int, default=60, help="asked of the idle stack, one a second")
    arguments.add_argument("--at-once", type=int, default=16, help="files under way at once")
    arguments.add_argument("--samples", type=Path, help="where to write the memory of each process, a JSON line a sample")
    arguments.add_argument("--plot", type=Path, help="where to draw it, as SVG")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "files"
        write_files(files, options.files)
        stack = Stack(Path(folder), environment={"ENGINEHOUSE_LOG_LEVEL": "WARNING"}).start()
        try:
            stack.warm_up()
            samples = measure(stack, files, options.files, options.questions, options.at_once)
        finally:
            stack.stop()
            stack.kill()
    if options.samples is not None:
        options.samples.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    if options.plot is not None:
        options.plot.write_text(drawn(samples))


def measure(stack: Stack, folder: Path, files: int, questions: int, at_once: int) -> list[Sample]:
    """Ingest, ask and watch at once; print what came of it."""
    idle: list[float] = []
    busy: list[float] = []
    samples: list[Sample] = []
    with each_second(lambda: idle.append(ask(stack))) as asking:
        wait([asking], timeout=questions)
    start = time.perf_counter()
    command = [sys.executable, "-m", "cli.main", "ingest", str(folder), "--collection", "bulk", "--json"]
    with (
        each_second(lambda: busy.append(ask(stack))),
        each_second(lambda: samples.append({"at": time.perf_counter() - start, **seen(stack)}), every=5.0),
    ):
        told = subprocess.run(
            [*command, "--jobs", str(at_once), "--url", stack.url], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True
        )
    seconds = time.perf_counter() - start
    ends = [json.loads(line)["status"] for line in told.stdout.splitlines()]
    assert ends == ["ready"] * files, f"{len(ends)} ends for {files} files: {sorted(set(ends))}"
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
    # From a quarter on: by then every process has loaded all that it ever loads.
    settled = samples[len(samples) // 4 :]
    for name in settled[-1]:
        if name not in ("at", "ready"):
            first, last = ([sample[name] for sample in part if name in sample] for part in (settled[:6], settled[-6:]))
            grown = percentile(last, 50) / percentile(first, 50)
            figure("bulk.memory_growth", grown, "last / first", process=name, megabytes=round(percentile(last, 50)))
    return samples


def write_files(folder: Path, count: int) -> None:
    """Files of some dozen words each, of five kinds, no two alike."""
    chance = random.Random(20261124)
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        place = folder / f"{number // 500:03}"
        place.mkdir(parents=True, exist_ok=True)
        said = " ".join(chance.choices(WORDS, k=chance.randint(20, 80)))
        title = f"Engine house number {number}"
        text = {
            "txt": f"{title}. {said}.\n",
            "md": f"# {title}\n\n{said}.\n",
            "html": f"<!doctype html><html><head><title>{title}</title></head><body><h1>{title}</h1><p>{said}.</p></body></html>\n",
            "csv": f"house,notes\n{number},{said}\n",
            "json": json.dumps({"house": number, "notes": said}),
        }[kind]
        (place / f"{number}.{kind}").write_text(text)


@contextmanager
def each_second(do: Callable[[], object], *, every: float = 1.0) -> Iterator[Future[None]]:
    """Do it on a clock of its own while the block runs. What it raises ends it, and is raised here at the end."""
    over = threading.Event()

    def run() -> None:
        begin, turn = time.monotonic(), 0
        while not over.wait(max(0.0, begin + turn * every - time.monotonic())):
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
    """Seconds from a question to its answer."""
    body = {"prompt": "Which engine house has a boiler of brass?", "collection": "warm", "max_tokens": 16}
    start = time.perf_counter()
    answer = stack.post("/generate", body, Prefer="wait=60")
    seconds = time.perf_counter() - start
    assert answer.json()["status"] == "completed", answer.text
    return seconds


def seen(stack: Stack) -> Sample:
    """Documents so far, and megabytes of resident memory of each service with all its processes but those that read a file just
    now."""
    answer = stack.client.get("/collections/bulk")
    found: Sample = {"ready": float(answer.json()["documents"]) if answer.status_code == 200 else 0.0}
    for name, pid in json.loads((stack.data / "state.json").read_text())["processes"].items():
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            try:
                if "workers.cpu.parsing.parse_child" not in process.cmdline():
                    found[name] = found.get(name, 0.0) + process.memory_info().rss / 2**20
            except psutil.NoSuchProcess:
                continue
    return found


def drawn(samples: list[Sample]) -> str:
    """Memory over time, and beside it the documents."""
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
                "Documents that can be searched",
                seconds,
                Axis("documents", 0, ready * 1.05, ticks(ready)),
                [Series("documents", COLOURS[0], [(sample["at"], sample["ready"]) for sample in samples], "points")],
            ),
        ]
    )


if __name__ == "__main__":
    main()
