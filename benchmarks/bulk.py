"""Ten thousand small files through the whole stack, with one question a second meanwhile.

All must end, counts must be exact, no process may grow, and questions must not wait: their p95 beside that of the idle stack.
Run: ``.venv/bin/python -m benchmarks.bulk [--files 10000]``; ``--samples FILE`` keeps the memory of each process over time.
"""

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.figures import figure, percentile
from tests.flows.stack import Stack

AT_ONCE = 500
QUESTION = {"query": "Which engine house has the green boiler?", "top_k": 3}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--files", type=int, default=10_000)
    arguments.add_argument("--questions", type=int, default=30, help="asked of the idle stack")
    arguments.add_argument("--samples", type=Path, help="where to write the memory of each process, a JSON line a sample")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), environment={"ENGINEHOUSE_LOG_LEVEL": "WARNING"}).start()
        try:
            stack.warm_up()
            measure(stack, options.files, options.questions, options.samples)
        finally:
            stack.stop()
            stack.kill()


def measure(stack: Stack, files: int, questions: int, samples: Path | None) -> None:
    """Ingest, ask and watch at once; print what came of it."""
    idle = [ask(stack) for _ in range(questions)]
    done = threading.Event()
    busy: list[float] = []
    memory: list[dict[str, float]] = []

    def ask_on() -> None:
        while not done.wait(1.0):
            busy.append(ask(stack))

    def watch() -> None:
        while not done.wait(2.0):
            memory.append(sizes(stack))

    threads = [threading.Thread(target=ask_on), threading.Thread(target=watch)]
    for thread in threads:
        thread.start()
    start = time.perf_counter()
    batches = [send(stack, numbers) for numbers in portions(files)]
    counts = [ended(stack, batch)["counts"] for batch in batches]
    seconds = time.perf_counter() - start
    done.set()
    for thread in threads:
        thread.join()
    assert sum(count["total"] for count in counts) == sum(count["completed"] for count in counts) == files, counts
    assert stack.client.get("/collections/bulk").json()["documents"] == files
    figure("bulk.files_per_second", files / seconds, "1/s", files=files)
    figure("bulk.question_p95", percentile(busy, 95) / percentile(idle, 95), "busy / idle", questions=len(busy))
    half = memory[len(memory) // 2 :]
    for name in half[-1]:
        # From the middle on: by then every process has loaded all that it ever loads.
        grown = half[-1][name] / half[0].get(name, half[-1][name])
        figure("bulk.memory_growth", grown, "end / middle", process=name, megabytes=round(half[-1][name]))
    if samples is not None:
        samples.write_text("".join(json.dumps(sample) + "\n" for sample in memory))


def portions(files: int) -> Iterator[range]:
    for first in range(0, files, AT_ONCE):
        yield range(first, min(first + AT_ONCE, files))


def send(stack: Stack, numbers: range) -> str:
    """Upload the files with these numbers; the id of their batch."""
    parts = [("file", (f"{number}.txt", f"Engine house number {number} has a boiler of its own.".encode())) for number in numbers]
    answer = stack.client.post("/collections/bulk/documents", files=parts, timeout=300)
    answer.raise_for_status()
    return str(answer.json()["batch"]["id"])


def ended(stack: Stack, batch: str) -> dict[str, dict[str, int]]:
    while (view := stack.job(batch, wait=60))["ended_at"] is None:
        pass
    return view


def ask(stack: Stack) -> float:
    """Seconds that a search takes."""
    start = time.perf_counter()
    stack.post("/collections/warm/search", QUESTION, Prefer="wait=60").raise_for_status()
    return time.perf_counter() - start


def sizes(stack: Stack) -> dict[str, float]:
    """Megabytes of resident memory, of each service with all its processes but those that read a file just now."""
    found: dict[str, float] = {}
    for name, pid in json.loads((stack.data / "state.json").read_text())["processes"].items():
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            try:
                if "workers.cpu.parse_child" not in process.cmdline():
                    found[name] = found.get(name, 0.0) + process.memory_info().rss / 2**20
            except psutil.NoSuchProcess:
                continue
    return found


if __name__ == "__main__":
    main()
