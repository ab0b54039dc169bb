"""Before a model serves: is what it generates for several requests at once what it would say to each alone?

A kernel that reads the wrong page, a graph of the wrong size, a wrong scale give fluent nonsense and no error. Each token
of a small greedy batch is held against the scores of a plain forward pass over its own request, without the paged cache.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from shared.errors import ModelUnavailable

# Of a page and a bit, and of a few tokens. On the CPU a long one would take seconds.
LENGTHS, CPU_LENGTHS = (7, 40, 300, 24), (7, 24, 13)
TOKENS = 8

# How far below the best score a chosen token may be, in standard deviations of all scores at its place. The best of a
# hundred thousand is more than four above the mean, so a token chosen by a fault falls far outside; rounding does not.
MARGINS = {torch.float32: 0.02, torch.float16: 0.15, torch.bfloat16: 0.3}

Generate = Callable[[Sequence[list[int]], int], Sequence[list[int] | None]]
"""Prompts and a number of tokens to the greedy answers, all at once; None for one whose scores were no numbers."""


def run_self_test(model: Any, generate: Generate, *, vocabulary: int, context: int, name: str) -> None:
    """Raises ModelUnavailable when a token is further from the best than rounding explains."""
    generator = torch.Generator().manual_seed(6)
    wanted = CPU_LENGTHS if model.device.type == "cpu" else LENGTHS
    lengths = [length for length in wanted if length + TOKENS < context] or [max(1, context - TOKENS - 1)]
    prompts = [torch.randint(0, vocabulary, (length,), generator=generator).tolist() for length in lengths]
    tokens = min(TOKENS, context - max(lengths))
    margin = MARGINS.get(model.dtype, MARGINS[torch.bfloat16])
    for prompt, answer in zip(prompts, generate(prompts, tokens), strict=True):
        far = score_gaps(model, prompt, answer or [0])
        numbers = bool(far.isfinite().all())
        if answer is None and numbers:
            _refuse(name, "it computed no numbers in a batch where one request alone has some")
        if answer is not None and not numbers:
            _refuse(name, "it gave tokens in a batch where the scores of one request alone are no numbers")
        if answer is not None and float(far.max()) > margin:
            _refuse(
                name,
                f"with a prompt of {len(prompt)} tokens it chose one whose score is {float(far.max()):.2f} standard deviations "
                f"below the best, where rounding explains {margin}",
            )


@torch.no_grad()
def score_gaps(model: Any, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """How far each token of an answer is below the best at its place, by one plain forward pass over all of them."""
    ids = torch.tensor([prompt + answer[:-1]], device=model.device)
    scores = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :].float()
    chosen = scores.gather(-1, torch.tensor(answer, device=scores.device)[:, None])[:, 0]
    far: torch.Tensor = (scores.max(-1).values - chosen) / scores.std(-1).clamp(min=1e-6)
    return far.cpu()


def _refuse(name: str, fault: str) -> None:
    raise ModelUnavailable(
        f"Model {name} failed its self-test, in which several requests at once must be answered as one alone: {fault}. "
        "Its attention kernel or its compiled code is at fault: try another version of it, or set dtype to float32"
    )
