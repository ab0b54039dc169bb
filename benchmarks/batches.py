"""Batches of requests on the echo engine: requests per second, what the batch adds to each, memory, and what others notice of it.

``python -m benchmarks.batches --requests 50000`` runs one batch to its end and samples the memory of every process. Then it compares the
first token of a stream on an idle server with that during a batch, whose engine takes some milliseconds for a token.
"""

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx2
import psutil

from benchmarks.figures import figure, percentile
from enginehouse_client import Client, RequestBatch
from testing.stack import Stack, models
from testing.waiting import wait_until

SLOTS = 32
SAMPLE_SECONDS = 1.0
# During the comparison each answer takes about 0.8 s, as with a model of some billion parameters.
TOKEN_SECONDS = 0.02
ANSWER_TOKENS = 40
PROMPT = "Summarize the next paragraph in one sentence, and name the people in it. " * 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=5000, help="requests of the batch that is run to its end")
    parser.add_argument("--direct", type=int, default=1000, help="jobs that are submitted without a batch, for comparison")
    parser.add_argument("--only", choices=("batch", "first-token"), help="only this part")
    parser.add_argument("--streams", type=int, default=60, help="streams on the idle server, and during a batch")
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds among which the streams are divided, each idle and then during a batch"
    )
    parser.add_argument(
        "--token-seconds", type=float, default=TOKEN_SECONDS, help="duration of a step of the engine under the streams"
    )
    options = parser.parse_args()
    if options.only != "first-token":
        with running_stack(0.0) as stack:
            alone = run_direct(stack, options.direct)
            run_batch(stack, options.requests, alone)
    if options.only != "batch":
        with running_stack(options.token_seconds) as stack:
            compare_first_tokens(stack, options.streams, options.rounds)


@contextmanager
def running_stack(token_seconds: float) -> Iterator[Stack]:
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder), environment={"ENGINEHOUSE_LOG_LEVEL": "WARNING"})
        entries = models(token_seconds)
        entries[0]["max_in_flight"] = SLOTS
        stack.models.write_text(json.dumps(entries))
        try:
            yield stack.start()
        finally:
            stack.stop()
            stack.kill()


def requests(folder: Path, count: int) -> Path:
    """A file with this many requests."""
    path = folder / "requests.jsonl"
    with path.open("w") as stream:
        for number in range(count):
            body = {"max_tokens": ANSWER_TOKENS, "messages": [{"role": "user", "content": f"{PROMPT}{number}"}]}
            line = {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            stream.write(json.dumps(line) + "\n")
    return path


def run_direct(stack: Stack, count: int) -> float:
    """Seconds per job for jobs that are submitted at once and waited for, by one client, without their answers."""
    with httpx2.Client(base_url=stack.url, timeout=60) as client:
        started = time.perf_counter()
        for number in range(count):
            body = {
                "messages": [{"role": "user", "content": f"{PROMPT}{number}"}],
                "max_tokens": ANSWER_TOKENS,
                "priority": "batch",
            }
            client.post("/generate", json=body).raise_for_status()
        wait_until(lambda: not client.get("/jobs", params={"status": "queued", "limit": 1}).json()["data"], "all have started")
        seconds = (time.perf_counter() - started) / count
    figure("batches.direct_jobs_per_second", 1 / seconds, "jobs/s, one client, POST /generate", jobs=count)
    return seconds


def run_batch(stack: Stack, count: int, direct_seconds: float) -> None:
    """Run one batch, and report its speed and the memory of the processes meanwhile."""
    with Client(stack.url) as client:
        path = requests(stack.folder, count)
        started = time.perf_counter()
        batch = client.submit_requests(path)
        uploaded = time.perf_counter()
        with memory_samples(stack) as samples:
            batch = client.wait_for_requests(batch)
        seconds = time.perf_counter() - uploaded
        assert batch.status == "completed", batch
        assert batch.request_counts == {"total": count, "completed": count, "failed": 0}
        assert len({line["custom_id"] for line in client.request_results(batch)}) == count
    upload_ms = round(1000 * (uploaded - started))
    figure(
        "batches.requests_per_second",
        count / seconds,
        "requests/s",
        requests=count,
        seconds=round(seconds, 1),
        upload_ms=upload_ms,
    )
    figure("batches.milliseconds_per_request", 1000 * seconds / count, "ms", direct=round(1000 * direct_seconds, 3))
    for name, sizes in samples.items():
        # The first fifth is the start, in which the input is read and pools are filled.
        early = sizes[len(sizes) // 5] if sizes else 0
        figure(
            "batches.memory_megabytes",
            max(sizes, default=0),
            "MB, largest",
            process=name,
            after_a_fifth=early,
            at_the_end=sizes[-1:],
        )


@contextmanager
def memory_samples(stack: Stack) -> Iterator[dict[str, list[float]]]:
    """Resident memory of each process of the stack with its children, in MB, about once a second."""
    samples: dict[str, list[float]] = {}
    over = threading.Event()
    pids = stack.pids()

    def sample() -> None:
        while not over.wait(SAMPLE_SECONDS):
            for name, pid in pids.items():
                try:
                    process = psutil.Process(pid)
                    found = [process, *process.children(recursive=True)]
                    total = sum(child.memory_info().rss for child in found)
                except psutil.Error:
                    continue
                samples.setdefault(name, []).append(round(total / 1e6, 1))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def compare_first_tokens(stack: Stack, count: int, rounds: int) -> None:
    """The first token of streams on the idle server, and while a batch fills it, in turn: a shared machine changes from minute to minute."""
    stack.warm_up()
    first_token_seconds(stack, 5)
    seconds: dict[str, list[float]] = {"idle": [], "batch": []}
    for _ in range(rounds):
        seconds["idle"] += first_token_seconds(stack, count // rounds)
        seconds["batch"] += first_tokens_during_batch(stack, count // rounds)
    for name, values in seconds.items():
        p95 = round(1000 * percentile(values, 95), 2)
        figure("batches.first_token_ms", 1000 * median(values), "ms, median", server=name, p95=p95, streams=len(values))
    ratio = percentile(seconds["batch"], 95) / percentile(seconds["idle"], 95)
    figure("batches.first_token_ratio", ratio, "p95 during a batch / p95 idle")


def first_tokens_during_batch(stack: Stack, count: int) -> list[float]:
    with Client(stack.url) as client:
        batch: RequestBatch = client.submit_requests(requests(stack.folder, 5000))
        wait_until(lambda: client.request_batch(batch).request_counts["completed"] >= 2 * SLOTS, "the batch runs")
        found = first_token_seconds(stack, count)
        assert not client.request_batch(batch).ended, "the batch has ended too early"
        client.cancel_requests(batch)
        client.wait_for_requests(batch)
    return found


def first_token_seconds(stack: Stack, count: int) -> list[float]:
    """Seconds to the first token of streams, one after the other."""
    found = []
    body = {"messages": [{"role": "user", "content": "How are you?"}], "max_tokens": 8, "stream": True}
    with httpx2.Client(base_url=stack.url, timeout=60) as client:
        for _ in range(count):
            started = time.perf_counter()
            first = 0.0
            with client.stream("POST", "/v1/chat/completions", json=body) as response:
                assert response.status_code == 200, response.read()
                for text in response.iter_lines():
                    if not first and '"content":"' in text and '"content":""' not in text:
                        first = time.perf_counter() - started
            assert first, "no token came"
            found.append(first)
    return found


if __name__ == "__main__":
    main()
