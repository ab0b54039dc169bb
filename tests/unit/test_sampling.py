"""A draw follows the distribution that its request asked for, and depends on nothing but that request."""

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from workers.gpu.engine.batch_scheduler import INVALID_TOKEN  # noqa: E402
from workers.gpu.engine.sampling import (  # noqa: E402 - only where torch is
    KEY,
    Sampling,
    SamplingProcessors,
    draw,
    encode_sampling,
    gumbel,
)
from workers.gpu.engine.transformers_patches import GraphsByKind, argmax_tokens  # noqa: E402

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])


def draws(count: int, *, as_on_gpu: bool = True, **sampling: Any) -> Any:
    """The tokens of ``count`` requests that differ in nothing but their seed."""
    asked = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, **sampling}
    samplings = [encode_sampling(**asked, seed=seed) for seed in range(count)]
    return pick(LOGITS.repeat(count, 1), samplings, [7] * count, as_on_gpu=as_on_gpu)


def prepared(samplings: list[Sampling], positions: list[int]) -> tuple[SamplingProcessors, Any]:
    """Processors that are about to make a step, and what they hand to the device for it."""
    processors = SamplingProcessors()
    batch = [
        SimpleNamespace(
            has_new_token=True, state=SimpleNamespace(logit_processor_kwargs={KEY: sampling}, position_offset=position)
        )
        for sampling, position in zip(samplings, positions, strict=True)
    ]
    storage = torch.zeros((processors.tensors_required, len(batch) + 3), dtype=torch.int32)
    processors.prepare_tensor_args(batch, storage)
    return processors, storage


def pick(scores: Any, samplings: list[Any], positions: list[int], *, as_on_gpu: bool = False) -> Any:
    processors, storage = prepared(samplings, positions)
    if as_on_gpu:
        processed = draw(scores, storage[:, : len(samplings)])
    else:
        processed = processors(torch.zeros(0), scores.clone(), storage)
    tokens = torch.zeros((1, len(samplings)), dtype=torch.int64)
    argmax_tokens(processed[None], tokens)
    return tokens[0]


def shares(tokens: Any) -> Any:
    return torch.bincount(tokens, minlength=len(LOGITS)) / len(tokens)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature: float) -> None:
    expected = torch.softmax(LOGITS / temperature, -1)
    assert torch.allclose(shares(draws(40_000, temperature=temperature)), expected, atol=0.01)


def test_top_k_draws_from_the_likeliest_few_only() -> None:
    expected = torch.softmax(LOGITS[:3], -1)
    drawn = shares(draws(40_000, top_k=3))
    assert torch.allclose(drawn[:3], expected, atol=0.01)
    assert drawn[3:].sum() == 0


def test_top_p_draws_from_the_fewest_tokens_that_have_that_probability() -> None:
    # The chances are .56 .21 .13 .08 .03 .00: the first two have .77, the first three .89.
    for as_on_gpu in (True, False):
        assert set(draws(300, as_on_gpu=as_on_gpu, top_p=0.7).tolist()) == {0, 1}
        assert set(draws(300, as_on_gpu=as_on_gpu, top_p=0.8).tolist()) == {0, 1, 2}
        assert set(draws(300, as_on_gpu=as_on_gpu, top_p=0.01).tolist()) == {0}


def test_top_p_counts_within_what_top_k_has_left() -> None:
    # Of the first two alone the first has .73.
    for as_on_gpu in (True, False):
        assert set(draws(300, as_on_gpu=as_on_gpu, top_k=2, top_p=0.72).tolist()) == {0}


def test_a_temperature_of_zero_takes_the_likeliest() -> None:
    assert set(draws(100, as_on_gpu=False, temperature=0.0).tolist()) == {0}


def test_a_draw_does_not_depend_on_the_rest_of_the_batch() -> None:
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


def test_the_draw_changes_with_the_seed_and_with_the_position() -> None:
    flat = torch.zeros(1, 5000)
    seen = {int(pick(flat, [encode_sampling(1.0, 1.0, 0, seed)], [position])[0]) for seed in range(20) for position in range(20)}
    assert len(seen) > 350


