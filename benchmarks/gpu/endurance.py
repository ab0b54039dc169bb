"""Endurance test: many short jobs over a long time while the engine is killed; no job may be lost and no process may grow.

``python -m benchmarks.gpu.endurance 1b --models FOLDER --jobs 20000 --seconds 600 --kills 2``
"""

import argparse
import asyncio
import random
import tempfile
import time
from pathlib import Path

import httpx2

from benchmarks.gpu.http_clients import JobTiming, make_client, poll, submit
from benchmarks.gpu.model_shapes import SHAPES, model_folder, models_file
from benchmarks.gpu.reporting import report
from benchmarks.gpu.stack import BenchmarkStack
from benchmarks.gpu.workload import WorkloadRequest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=600.0, help="seconds over which the jobs are submitted")
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--in-flight", type=int, default=256)
    options = parser.parse_args()
    folder = model_folder(options.shape, options.models, options.device)
    file = models_file(options.shape, folder, options.models / "models.json", device=options.device, in_flight=options.in_flight)
    with tempfile.TemporaryDirectory() as data:
        stack = BenchmarkStack(Path(data), file, None if options.device == "cpu" else [[0]])
        try:
            stack.wait_ready()
            asyncio.run(endure(stack, options.jobs, options.seconds, options.kills, SHAPES[options.shape]["vocab_size"]))
        except BaseException:
            print(stack.logs(), flush=True)
            raise
        finally:
            stack.stop()


async def endure(stack: BenchmarkStack, jobs: int, seconds: float, kills: int, vocabulary: int) -> None:
    generator, start = random.Random(11), time.perf_counter()
    memory: list[dict[str, int]] = []
    killed: list[float] = []

    async def run_job(http: httpx2.AsyncClient, number: int) -> JobTiming:
        at = seconds * number / jobs
        await asyncio.sleep(max(0.0, start + at - time.perf_counter()))
        timing = JobTiming(time.perf_counter() - start)
        request = WorkloadRequest(
            [generator.randrange(10, vocabulary) for _ in range(generator.randint(8, 64))], generator.randint(4, 24)
        )
        await poll(http, await submit(http, request), timing, start, wait=30)
        return timing

    async def watch() -> None:
        for number in range(10):
            await asyncio.sleep(max(0.0, start + seconds * (number + 1) / 10 - time.perf_counter()))
            memory.append(stack.memory())
            if len(killed) < kills and (number + 1) * (kills + 1) >= 10 * (len(killed) + 1):
                for engine in stack.engines():
                    engine.kill()
                killed.append(time.perf_counter() - start)

    async with make_client(stack.url) as http:
        timings, _ = await asyncio.gather(asyncio.gather(*(run_job(http, number) for number in range(jobs))), watch())
    ended = sum(timing.status == "completed" for timing in timings)
    report("endurance.completed", ended, f"of {jobs} jobs", kills=len(killed), seconds=round(time.perf_counter() - start, 1))
    for name in memory[0]:
        report("endurance.memory", memory[-1][name], "MiB at the end", process=name, all=[sample[name] for sample in memory])
    if ended < jobs:
        raise SystemExit(f"{jobs - ended} jobs did not complete")


if __name__ == "__main__":
    main()
