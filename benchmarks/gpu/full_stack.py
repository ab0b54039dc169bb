"""Full stack: the same workload through all of Enginehouse, first as arrivals, then all jobs at once.

``python -m benchmarks.gpu.full_stack 8b --models FOLDER --rate 30`` (use ``tiny --device cpu`` to try the program).
``--gpus 0,1`` puts a replica on each of these devices; with ``--spread 2`` one replica over both.
"""

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.gpu.http_clients import JobTiming, run_all_at_once, run_arrivals
from benchmarks.gpu.model_shapes import SHAPES, model_folder, models_file
from benchmarks.gpu.reporting import percentiles, report
from benchmarks.gpu.stack import BenchmarkStack
from benchmarks.gpu.workload import WorkloadRequest, arrivals, workload
from shared.models.catalogue import TRANSFORMERS, VLLM

# Output of the one stream.
STREAM_TOKENS = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--models", type=Path, required=True, help="folder in which models are kept")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--engine", default=TRANSFORMERS, choices=(TRANSFORMERS, VLLM))
    parser.add_argument("--engine-args", type=json.loads, default={}, help="engine_args of the entry, as JSON")
    parser.add_argument("--gpus", default="0", help="devices, with a replica on each")
    parser.add_argument("--spread", type=int, default=1, help="devices per replica")
    parser.add_argument("--requests", type=int, default=512, help="jobs at once, per replica")
    parser.add_argument("--in-flight", type=int, help="jobs that a replica runs at once, by default all")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--api-workers", type=int, default=4, help="processes of the API")
    parser.add_argument("--rate", type=float, default=30.0, help="arrivals per second")
    parser.add_argument("--seconds", type=float, default=20.0, help="for how long jobs arrive")
    parser.add_argument("--arrival-rounds", type=int, default=1, help="how often jobs arrive for that long")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--compiled", type=Path, help="compiled code of an earlier start")
    parser.add_argument("--profile", type=Path, help="profile the worker with py-spy into this file")
    options = parser.parse_args()
    folder = model_folder(options.shape, options.models, options.device)
    numbers = [int(device) for device in options.gpus.split(",")]
    spread = [numbers[at : at + options.spread] for at in range(0, len(numbers), options.spread)]
    devices = None if options.device == "cpu" else spread
    file = models_file(
        options.shape,
        folder,
        options.models / "models.json",
        device=options.device,
        in_flight=options.in_flight or options.requests,
        gpus=options.spread,
        engine=options.engine,
        engine_args=options.engine_args,
    )
    vocabulary = SHAPES[options.shape]["vocab_size"]
    with tempfile.TemporaryDirectory() as data:
        stack = BenchmarkStack(Path(data), file, devices, api_workers=options.api_workers)
        try:
            about: dict[str, Any] = {"shape": options.shape, "engine": options.engine, "replicas": stack.replicas}
            about |= {"spread": options.spread, "api_workers": options.api_workers}
            report("stack.ready", stack.wait_ready(), "s from the start of the processes", **about)
            about["attention"] = stack.model().get("attention") or "unknown"
            times = list(islice(arrivals(options.rate), int(options.rate * options.seconds)))
            for number in range(options.arrival_rounds if times else 0):
                requests = workload(len(times), vocabulary, scale=options.scale, seed=5 + number)
                report_latencies(asyncio.run(run_arrivals(stack.url, requests, times)), options.rate, about)
            profiler = _profile(stack, options.profile)
            for number in range(options.rounds):
                # The same lengths and other tokens in each round, so that none finds its prompts in the cache.
                requests = [
                    WorkloadRequest([(token + number) % vocabulary for token in request.prompt], request.output_tokens)
                    for request in workload(options.requests * stack.replicas, vocabulary, scale=options.scale)
                ]
                before = stack.cpu_seconds()
                timings = run_all_at_once(stack.url, requests)
                after = stack.cpu_seconds()
                _require_completed(timings)
                tokens, seconds = sum(timing.tokens for timing in timings), max(timing.ended for timing in timings)
                report(
                    "stack.throughput",
                    tokens / seconds,
                    "output tokens/s",
                    requests=len(requests),
                    tokens=tokens,
                    seconds=round(seconds, 3),
                    last_submitted=round(max(timing.submitted for timing in timings), 3),
                    cpu_ms_per_job={name: round(1000 * (after[name] - before[name]) / len(requests), 2) for name in after},
                    **about,
                )
            for _ in range(2):
                [timing] = asyncio.run(run_arrivals(stack.url, [WorkloadRequest(requests[0].prompt, STREAM_TOKENS)], [0.0]))
                _require_completed([timing])
                report("stack.one_stream", (timing.tokens - 1) / (timing.ended - timing.first), "tokens/s", **about)
            if profiler is not None:
                profiler.wait(60)
        except BaseException:
            print(stack.logs(), flush=True)
            raise
        finally:
            stack.stop()
            print(stack.logs(1500), file=sys.stderr)


def report_latencies(timings: list[JobTiming], rate: float, about: dict[str, Any]) -> None:
    _require_completed(timings)
    took = percentiles([timing.ended - timing.submitted for timing in timings])
    first = percentiles([timing.first - timing.submitted for timing in timings])
    report("stack.job_seconds", took["p50"], "s, median", rate=rate, jobs=len(timings), all=took, **about)
    slowest = sorted(timings, key=lambda timing: timing.submitted - timing.first)[:12]
    report(
        "stack.first_token_ms",
        first["p50"] * 1000,
        "ms, median",
        rate=rate,
        jobs=len(timings),
        all=first,
        # When the slowest were submitted: right after the start, or in bursts of the load.
        slowest=[[round(timing.submitted, 2), round(1000 * (timing.first - timing.submitted))] for timing in slowest],
        **about,
    )


def _require_completed(timings: list[JobTiming]) -> None:
    others = [timing for timing in timings if timing.status != "completed"]
    if others:
        raise SystemExit(f"{len(others)} of {len(timings)} jobs did not complete; one ended as {others[0].status}")


def _profile(stack: BenchmarkStack, file: Path | None) -> "subprocess.Popen[bytes] | None":
    program = shutil.which("py-spy") or "py-spy"
    if file is None:
        return None
    parent = stack.engines()[0].parent()
    assert parent is not None
    return subprocess.Popen([program, "record", "-d", "8", "-f", "raw", "-g", "-o", str(file), "-p", str(parent.pid)])


if __name__ == "__main__":
    main()
