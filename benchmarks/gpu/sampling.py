"""Sampling kernel: the tokens that it samples beside those of the CPU, and what a step's sampling costs, adjusted or not.

``python -m benchmarks.gpu.sampling``
"""

from functools import partial

import numpy as np
import torch

from benchmarks.gpu.reporting import report
from workers.gpu.engine.adjusted_sampling import PinnedCopier, sample_adjusted
from workers.gpu.engine.adjustments import Adjustments
from workers.gpu.engine.sampling import encode_sampling, sample_token, sample_tokens

VOCABULARY, ROWS, CHECKED, REPETITIONS = 128256, 512, 96, 50
CASES = {
    "greedy": (0.0, 1.0, 0),
    "temperature": (0.7, 1.0, 0),
    "top_p": (0.7, 0.9, 0),
    "top_k": (0.7, 1.0, 50),
    "both": (1.0, 0.9, 50),
    "flat": (2.0, 0.5, 0),
}


def main() -> None:
    generator = torch.Generator(device="cuda").manual_seed(5)
    # In float32, as equal logits would be cut differently.
    logits = torch.randn(ROWS, VOCABULARY, device="cuda", generator=generator) * 3
    positions = torch.arange(ROWS, dtype=torch.int32, device="cuda")
    invalid = logits[:3].clone()
    invalid[0, 77], invalid[1, 5], invalid[2] = torch.nan, torch.inf, -torch.inf
    for name, (temperature, top_p, top_k) in CASES.items():
        rows = [encode_sampling(temperature, top_p, top_k, seed) for seed in range(ROWS)]
        sampling = torch.tensor(rows, dtype=torch.int32, device="cuda").T.contiguous()
        if sample_tokens(invalid, sampling[:, :3].contiguous(), positions).tolist() != [-1, -1, -1]:
            raise SystemExit("an invalid row has a token")
        tokens = sample_tokens(logits, sampling, positions)[:CHECKED].tolist()
        host, parameters = logits[:CHECKED].cpu(), torch.cat([sampling, positions[None]])[:, :CHECKED].cpu()
        expected = [
            sample_token(host[row], parameters[:, row]) if temperature else int(host[row].argmax()) for row in range(CHECKED)
        ]
        equal = sum(token == other for token, other in zip(tokens, expected, strict=True))
        report("sampling.parity", equal, f"of {CHECKED} tokens equal to those of the CPU", case=name)
        for count in (1, 48, ROWS):
            inputs = (logits[:count].bfloat16(), sampling[:, :count].contiguous(), positions[:count])
            report("sampling.time", time_us(partial(sample_tokens, *inputs)), "us", case=name, rows=count)
    compare_adjusted(logits, positions)
    report("sampling.floor", time_us(lambda: logits.bfloat16().argmax(-1)), "us of a cast and argmax of torch", rows=ROWS)
    report("sampling.sort", time_us(lambda: logits.sort(-1, descending=True)), "us of a sort", rows=ROWS)


def compare_adjusted(logits: torch.Tensor, positions: torch.Tensor) -> None:
    """Masks of half of the vocabulary, ``min_p`` and edited logits on the GPU, beside the same on the CPU."""
    generator = np.random.default_rng(6)
    copy = PinnedCopier(logits.device, 3)
    # How many of the requests have a mask, and how many edited logits.
    for name, count, masked, edited in (
        ("one with all", 1, 1, 1),
        ("masks", 64, 64, 0),
        ("masks and min_p", 64, 32, 0),
        ("edits of some", 64, 32, 16),
        ("masks and edits", 96, 96, 96),
    ):
        rows = [encode_sampling((0.0, 0.7)[seed % 2], 0.9, (0, 40)[seed % 3 == 1], seed) for seed in range(count)]
        adjustments = Adjustments(
            np.arange(count, dtype=np.int32) * 2,
            np.array(rows, np.int32).T.copy(),
            np.full(count, 0.0 if name == "masks" else 0.01, np.float32),
            np.repeat(np.arange(edited, dtype=np.int32), 50),
            np.concatenate(
                [np.zeros(0, np.int32), *(generator.choice(VOCABULARY, 50, replace=False) for _ in range(edited))]
            ).astype(np.int32),
            np.full(50 * edited, 1.2, np.float32),
            generator.standard_normal(50 * edited).astype(np.float32),
            generator.integers(-(2**31), 2**31, (masked, VOCABULARY // 32)).astype(np.int32),
        )
        host, tokens = logits[: 2 * count].cpu(), logits[: 2 * count].argmax(-1)
        expected = tokens.cpu()
        sample_adjusted(host, expected, positions[: 2 * count].cpu(), adjustments)
        inputs = (logits[: 2 * count].bfloat16(), tokens.clone(), positions[: 2 * count], adjustments, copy)
        sample_adjusted(logits[: 2 * count], tokens, positions[: 2 * count], adjustments, copy)
        equal = int((tokens.cpu() == expected).sum())
        report("sampling.adjusted_parity", equal, f"of {2 * count} tokens equal to those of the CPU", case=name, adjusted=count)
        report("sampling.adjusted_time", time_us(partial(sample_adjusted, *inputs)), "us", case=name, rows=count)


def time_us(work: object) -> float:
    """Microseconds of ``work`` on the device."""
    assert callable(work)
    for _ in range(3):
        work()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(REPETITIONS):
        work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / REPETITIONS * 1000


if __name__ == "__main__":
    main()
