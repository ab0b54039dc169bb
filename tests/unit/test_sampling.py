"""Sampling: tokens follow the requested distribution, and depend on nothing but their own request."""

from typing import Any

import pytest
import torch

from workers.gpu.engine.sampling import encode_sampling, gumbel_noise, sample_tokens
from workers.gpu.engine.step import INVALID_TOKEN

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])


def draws(count: int, **sampling: Any) -> Any:
    """The tokens of ``count`` requests that differ only in their seed."""
    parameters = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, **sampling}
    samplings = [encode_sampling(**parameters, seed=seed) for seed in range(count)]
    return pick(LOGITS.repeat(count, 1), samplings, [7] * count)


def pick(logits: Any, samplings: list[Any], positions: list[int]) -> Any:
    """The sampled token of each row of ``logits``."""
    return sample_tokens(logits, torch.tensor(samplings, dtype=torch.int32).T, torch.tensor(positions, dtype=torch.int32))


def frequencies(tokens: Any) -> Any:
    return torch.bincount(tokens, minlength=len(LOGITS)) / len(tokens)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_sampled_with_their_probability(temperature: float) -> None:
    expected = torch.softmax(LOGITS / temperature, -1)
    assert torch.allclose(frequencies(draws(10_000, temperature=temperature)), expected, atol=0.02)


def test_top_k_samples_only_the_most_likely_tokens() -> None:
    expected = torch.softmax(LOGITS[:3], -1)
    drawn = frequencies(draws(10_000, top_k=3))
    assert torch.allclose(drawn[:3], expected, atol=0.02)
    assert drawn[3:].sum() == 0


def test_top_p_samples_from_the_smallest_set_with_that_probability() -> None:
    # The probabilities are .56 .21 .13 .08 .03 .00: the first two have .77, the first three .89.
    assert set(draws(300, top_p=0.7).tolist()) == {0, 1}
    assert set(draws(300, top_p=0.8).tolist()) == {0, 1, 2}
    assert set(draws(300, top_p=0.01).tolist()) == {0}


def test_top_p_applies_to_what_top_k_keeps() -> None:
    # Of the first two alone, the first has .73.
    assert set(draws(300, top_k=2, top_p=0.72).tolist()) == {0}


def test_a_temperature_of_zero_is_greedy() -> None:
    assert set(draws(100, temperature=0.0).tolist()) == {0}


def test_a_tiny_temperature_is_greedy_and_divides_nothing_into_infinity() -> None:
    assert set(draws(100, temperature=1e-40).tolist()) == {0}


def test_sampling_does_not_depend_on_the_rest_of_the_batch() -> None:
    logits = torch.randn(4, 5000, generator=torch.Generator().manual_seed(1))
    samplings = [
        encode_sampling(0.9, 0.95, 40, 11),
        encode_sampling(1.5, 1.0, 0, 12),
        encode_sampling(0.0, 1.0, 0, 13),
        encode_sampling(0.7, 0.5, 0, 14),
    ]
    together = pick(logits, samplings, [5, 6, 7, 8])
    alone = [pick(logits[i : i + 1], samplings[i : i + 1], [5 + i])[0] for i in range(4)]
    assert together.tolist() == [int(token) for token in alone]


def test_sampling_depends_on_seed_and_position() -> None:
    flat = torch.zeros(1, 5000)
    tokens = {
        int(pick(flat, [encode_sampling(1.0, 1.0, 0, seed)], [position])[0]) for seed in range(20) for position in range(20)
    }
    assert len(tokens) > 350


def test_requests_without_a_seed_differ() -> None:
    assert len({encode_sampling(1.0, 1.0, 0, None) for _ in range(50)}) == 50


def test_noise_is_finite_and_follows_the_gumbel_distribution() -> None:
    number = torch.arange(8, dtype=torch.int32)[:, None]
    noise = gumbel_noise(number, number, torch.arange(100_000, dtype=torch.int32))
    assert bool(torch.isfinite(noise).all())
    assert abs(float(noise.mean()) - 0.5772) < 0.01
    assert abs(float(noise.var()) - 1.6449) < 0.02


GREEDY = encode_sampling(0.0, 1.0, 0, None)
VARIANTS = {
    "greedy": GREEDY,
    "all": encode_sampling(1.0, 1.0, 0, 1),
    "top p": encode_sampling(0.7, 0.9, 0, 2),
    "top k": encode_sampling(1.3, 1.0, 3, 3),
    "both": encode_sampling(1.0, 0.5, 4, 4),
}


@pytest.mark.parametrize(
    "poisoned",
    [[float("nan")] * 6, [0.0, float("nan"), 1.0, 2.0, 3.0, 4.0], [-float("inf")] * 6, [0.0, float("inf"), 1.0, 2.0, 3.0, 4.0]],
    ids=["all NaN", "one NaN", "all -inf", "one inf"],
)
def test_nan_and_infinite_scores_give_an_invalid_token_in_their_row_only(poisoned: list[float]) -> None:
    variants = list(VARIANTS.values())
    healthy = pick(LOGITS.repeat(len(variants), 1), variants, list(range(len(variants))))
    rows = torch.stack([LOGITS, torch.tensor(poisoned)]).repeat(len(variants), 1)
    tokens = pick(
        rows,
        [variant for variant in variants for _ in range(2)],
        [at for at in range(len(variants)) for _ in range(2)],
    )
    assert set(tokens[1::2].tolist()) == {INVALID_TOKEN}
    assert tokens[::2].tolist() == healthy.tolist()


def test_some_scores_may_be_minus_infinity() -> None:
    scores = LOGITS.clone()[None]
    scores[0, 1:5] = -torch.inf
    assert int(pick(scores, [GREEDY], [0])[0]) == 0
    assert set(pick(scores.repeat(50, 1), [encode_sampling(2.0, 1.0, 0, seed) for seed in range(50)], [1] * 50).tolist()) == {
        0,
        5,
    }
