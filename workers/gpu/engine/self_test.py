"""Self-test of a model before it serves: a batch must generate what each of its requests generates alone.

A kernel that reads the wrong page, a graph of the wrong size or a wrong scale produces fluent nonsense and no error. Each
token of a small greedy batch is compared with the scores of a plain forward pass over its own request, without a paged cache.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from shared.errors import ModelUnavailable

# More than a page, and a few tokens. On the CPU a long prompt would take seconds.
LENGTHS, CPU_LENGTHS = (7, 40, 300, 24), (7, 24, 13)
TOKENS = 8

# How far below the best score a chosen token may be, in standard deviations of all scores at its position. The best of a
# hundred thousand is more than four above the mean, so a token chosen by a fault is far outside; rounding is not.
MARGINS = {torch.float32: 0.02, torch.float16: 0.15, torch.bfloat16: 0.3}

Generate = Callable[[Sequence[list[int]], int], Sequence[list[int] | None]]
"""Generates a number of tokens for all prompts at once, greedily; None for a prompt whose scores are NaN or infinite."""


def run_self_test(model: Any, generate: Generate, *, vocabulary_size: int, context: int, name: str) -> None:
    """Raise ModelUnavailable when a token is further below the best than rounding explains."""
    generator = torch.Generator().manual_seed(6)
    candidates = CPU_LENGTHS if model.device.type == "cpu" else LENGTHS
    lengths = [length for length in candidates if length + TOKENS < context] or [max(1, context - TOKENS - 1)]
    prompts = [torch.randint(0, vocabulary_size, (length,), generator=generator).tolist() for length in lengths]
    tokens = min(TOKENS, context - max(lengths))
    margin = MARGINS.get(model.dtype, MARGINS[torch.bfloat16])
    for prompt, output in zip(prompts, generate(prompts, tokens), strict=True):
        gaps = score_gaps(model, prompt, output or [0])
        is_finite = bool(gaps.isfinite().all())
        if output is None and is_finite:
            _fail(name, "a batch produced NaN or infinite logits where one request alone does not")
        if output is not None and not is_finite:
            _fail(name, "a batch produced tokens where the logits of one request alone are NaN or infinite")
        if output is not None and float(gaps.max()) > margin:
            _fail(
                name,
                f"for a prompt of {len(prompt)} tokens it chose a token {float(gaps.max()):.2f} standard deviations below the "
                f"best, where rounding explains {margin}",
            )


@torch.no_grad()
def score_gaps(model: Any, prompt: list[int], output: list[int]) -> torch.Tensor:
    """How far each output token is below the best at its position, by one plain forward pass over all of them.

    The pass uses the attention of transformers that is written out in torch, not the one under test.
    """
    ids = torch.tensor([prompt + output[:-1]], device=model.device)
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        scores = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :].float()
    finally:
        model.set_attn_implementation(implementation)
    chosen = scores.gather(-1, torch.tensor(output, device=scores.device)[:, None])[:, 0]
    gaps: torch.Tensor = (scores.max(-1).values - chosen) / scores.std(-1).clamp(min=1e-6)
    return gaps.cpu()


def _fail(name: str, problem: str) -> None:
    raise ModelUnavailable(
        f"Model {name} failed its self-test, which compares a batch with single requests: {problem}. Its attention kernel or "
        "compiled code is faulty: try another version of it, or set dtype to float32."
    )
