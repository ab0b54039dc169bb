"""Engine alone, in one process with nothing around it: throughput, one stream, start, time per step, parity.

``python -m benchmarks.gpu.engine_only 8b --models FOLDER`` (use ``tiny --device cpu`` to try the program).
"""

import argparse
import itertools
import os
import random
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.model_shapes import CONTEXT, SHAPES, model_folder, models_file
from benchmarks.gpu.reporting import percentiles, report
from benchmarks.gpu.workload import WorkloadRequest, workload
from shared.models.catalogue import load_catalogue
from workers.gpu.engine import build_core
from workers.gpu.engine.messages import GenerationRequest
from workers.gpu.engine.transformers_engine import TransformersEngine

_salts = itertools.count(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--models", type=Path, required=True, help="folder in which models are kept")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--requests", type=int, default=512)
    parser.add_argument("--in-flight", type=int, help="requests that run at once, by default all")
    parser.add_argument(
        "--fill-seconds",
        type=float,
        nargs="*",
        default=[],
        help="also with requests that arrive one by one, so fast that this time fills all places, as in the whole stack",
    )
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--step-tokens", type=int, nargs="*", default=[], help="smaller token budgets of a step to try")
    parser.add_argument(
        "--rate", type=float, nargs="*", default=[], help="arrivals per second at which to measure latencies, too"
    )
    parser.add_argument("--parity", type=int, default=0, help="requests to compare with one at a time")
    parser.add_argument(
        "--shared", type=float, nargs="*", default=[], help="also with prompts that begin alike, to this fraction"
    )
    parser.add_argument("--context", type=int, default=CONTEXT, help="tokens of a prompt and its output together")
    parser.add_argument("--long-prompts", type=int, nargs="*", default=[], help="also with prompts of so many tokens")
    parser.add_argument("--beside", type=int, default=0, help="also short requests beside a prompt of so many tokens")
    parser.add_argument("--trace", type=Path, help="write a second of the middle of the workload here")
    parser.add_argument("--sampled", action="store_true", help="also with temperature 0.7 and top_p 0.9")
    parser.add_argument(
        "--not-fused", action="store_true", help="on the code of transformers, as for models that cannot be fused"
    )
    parser.add_argument("--not-compiled", action="store_true", help="with --not-fused: without compiling it")
    options = parser.parse_args()
    if options.not_fused:
        from workers.gpu.engine import fused_decoder

        fused_decoder.can_fuse = lambda model: False  # type: ignore[assignment]
    if options.not_compiled:
        build_core._compile_layers = lambda model: None  # type: ignore[assignment]
    folder = model_folder(options.shape, options.models, options.device)
    file = models_file(
        options.shape,
        folder,
        options.models / "models.json",
        device=options.device,
        in_flight=options.in_flight or options.requests,
        context=options.context,
    )
    start = time.perf_counter()
    engine = TransformersEngine(load_catalogue(file).get_model(options.shape), folder)
    engine.load(PhaseTimer())
    about: dict[str, Any] = {"shape": options.shape, "attention": engine.attention_backend}
    report("engine.start", time.perf_counter() - start, "s", **about)
    requests = workload(options.requests, SHAPES[options.shape]["vocab_size"], scale=options.scale)
    run_requests(engine, requests[: min(32, len(requests))])
    measure_throughput(engine, requests, about)
    for seconds in options.fill_seconds:
        interval = seconds / (options.in_flight or options.requests)
        measure_throughput(engine, requests, about | {"fill_seconds": seconds}, interval=interval)
    largest = engine.parts.scheduler.max_step_tokens
    for tokens in (largest, *options.step_tokens):
        engine.parts.scheduler.max_step_tokens = tokens
        if tokens != largest:
            measure_throughput(engine, requests, about | {"step_tokens": tokens})
        for rate in options.rate:
            measure_latency(engine, requests, rate, about | {"step_tokens": tokens})
    engine.parts.scheduler.max_step_tokens = largest
    if options.sampled:
        measure_throughput(engine, requests, about | {"temperature": 0.7, "top_p": 0.9}, temperature=0.7, top_p=0.9)
    for tokens in (int(512 * options.scale), int(512 * options.scale)):
        _, seconds, firsts = run_requests(engine, [WorkloadRequest(requests[0].prompt, max(2, tokens))])
        report("engine.one_stream", (max(2, tokens) - 1) / (seconds - firsts[0]), "tokens/s", **about)
    for share in options.shared:
        measure_shared_prefix(engine, requests, share, about)
    vocabulary = SHAPES[options.shape]["vocab_size"]
    for length in options.long_prompts:
        measure_long_prompts(engine, length, max(8, options.requests // 8), vocabulary, about)
    if options.beside:
        measure_beside_long_prompt(engine, requests[:64], options.beside, vocabulary, about)
    if options.parity:
        compare_parity(engine, options.parity, vocabulary, options.scale, about)
    if options.trace:
        write_trace(engine, requests, options.trace)
    engine.unload()


class PhaseTimer:
    """Reports how long each part of the start took."""

    def __init__(self) -> None:
        self._what, self._since = "", time.perf_counter()

    def __call__(self, phase: str, message: str, fraction: float) -> None:
        what = "capturing graphs" if message.startswith("capturing graphs") else message
        if what != self._what:
            now = time.perf_counter()
            if self._what:
                report("engine.start_of", now - self._since, "s", part=self._what)
            self._what, self._since = what, now


def measure_throughput(
    engine: TransformersEngine, requests: list[WorkloadRequest], about: dict[str, Any], interval: float = 0.0, **sampling: Any
) -> None:
    began = engine.report_load().steps
    tokens, seconds, firsts = run_requests(engine, requests, interval=interval, **sampling)
    steps = engine.report_load().steps - began
    report(
        "engine.throughput",
        tokens / seconds,
        "output tokens/s",
        requests=len(requests),
        tokens=tokens,
        seconds=round(seconds, 3),
        **about,
    )
    report("engine.step", 1000 * seconds / steps, "ms a step", steps=steps, first_token=percentiles(firsts), **about)


def measure_shared_prefix(
    engine: TransformersEngine, requests: list[WorkloadRequest], share: float, about: dict[str, Any]
) -> None:
    """Throughput with long prompts and short outputs, of which the first ``share`` of the prompt is the same, and with none shared."""
    vocabulary = max(max(request.prompt) for request in requests) + 1
    generator = random.Random(11)

    def prompt(length: int) -> list[int]:
        return [generator.randrange(vocabulary) for _ in range(length)]

    length = min(2048, engine.parts.max_context // 2)
    for shared in (share, 0.0):
        prefix = prompt(int(length * shared))
        made = [WorkloadRequest([*prefix, *prompt(length - len(prefix))], 32) for _ in range(len(requests) // 2)]
        before = engine.report_load()
        tokens, seconds, firsts = run_requests(engine, made)
        after = engine.report_load()
        hits = (after.cached_tokens - before.cached_tokens) / (after.prompt_tokens - before.prompt_tokens)
        report(
            "engine.shared_prefix",
            tokens / seconds,
            "output tokens/s",
            share=shared,
            cached=round(hits, 3),
            prompt_tokens=length,
            first_token=percentiles(firsts),
            **about,
        )


def random_prompt(generator: random.Random, tokens: int, vocabulary: int) -> list[int]:
    return [generator.randrange(vocabulary) for _ in range(tokens)]


def measure_long_prompts(engine: TransformersEngine, length: int, count: int, vocabulary: int, about: dict[str, Any]) -> None:
    """Throughput of prompts of this many tokens, with 64 output tokens each."""
    generator = random.Random(13)
    made = [WorkloadRequest(random_prompt(generator, length, vocabulary), 64) for _ in range(count)]
    tokens, seconds, firsts = run_requests(engine, made)
    report(
        "engine.long_prompts",
        count * length / seconds,
        "prompt tokens/s",
        prompt_tokens=length,
        requests=count,
        output_tokens_per_second=round(tokens / seconds, 1),
        first_token=percentiles(firsts),
        **about,
    )


def measure_beside_long_prompt(
    engine: TransformersEngine, requests: list[WorkloadRequest], length: int, vocabulary: int, about: dict[str, Any]
) -> None:
    """How much longer short requests take when a prompt of this many tokens is read beside them."""
    long = WorkloadRequest(random_prompt(random.Random(17), length, vocabulary), 8)
    ended = {}
    for name, made in (("alone", requests), ("beside", [long, *requests])):
        ends: list[float] = []
        run_requests(engine, made, ends=ends)
        ended[name] = sorted(ends)
    # The long one is among the ends beside it; its own time is not that of a short request.
    alone, beside = (ended[name][int(0.95 * len(requests)) - 1] for name in ("alone", "beside"))
    report(
        "engine.beside_long_prompt",
        beside / alone,
        "times the p95 of short requests alone",
        long_prompt_tokens=length,
        requests=len(requests),
        alone=round(alone, 3),
        beside=round(beside, 3),
        **about,
    )


def measure_latency(engine: TransformersEngine, requests: list[WorkloadRequest], rate: float, about: dict[str, Any]) -> None:
    """Latencies of requests that arrive at random times, ``rate`` a second on average."""
    generator = random.Random(3)
    tag, start, at, salt = f"{time.monotonic_ns()}", time.perf_counter(), 0.0, next(_salts)
    arrivals: dict[str, float] = {}
    for number in range(len(requests)):
        at += generator.expovariate(rate)
        arrivals[f"{tag}/{number}"] = at

    def submit() -> None:
        for (id, due), request in zip(arrivals.items(), requests, strict=True):
            time.sleep(max(0.0, start + due - time.perf_counter()))
            engine.add_request(GenerationRequest(id, request.prompt, request.output_tokens, [], cache_salt=salt))

    threading.Thread(target=submit).start()
    firsts: dict[str, float] = {}
    seconds: list[float] = []
    while len(seconds) < len(requests):
        step = engine.next_step(600)
        now = time.perf_counter() - start
        for id, _ in step.tokens if step else []:
            firsts.setdefault(id, now - arrivals[id])
        seconds += [now - arrivals[id] for id, _, _ in (step.finished if step else [])]
    report(
        "engine.latency",
        percentiles(seconds)["p50"],
        "s",
        job=percentiles(seconds),
        first_token=percentiles(list(firsts.values())),
        rate=rate,
        **about,
    )


def run_requests(
    engine: TransformersEngine,
    requests: list[WorkloadRequest],
    ends: list[float] | None = None,
    interval: float = 0.0,
    **sampling: Any,
) -> tuple[int, float, list[float]]:
    """Run all requests at once; returns tokens, seconds, and the seconds from the start to each request's first token.

    ``ends`` receives the seconds to each end. ``interval`` is the time between two arrivals.

    Each call has a cache salt of its own: otherwise it would find the prompts of the one before in the cache.
    """
    tag = f"{time.monotonic_ns()}"
    salt = next(_salts)
    start = time.perf_counter()

    def submit() -> None:
        for number, request in enumerate(requests):
            if interval:
                time.sleep(max(0.0, start + number * interval - time.perf_counter()))
            engine.add_request(
                GenerationRequest(f"{tag}/{number}", request.prompt, request.output_tokens, [], cache_salt=salt, **sampling)
            )

    if interval:
        threading.Thread(target=submit).start()
    else:
        submit()
    tokens, ended = 0, 0
    firsts: dict[str, float] = {}
    while ended < len(requests):
        step = engine.next_step(600)
        if step is None:
            raise SystemExit("the engine has stopped producing output")
        now = time.perf_counter() - start
        for id, new in step.tokens:
            tokens += len(new)
            firsts.setdefault(id, now)
        for _, reason, detail in step.finished:
            if reason != "length":
                raise SystemExit(f"a request finished as {reason}: {detail}")
            ended += 1
            if ends is not None:
                ends.append(now)
    return tokens, time.perf_counter() - start, list(firsts.values())


def compare_parity(engine: TransformersEngine, count: int, vocabulary: int, scale: float, about: dict[str, Any]) -> None:
    """Compare mixed requests (stops, cancels, lengths) in a batch with one at a time: equal up to the first near-tie."""
    from workers.gpu.engine.self_test import MARGINS, score_gaps

    generator = random.Random(7)
    requests = workload(count, vocabulary, scale=0.4 * scale, seed=8)
    model = engine.model
    # Stop tokens have to occur in the outputs: take some that the first requests generate.
    samples = generate(
        engine,
        [GenerationRequest(f"sample {n}", request.prompt, request.output_tokens, []) for n, request in enumerate(requests[:20])],
    )
    common = sorted({token for output in samples.values() for token in output})
    stops = {n: generator.sample(common, min(3, len(common))) for n in range(count) if n % 3 == 0}
    cancels = {n: generator.randint(1, max(2, requests[n].output_tokens // 2)) for n in range(count) if n % 7 == 1}
    batch = [
        GenerationRequest(f"batch {n}", request.prompt, request.output_tokens, stops.get(n, []))
        for n, request in enumerate(requests)
    ]
    together = generate(engine, batch, {f"batch {n}": after for n, after in cancels.items()})
    equal = ties = 0
    worst = 0.0
    margin = MARGINS[model.dtype]
    for n, request in enumerate(requests):
        alone = generate(engine, [GenerationRequest(f"alone {n}", request.prompt, request.output_tokens, stops.get(n, []))])[
            f"alone {n}"
        ]
        got = together[f"batch {n}"]
        length = min(len(got), len(alone))
        differ = next((at for at in range(length) if got[at] != alone[at]), None)
        if differ is None and (n in cancels or len(got) == len(alone)):
            equal += 1
            continue
        at = length if differ is None else differ
        for output in (got, alone):
            # An output that ends here ended with a stop token, which is not part of it.
            candidates = [output[at]] if at < len(output) else stops.get(n, [])
            if not candidates:
                raise SystemExit(f"request {n} generated {len(got)} tokens in a batch and {len(alone)} alone")
            worst = max(worst, min(float(score_gaps(model, request.prompt, [*output[:at], token])[-1]) for token in candidates))
        ties += 1
    if worst > margin:
        raise SystemExit(f"an output of the batch differs where the best token is ahead by {worst:.3f}, more than {margin}")
    report(
        "engine.parity",
        equal,
        f"of {count} outputs equal to those of single requests",
        near_ties=ties,
        farthest=round(worst, 4),
        margin=margin,
        margin_unit="standard deviations of the scores",
        stops=len(stops),
        cancels=len(cancels),
        **about,
    )


def generate(
    engine: TransformersEngine, requests: list[GenerationRequest], cancels: dict[str, int] | None = None
) -> dict[str, list[int]]:
    """The tokens of each request; ``cancels`` maps requests to the number of tokens after which they are cancelled."""
    outputs: dict[str, list[int]] = {request.id: [] for request in requests}
    running, cancels = set(outputs), cancels or {}
    for request in requests:
        engine.add_request(request)
    while running:
        step = engine.next_step(600)
        if step is None:
            raise SystemExit("the engine has stopped producing output")
        for id, new in step.tokens:
            outputs[id] += new
            if id in running and id in cancels and len(outputs[id]) >= cancels[id]:
                engine.abort_request(id)
        for id, reason, detail in step.finished:
            running.discard(id)
            if reason not in ("length", "stop", "cancelled"):
                raise SystemExit(f"request {id} finished as {reason} after {len(outputs[id])} tokens: {detail}")
    return outputs


def write_trace(engine: TransformersEngine, requests: list[WorkloadRequest], file: Path) -> None:
    """Write the kernels of about a second in the middle of the workload, by device time."""
    tables: list[str] = []

    def watch() -> None:
        time.sleep(2.0)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            time.sleep(1.0)
        tables.append(profiler.key_averages().table(sort_by="cuda_time_total", row_limit=25, max_name_column_width=70))

    watcher = threading.Thread(target=watch)
    watcher.start()
    run_requests(engine, requests)
    watcher.join()
    file.write_text(tables[0])


if __name__ == "__main__":
    try:
        main()
    except BaseException:  # noqa: BLE001 - report any error and exit
        traceback.print_exc()
        # The loop's thread would run forever and keep the GPU.
        os._exit(1)
    os._exit(0)