def test_the_gpus_way_of_drawing_gives_the_same_tokens() -> None:
    logits = torch.randn(200, 3000, generator=torch.Generator().manual_seed(2)) * 3
    ways = [(0.8, 1.0, 0), (0.8, 1.0, 40), (1.3, 0.9, 0), (1.0, 0.95, 64), (2.0, 0.999, 2000)]
    samplings = [encode_sampling(*ways[row % len(ways)], seed=row) for row in range(200)]
    positions = list(range(200))
    assert pick(logits, samplings, positions).tolist() == pick(logits, samplings, positions, as_on_gpu=True).tolist()


def test_requests_without_a_seed_differ() -> None:
    assert len({encode_sampling(1.0, 1.0, 0, None) for _ in range(50)}) == 50


def test_noise_is_finite_and_has_the_spread_of_gumbels_distribution() -> None:
    number = torch.arange(8, dtype=torch.int32)[:, None]
    noise = gumbel(number, number, torch.arange(100_000, dtype=torch.int32))
    assert bool(torch.isfinite(noise).all())
    assert abs(float(noise.mean()) - 0.5772) < 0.01
    assert abs(float(noise.var()) - 1.6449) < 0.02


GREEDY = encode_sampling(0.0, 1.0, 0, None)
WAYS = {
    "greedy": GREEDY,
    "all": encode_sampling(1.0, 1.0, 0, 1),
    "top p": encode_sampling(0.7, 0.9, 0, 2),
    "top k": encode_sampling(1.3, 1.0, 3, 3),
    "both": encode_sampling(1.0, 0.5, 4, 4),
}


@pytest.mark.parametrize("as_on_gpu", [True, False])
@pytest.mark.parametrize(
    "spoilt",
    [[float("nan")] * 6, [0.0, float("nan"), 1.0, 2.0, 3.0, 4.0], [-float("inf")] * 6, [0.0, float("inf"), 1.0, 2.0, 3.0, 4.0]],
    ids=["all NaN", "one NaN", "all -inf", "one inf"],
)
def test_scores_that_are_no_numbers_give_an_undefined_token_and_leave_the_other_rows_alone(
    spoilt: list[float], as_on_gpu: bool
) -> None:
    ways = [way for name, way in WAYS.items() if not (as_on_gpu and name == "greedy")]
    healthy = pick(LOGITS.repeat(len(ways), 1), ways, list(range(len(ways))), as_on_gpu=as_on_gpu)
    rows = torch.stack([LOGITS, torch.tensor(spoilt)]).repeat(len(ways), 1)
    taken = pick(
        rows, [way for way in ways for _ in range(2)], [at for at in range(len(ways)) for _ in range(2)], as_on_gpu=as_on_gpu
    )
    assert set(taken[1::2].tolist()) == {INVALID_TOKEN}
    assert taken[::2].tolist() == healthy.tolist()


def test_scores_of_some_tokens_may_be_minus_infinity() -> None:
    scores = LOGITS.clone()[None]
    scores[0, 1:5] = -torch.inf
    assert int(pick(scores, [GREEDY], [0])[0]) == 0
    assert set(pick(scores.repeat(50, 1), [encode_sampling(2.0, 1.0, 0, seed) for seed in range(50)], [1] * 50).tolist()) == {
        0,
        5,
    }


def test_steps_in_which_nobody_draws_are_known_beforehand_and_leave_the_scores_alone() -> None:
    processors, storage = prepared([GREEDY, GREEDY], [3, 4])
    scores = torch.randn(2, 50)
    assert not processors.drawing
    assert processors(torch.zeros(0), scores, storage) is scores
    processors, _ = prepared([GREEDY, WAYS["top p"]], [3, 4])
    assert processors.drawing


def test_graphs_of_steps_that_draw_and_of_steps_that_do_not_are_kept_apart() -> None:
    processors = SamplingProcessors()
    graphs = GraphsByKind(processors)
    plain, drawing = SimpleNamespace(reset=lambda: None), SimpleNamespace(reset=lambda: None)
    graphs.set_graph((64, 0), plain)
    processors.drawing = True
    assert graphs.get_graph((64, 0)) is None
    graphs.set_graph((64, 0), drawing)
    assert graphs.get_graph((64, 0)) is drawing
    processors.drawing = False
    assert graphs.get_graph((64, 0)) is plain
