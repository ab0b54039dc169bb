"""Measure the prototype core: ``python -m benchmarks.gpu.core_prototype {parity,steps,serve} [SHAPE] --models FOLDER``.

``parity`` compares chunked, mixed steps with transformers' own forward pass; ``steps`` times single steps; ``serve`` runs the
workload of the other GPU benchmarks inside this process, all at once and as it arrives, once cold and once warm.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.gpu.core_prototype.model import PAGE, PagedLlama
from benchmarks.gpu.core_prototype.runner import StepRunner
from benchmarks.gpu.core_prototype.scheduler import ServingLoop
from benchmarks.gpu.model_shapes import model_folder
from benchmarks.gpu.workload import workload

PAGES = {"8b": 1536, "1b": 3000}
MAX_REQUESTS = 512
CONTEXT, REPETITIONS = 300, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("parity", "steps", "serve"))
    parser.add_argument("shape", nargs="?", choices=PAGES, default="8b")
    parser.add_argument("--models", type=Path, default=Path("/tmp/models"), help="folder in which models are kept")
    parser.add_argument("--budgets", type=int, nargs="*", default=[512, 1024, 2048], help="tokens per step")
    parser.add_argument("--rate", type=float, default=30.0, help="arrivals per second")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    if options.what == "parity":
        report("core_prototype.parity", **parity())
        return
    folder = model_folder(options.shape, options.models, "cuda")
    llama = LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).to("cuda").eval()
    model = PagedLlama(llama, PAGES[options.shape])
    if options.what == "steps":
        for graphs in (True, False):
            runner = StepRunner(model, MAX_REQUESTS, 2048, graphs=graphs)
            for decoding in (1, 8, 48, 128, 256):
                report(
                    "core_prototype.decode_ms", shape=options.shape, graphs=graphs, n=decoding, value=step_ms(runner, decoding)
                )
            for decoding, chunk in [(n, chunk) for n in (16, 48) for chunk in (64, 128, 256, 512, 1024)]:
                value = step_ms(runner, decoding, chunk)
                report("core_prototype.mixed_ms", shape=options.shape, graphs=graphs, n=decoding, chunk=chunk, value=value)
        return
    asks = workload(512, model.vocabulary)
    for budget in options.budgets:
        runner = StepRunner(model, MAX_REQUESTS, budget)
        for rate in (None, options.rate):
            for round_number in (1, 2):
                start = time.perf_counter()
                requests = ServingLoop(runner).serve(asks, rate)
                seconds = time.perf_counter() - start
                times = np.array(
                    [[request.ended - request.arrived, request.first_token - request.arrived] for request in requests]
                )
                p50, p99 = np.percentile(times, [50, 99], axis=0).tolist()
                report(
                    "core_prototype.serve",
                    shape=options.shape,
                    budget=budget,
                    rate=rate,
                    round=round_number,
                    tokens_per_s=sum(ask.output_tokens for ask in asks) / seconds,
                    job_p50_s=p50[0],
                    job_p99_s=p99[0],
                    first_token_p50_ms=1000 * p50[1],
                    first_token_p99_ms=1000 * p99[1],
                )


def report(name: str, **values: Any) -> None:
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in values.items()}
    print(json.dumps({"figure": name, "gpu": torch.cuda.get_device_name(), **rounded}), flush=True)


def step_ms(runner: StepRunner, decoding: int, chunk: int = 0) -> float:
    """Milliseconds of a step of ``decoding`` requests of 300 tokens and one prompt chunk, host work included."""
    each, rows = (CONTEXT + REPETITIONS + 20) // PAGE + 1, np.arange(decoding + (chunk > 0), dtype=np.int32)
    table = np.zeros((len(rows), runner.pages_per_row), np.int32)
    for row in rows:
        pages = max(each, -(-chunk // PAGE))
        table[row, :pages] = (np.arange(pages) + row * pages) % runner.model.pages
    runner.page_table[: len(rows)].copy_(torch.from_numpy(table))
    read = np.arange(chunk, dtype=np.int32)

    def run(position: int) -> torch.cuda.Event:
        at = np.full(decoding, position, np.int32)
        slots = table[:decoding, position // PAGE] * PAGE + position % PAGE
        ids, positions, contexts = -1 - rows[:decoding], at, at + 1
        lengths = np.ones(len(rows), np.int32)
        if chunk:
            ids, positions = np.concatenate([ids, read + 5]), np.concatenate([positions, read])
            slots = np.concatenate([slots, table[decoding, read // PAGE] * PAGE + read % PAGE])
            contexts, lengths[-1] = np.append(contexts, np.int32(chunk)), chunk
        return runner.run_step(ids, positions, slots, lengths, contexts, rows)[0]

    for position in range(CONTEXT, CONTEXT + 10):
        run(position).synchronize()
    start, before = time.perf_counter(), None
    for position in range(CONTEXT + 10, CONTEXT + 10 + REPETITIONS):
        event = run(position)
        if before is not None:
            before.synchronize()
        before = event
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / REPETITIONS * 1000


def parity() -> dict[str, Any]:
    """How far the logit of each drawn token is below the best one of transformers' own forward pass, at most."""
    torch.manual_seed(0)
    heads = {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64}
    config = LlamaConfig(
        vocab_size=4096, hidden_size=512, intermediate_size=1024, num_hidden_layers=2, rope_theta=500000.0, **heads
    )
    llama = LlamaForCausalLM(config).to("cuda", torch.bfloat16).eval()
    reference = LlamaForCausalLM(config).to("cuda", torch.bfloat16).eval()
    reference.load_state_dict(llama.state_dict())
    runner = StepRunner(PagedLlama(llama, 64), 8, 256)
    runner.page_table.copy_(torch.arange(8 * runner.pages_per_row, device="cuda").view(8, -1) % 64)
    for row in range(3):
        runner.page_table[row, :4] = torch.arange(row * 4, row * 4 + 4, device="cuda")
    table = runner.page_table.cpu().numpy()
    chance = np.random.default_rng(0)
    prompts = [chance.integers(10, 4000, size=length).astype(np.int32) for length in (37, 300, 5)]
    drawn: list[list[int]] = [[], [], []]

    def run(parts: list[tuple[int, np.ndarray, int]], keep: list[int]) -> None:
        at = [np.arange(first, first + len(ids), dtype=np.int32) for _, ids, first in parts]
        event, buffer = runner.run_step(
            np.concatenate([ids for _, ids, _ in parts]),
            np.concatenate(at),
            np.concatenate(
                [table[row, places // PAGE] * PAGE + places % PAGE for (row, _, _), places in zip(parts, at, strict=True)]
            ),
            np.array([len(ids) for _, ids, _ in parts], np.int32),
            np.array([places[-1] + 1 for places in at], np.int32),
            np.array([row for row, _, _ in parts], np.int32),
        )
        event.synchronize()
        for index, (row, _, _) in enumerate(parts):
            if row in keep:
                drawn[row].append(int(runner.tokens[buffer][index]))

    def last(row: int) -> np.ndarray:
        return np.array([-1 - row], np.int32)

    run([(0, prompts[0], 0), (1, prompts[1][:219], 0)], keep=[0])
    run([(0, last(0), 37), (1, prompts[1][219:], 219), (2, prompts[2], 0)], keep=[0, 1, 2])
    for turn in range(20):
        run([(0, last(0), 38 + turn), (1, last(1), 300 + turn), (2, last(2), 5 + turn)], keep=[0, 1, 2])
    gaps = []
    for prompt, answer in zip(prompts, drawn, strict=True):
        ids = torch.tensor(np.concatenate([prompt, np.array(answer, np.int32)]).astype(np.int64), device="cuda")[None]
        logits = reference(ids).logits[0, len(prompt) - 1 : -1].float()
        chosen = logits.gather(-1, torch.tensor(answer, device="cuda")[:, None])[:, 0]
        gaps.append(float((logits.max(-1).values - chosen).max()))
    return {"largest_gap": max(gaps), "logit_spread": float(logits.std()), "tokens": sum(map(len, drawn))}


if __name__ == "__main__":
    main()
