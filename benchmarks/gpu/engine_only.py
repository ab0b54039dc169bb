"""The engine alone, in one process with nothing around it: throughput, one stream, start, idle time between steps, parity.

``python -m benchmarks.gpu.engine_only 8b --models FOLDER`` (``--device cpu`` with the shape ``tiny`` tries the program itself).
"""

import argparse
import os
import random
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.model_shapes import SHAPES, model_folder, models_file
from benchmarks.gpu.reporting import line, percentiles
from benchmarks.gpu.workload import Ask, workload
from shared.models.catalogue import load_catalogue
from workers.gpu.engine import batch_scheduler as steps_module
from workers.gpu.engine.messages import GenerationRequest
from workers.gpu.engine.transformers_engine import TransformersEngine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--models", type=Path, required=True, help="folder in which models are kept")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--requests", type=int, default=512)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--waves", type=int, nargs="*", default=[], help="other sizes of a wave of prompts to try")
    parser.add_argument("--parity", type=int, default=0, help="requests of the comparison with one at a time")
    parser.add_argument("--trace", type=Path, help="write a second of the middle of the workload here")
    parser.add_argument("--drawn", action="store_true", help="also with temperature 0.7 and top_p 0.9")
    options = parser.parse_args()
    folder = model_folder(options.shape, options.models, options.device)
    file = models_file(options.shape, folder, options.models / "models.json", device=options.device, in_flight=options.requests)
    start = time.perf_counter()
    engine = TransformersEngine(load_catalogue(file).get(options.shape), folder)
    engine.load(Phases())
    about: dict[str, Any] = {"shape": options.shape, "kernel": engine.kernel.implementation}
    line("alone.start", time.perf_counter() - start, "s", **about)
    asks = workload(options.requests, SHAPES[options.shape]["vocab_size"], scale=options.scale)
    drive(engine, asks[: min(32, len(asks))])
    throughput(engine, asks, about)
    for wave in options.waves:
        steps_module.MAX_PREFILL_TOKENS, before = wave, steps_module.MAX_PREFILL_TOKENS
        throughput(engine, asks, about | {"wave": wave})
        steps_module.MAX_PREFILL_TOKENS = before
    if options.drawn:
        throughput(engine, asks, about | {"temperature": 0.7, "top_p": 0.9}, temperature=0.7, top_p=0.9)
    for tokens in (int(512 * options.scale), int(512 * options.scale)):
        _, seconds, firsts = drive(engine, [Ask(asks[0].prompt, max(2, tokens))])
        line("alone.one_stream", (max(2, tokens) - 1) / (seconds - firsts[0]), "tokens/s", **about)
    if options.parity:
        parity(engine, options.parity, SHAPES[options.shape]["vocab_size"], options.scale, about)
    if options.trace:
        trace(engine, asks, options.trace)
    engine.close()


class Phases:
    """Prints how long each part of the start took."""

    def __init__(self) -> None:
        self._what, self._since = "", time.perf_counter()

    def __call__(self, phase: str, message: str, fraction: float) -> None:
        what = "graphs" if message.startswith("graphs") else message
        if what != self._what:
            now = time.perf_counter()
            if self._what:
                line("alone.start_of", now - self._since, "s", part=self._what)
            self._what, self._since = what, now


def throughput(engine: TransformersEngine, asks: list[Ask], about: dict[str, Any], **sampling: float) -> None:
    began = engine.stats().steps
    tokens, seconds, firsts = drive(engine, asks, **sampling)
    steps = engine.stats().steps - began
    line(
        "alone.throughput",
        tokens / seconds,
        "output tokens/s",
        requests=len(asks),
        tokens=tokens,
        seconds=round(seconds, 3),
        **about,
    )
    line("alone.step", 1000 * seconds / steps, "ms a step", steps=steps, first_token=percentiles(firsts), **about)


def drive(engine: TransformersEngine, asks: list[Ask], **sampling: float) -> tuple[int, float, list[float]]:
    """All at once; tokens, seconds, and after how many seconds each had its first token."""
    tag = f"{time.monotonic_ns()}"
    start = time.perf_counter()
    for number, ask in enumerate(asks):
        engine.submit(GenerationRequest(f"{tag}/{number}", ask.prompt, ask.answer, [], **sampling))
    tokens, ended = 0, 0
    firsts: dict[str, float] = {}
    while ended < len(asks):
        step = engine.next_step(600)
        if step is None:
            raise SystemExit("the engine gives nothing")
        now = time.perf_counter() - start
        for id, new in step.tokens:
            tokens += len(new)
            firsts.setdefault(id, now)
        for _, reason, detail in step.finished:
            if reason != "length":
                raise SystemExit(f"a request ended as {reason}: {detail}")
            ended += 1
    return tokens, time.perf_counter() - start, list(firsts.values())


