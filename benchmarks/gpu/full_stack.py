"""The same workload through all of Enginehouse: arrivals from the first second after ``ready``, then all jobs at once.

``python -m benchmarks.gpu.full_stack 8b --models FOLDER --rate 30`` (``tiny --device cpu`` tries the program itself).
``--gpus 0,1`` puts a replica on each of these devices; with ``--spread 2`` one replica over both.
"""

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.gpu.http_clients import Seen, all_at_once, as_they_come
from benchmarks.gpu.model_shapes import SHAPES, model_folder, models_file
from benchmarks.gpu.reporting import line, percentiles
from benchmarks.gpu.stack import BenchmarkStack
from benchmarks.gpu.workload import arrivals, workload


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--models", type=Path, required=True, help="folder in which models are kept")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--gpus", default="0", help="devices, a replica on each")
    parser.add_argument("--spread", type=int, default=1, help="devices of one replica")
    parser.add_argument("--requests", type=int, default=512, help="jobs at once, for each replica")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rate", type=float, default=30.0, help="arrivals a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="for how long jobs arrive")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--compiled", type=Path, help="compiled code of an earlier start")
    parser.add_argument("--profile", type=Path, help="record where the worker's time goes, by py-spy")
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
        in_flight=options.requests,
        gpus=options.spread,
    )
    vocabulary = SHAPES[options.shape]["vocab_size"]
    with tempfile.TemporaryDirectory() as data:
        house = BenchmarkStack(Path(data), file, devices)
        try:
            about: dict[str, Any] = {"shape": options.shape, "replicas": house.replicas, "spread": options.spread}
            line("through.ready", house.wait_ready(), "s from the start of the processes", **about)
            about["kernel"] = house.model().get("attention") or "not told"
            times = list(islice(arrivals(options.rate), int(options.rate * options.seconds)))
            if times:
                asks = workload(len(times), vocabulary, scale=options.scale, seed=5)
                latencies(asyncio.run(as_they_come(house.url, asks, times)), options.rate, about)
            profiler = _profile(house, options.profile)
            for _ in range(options.rounds):
                asks = workload(options.requests * house.replicas, vocabulary, scale=options.scale)
                seen = all_at_once(house.url, asks)
                _all_completed(seen)
                tokens, seconds = sum(one.tokens for one in seen), max(one.ended for one in seen)
                line(
                    "through.throughput",
                    tokens / seconds,
                    "output tokens/s",
                    requests=len(asks),
                    tokens=tokens,
                    seconds=round(seconds, 3),
                    last_submitted=round(max(one.submitted for one in seen), 3),
                    **about,
                )
            if profiler is not None:
                profiler.wait(60)
        except BaseException:
            print(house.logs(), flush=True)
            raise
        finally:
            house.stop()
            print(house.logs(1500), file=sys.stderr)


def latencies(seen: list[Seen], rate: float, about: dict[str, Any]) -> None:
    _all_completed(seen)
    took = percentiles([one.ended - one.submitted for one in seen])
    first = percentiles([one.first - one.submitted for one in seen])
    line("through.job_seconds", took["p50"], "s, median", rate=rate, jobs=len(seen), all=took, **about)
    line("through.first_token_ms", first["p50"] * 1000, "ms, median", rate=rate, jobs=len(seen), all=first, **about)


def _all_completed(seen: list[Seen]) -> None:
    others = [one for one in seen if one.status != "completed"]
    if others:
        raise SystemExit(f"{len(others)} of {len(seen)} jobs did not complete; one ended {others[0].status}")


def _profile(house: BenchmarkStack, file: Path | None) -> "subprocess.Popen[bytes] | None":
    program = shutil.which("py-spy") or "py-spy"
    if file is None:
        return None
    parent = house.engines()[0].parent()
    assert parent is not None
    return subprocess.Popen([program, "record", "-d", "8", "-f", "raw", "-g", "-o", str(file), "-p", str(parent.pid)])


if __name__ == "__main__":
    main()
