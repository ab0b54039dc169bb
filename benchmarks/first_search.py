"""First use of the embedding model: time and CPU until the first document is ready and the first search is answered, and memory.

Run: ``.venv/bin/python -m benchmarks.first_search``. The clock starts with the upload, on a stack that is ready and has been left
alone for ``--settle`` seconds. Memory is the proportional set size (PSS) of all processes of the stack, before and after.
"""

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks.figures import figure
from testing.fault_rig.processes import process_tree
from testing.stack import MINILM, Stack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settle", type=float, default=10)
    parser.add_argument("--cpu-workers", type=int, default=2)
    options = parser.parse_args()
    environment = {"ENGINEHOUSE_LOG_LEVEL": "WARNING", "ENGINEHOUSE_CPU_WORKERS": str(options.cpu_workers)}
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), embedding=MINILM, environment=environment)
        try:
            stack.start()
            measure(stack, options.settle)
            stack.stop()
        finally:
            stack.kill()


def measure(stack: Stack, settle: float) -> None:
    assert stack.process is not None
    pid = stack.process.pid
    time.sleep(settle)
    figure("first_search.idle_memory", memory(pid), "MB PSS")
    cpu, start = cpu_seconds(pid), time.monotonic()
    # Two documents, so that both children of the cpu worker use the model.
    files = [("file", (f"{number}.txt", f"The boilers of hall {number} are blue.".encode())) for number in range(2)]
    answer = stack.client.post("/collections/first/documents", files=files).raise_for_status().json()
    stack.ended(answer["batch"]["id"])
    figure("first_search.document_seconds", time.monotonic() - start, "s")
    figure("first_search.document_cpu", cpu_seconds(pid) - cpu, "s")
    search(stack)
    figure("first_search.search_seconds", time.monotonic() - start, "s")
    figure("first_search.search_cpu", cpu_seconds(pid) - cpu, "s")
    figure("first_search.used_memory", memory(pid), "MB PSS")
    times = []
    for _ in range(20):
        start = time.monotonic()
        search(stack)
        times.append(time.monotonic() - start)
    figure("first_search.next_search_ms", sorted(times)[len(times) // 2] * 1000, "ms")


def search(stack: Stack) -> None:
    answer = stack.post("/collections/first/search", {"query": "Which colour do boilers have?"}).raise_for_status().json()
    hits = answer["data"] if "data" in answer else stack.ended(answer["id"])["result"]["hits"]
    assert hits


def cpu_seconds(pid: int) -> float:
    """CPU seconds of all processes, with those of children that have ended."""
    times = [process.cpu_times() for process in process_tree(pid)]
    return sum(part.user + part.system + part.children_user + part.children_system for part in times)


def memory(pid: int) -> float:
    return sum(process.memory_full_info().pss for process in process_tree(pid)) / 1e6


if __name__ == "__main__":
    main()