def parity(engine: TransformersEngine, count: int, vocabulary: int, scale: float, about: dict[str, Any]) -> None:
    """Mixed requests with stops, cancels and lengths at once, then one at a time: equal up to the first near-tie."""
    from workers.gpu.engine.self_test import MARGINS, score_gaps

    chance = random.Random(7)
    asks = workload(count, vocabulary, scale=0.4 * scale, seed=8)
    model = engine._manager.model
    # Stops are tokens that the answers have: a few of each of the first, found by generating those alone.
    seen = collect(engine, [GenerationRequest(f"look {n}", ask.prompt, ask.answer, []) for n, ask in enumerate(asks[:20])])
    common = sorted({token for answer in seen.values() for token in answer})
    stops = {n: chance.sample(common, min(3, len(common))) for n in range(count) if n % 3 == 0}
    cancels = {n: chance.randint(1, max(2, asks[n].answer // 2)) for n in range(count) if n % 7 == 1}
    batch = [GenerationRequest(f"batch {n}", ask.prompt, ask.answer, stops.get(n, [])) for n, ask in enumerate(asks)]
    together = collect(engine, batch, {f"batch {n}": after for n, after in cancels.items()})
    equal = ties = 0
    worst = 0.0
    margin = MARGINS[model.dtype]
    for n, ask in enumerate(asks):
        alone = collect(engine, [GenerationRequest(f"alone {n}", ask.prompt, ask.answer, stops.get(n, []))])[f"alone {n}"]
        got = together[f"batch {n}"]
        length = min(len(got), len(alone))
        differ = next((at for at in range(length) if got[at] != alone[at]), None)
        if differ is None:
            if n not in cancels and len(got) != len(alone):
                raise SystemExit(f"request {n} has {len(got)} tokens in a batch and {len(alone)} alone")
            equal += 1
            continue
        short = float(score_gaps(model, ask.prompt, got[: differ + 1])[-1])
        worst = max(worst, short, float(score_gaps(model, ask.prompt, alone[: differ + 1])[-1]))
        ties += 1
    if worst > margin:
        raise SystemExit(
            f"an answer leaves the one of the request alone where the best is ahead by {worst:.3f}, more than {margin}"
        )
    line(
        "alone.parity",
        equal,
        f"of {count} answers equal one-by-one to their last token",
        near_ties=ties,
        farthest=round(worst, 4),
        margin=margin,
        margin_unit="standard deviations of the scores",
        stops=len(stops),
        cancels=len(cancels),
        **about,
    )


def collect(
    engine: TransformersEngine, requests: list[GenerationRequest], cancels: dict[str, int] | None = None
) -> dict[str, list[int]]:
    """The tokens of each request; ``cancels`` says after how many tokens a request is cancelled."""
    answers: dict[str, list[int]] = {request.id: [] for request in requests}
    running, cancels = set(answers), cancels or {}
    for request in requests:
        engine.submit(request)
    while running:
        step = engine.next_step(600)
        if step is None:
            raise SystemExit("the engine gives nothing")
        for id, new in step.tokens:
            answers[id] += new
            if id in running and id in cancels and len(answers[id]) >= cancels[id]:
                engine.cancel(id)
        for id, reason, detail in step.finished:
            running.discard(id)
            if reason not in ("length", "stop", "cancelled"):
                raise SystemExit(f"request {id} ended as {reason} after {len(answers[id])} tokens: {detail}")
    return answers


def trace(engine: TransformersEngine, asks: list[Ask], file: Path) -> None:
    """Where the time of a step goes on the device: the kernels of about a second in the middle."""
    import threading

    tables: list[str] = []

    def watch() -> None:
        time.sleep(2.0)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            time.sleep(1.0)
        tables.append(profiler.key_averages().table(sort_by="cuda_time_total", row_limit=25, max_name_column_width=70))

    watcher = threading.Thread(target=watch)
    watcher.start()
    drive(engine, asks)
    watcher.join()
    file.write_text(tables[0])


if __name__ == "__main__":
    try:
        main()
    except BaseException:  # noqa: BLE001 - whatever it is, it is told and this process ends
        traceback.print_exc()
        # The loop's thread would go on for ever, and hold the GPU.
        os._exit(1)
    os._exit(0)
