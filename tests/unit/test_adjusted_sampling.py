"""Adjusted sampling: penalties, biases, masks and ``min_p`` change the tokens of their own requests and of no others."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from workers.gpu.engine.adjusted_sampling import SLICE, sample_adjusted
from workers.gpu.engine.adjustments import AdjustedRequests, Adjustments, LogitAdjuster, needs_adjuster
from workers.gpu.engine.logprobs import score_tokens
from workers.gpu.engine.messages import LOWEST_LOGPROB, GenerationRequest, decode_message, encode_message
from workers.gpu.engine.request_checks import find_problem
from workers.gpu.engine.sampling import encode_sampling
from workers.gpu.engine.step import INVALID_TOKEN, StepInput

VOCABULARY = 70


def adjuster_of(prompt: list[int], output: list[int] | None = None, **fields: Any) -> LogitAdjuster:
    """The adjuster of a request after it has generated ``output``."""
    request = GenerationRequest("r", prompt, 10, [], **fields)
    assert needs_adjuster(request)
    sampling = encode_sampling(request.temperature, request.top_p, request.top_k, request.seed)
    adjuster = LogitAdjuster(request, sampling)
    for token in output or []:
        assert adjuster.accept(token) is None
    return adjuster


def adjusted_logits(logits: Any, adjuster: LogitAdjuster) -> Any:
    """The logits after the edits of an adjuster."""
    tokens, factors, added = (torch.from_numpy(array) for array in adjuster.edits)
    result = logits.clone()
    for token, factor, value in zip(tokens.tolist(), factors.tolist(), added.tolist(), strict=True):
        result[token] = (result[token] / factor if result[token] > 0 else result[token] * factor) + value
    return result


def expected_logits(logits: Any, prompt: list[int], output: list[int], request: GenerationRequest) -> Any:
    """The definition of the penalties, one token at a time."""
    result = logits.clone()
    for token in range(len(result)):
        if token in prompt or token in output:
            value = result[token]
            result[token] = value / request.repetition_penalty if value > 0 else value * request.repetition_penalty
        result[token] -= request.presence_penalty * (token in output) + request.frequency_penalty * output.count(token)
    for token, bias in request.logit_bias:
        result[token] += bias
    return result


@pytest.mark.parametrize("continued", [0, 3], ids=["from the start", "continued"])
def test_penalties_and_biases_follow_their_definition(continued: int) -> None:
    prompt, output = [5, 6, 6, 9, 60, *range(30, 50)], [7, 7, 5, 9, 7]
    fields: dict[str, Any] = {
        "repetition_penalty": 1.3,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.25,
        "logit_bias": [(7, 1.5), (20, -2.0), (7, 1.0)],
    }
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(1)) * 3
    request = GenerationRequest("r", prompt, 10, [], **fields)
    adjuster = adjuster_of(prompt + output[:continued], output[continued:], generated_tokens=continued, **fields)
    assert torch.allclose(adjusted_logits(logits, adjuster), expected_logits(logits, prompt, output, request), atol=1e-5)
    tokens = torch.tensor([int(logits.argmax())])
    sample_adjusted(logits[None], tokens, torch.tensor([9], dtype=torch.int32), AdjustedRequests([(0, adjuster)]).adjust())
    assert tokens.item() == int(expected_logits(logits, prompt, output, request).argmax())


def test_only_adjusted_requests_change_and_each_as_it_would_alone() -> None:
    """More requests than one slice has."""
    count = SLICE * 2 + 5
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(count, VOCABULARY, generator=generator)
    positions = torch.arange(count, dtype=torch.int32)
    adjusters = [
        (
            n,
            adjuster_of(
                [n % VOCABULARY, 3], [n % 11], frequency_penalty=9.0, logit_bias=[(n % 13, 4.0)], seed=n, temperature=n % 3
            ),
        )
        for n in range(count)
        if n % 4
    ]
    untouched = logits.argmax(-1)
    together, before = untouched.clone(), logits.clone()
    sample_adjusted(logits, together, positions, AdjustedRequests(adjusters).adjust())
    assert torch.equal(logits, before)
    assert together[::4].tolist() == untouched[::4].tolist()
    assert together.tolist() != untouched.tolist()
    for n, adjuster in adjusters:
        alone = untouched[n : n + 1].clone()
        sample_adjusted(logits[n : n + 1], alone, positions[n : n + 1], AdjustedRequests([(0, adjuster)]).adjust())
        assert alone.item() == together[n].item()
    sample_adjusted(logits, together, positions, AdjustedRequests([]).adjust())


def test_requests_that_are_selected_keep_their_own_edits_and_masks() -> None:
    count = 12
    logits = torch.randn(count, VOCABULARY, generator=torch.Generator().manual_seed(5))
    positions = torch.arange(count, dtype=torch.int32)
    biases = [[(n, 3.0), (n + 20, 4.0)] if n % 3 else [] for n in range(count)]
    made = AdjustedRequests(
        [(n, adjuster_of([1], logit_bias=bias, min_p=0.1, temperature=1.0, seed=n)) for n, bias in enumerate(biases)]
    ).adjust()
    masks = np.random.default_rng(1).integers(-(2**31), 2**31, (8, VOCABULARY // 32)).astype(np.int32)
    adjustments = replace(made, masks=masks)
    whole = torch.zeros(count, dtype=torch.long)
    sample_adjusted(logits, whole, positions, adjustments)
    for chosen in (np.arange(0), np.array([0, 3, 6, 9]), np.array([1, 2, 7, 8, 11]), np.arange(count)):
        tokens = torch.zeros(count, dtype=torch.long)
        sample_adjusted(logits, tokens, positions, adjustments.select(chosen))
        assert tokens[chosen].tolist() == whole[chosen].tolist()
        assert not tokens[np.setdiff1d(np.arange(count), chosen)].any()


def test_min_p_draws_only_tokens_above_its_fraction_of_the_most_likely_one() -> None:
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])
    for temperature, min_p in ((1.0, 0.3), (2.0, 0.3), (0.5, 0.1), (1.0, 1.0)):
        probabilities = torch.softmax(logits / temperature, -1)
        allowed = set(torch.nonzero(probabilities >= min_p * probabilities.max()).flatten().tolist())
        rows = 400
        tokens = torch.zeros(rows, dtype=torch.long)
        adjusters = [(n, adjuster_of([1], min_p=min_p, temperature=temperature, seed=n)) for n in range(rows)]
        sample_adjusted(
            logits.repeat(rows, 1), tokens, torch.full((rows,), 4, dtype=torch.int32), AdjustedRequests(adjusters).adjust()
        )
        assert set(tokens.tolist()) == allowed


def test_invalid_tokens_stay_invalid_and_masks_may_be_narrower_than_the_logits() -> None:
    logits = torch.zeros(3, VOCABULARY)
    logits[1] = torch.nan
    tokens = torch.tensor([0, INVALID_TOKEN, 0])
    adjusters = [(n, adjuster_of([1], logit_bias=[(69, 5.0)])) for n in range(3)]
    plain = AdjustedRequests(adjusters).adjust()
    masked = replace(plain, requests=np.array([2, 1, 0], np.int32), masks=np.array([[0, 1 << 30], [0, 1 << 30]], np.int32))
    for adjustments in (masked, Adjustments.decode(masked.encode())):
        changed = tokens.clone()
        sample_adjusted(logits, changed, torch.zeros(3, dtype=torch.int32), adjustments)
        assert changed.tolist() == [69, INVALID_TOKEN, 62]


def test_a_step_and_no_adjustments_survive_serialization() -> None:
    def numbers(*values: int) -> Any:
        return np.array(values, np.int32)

    step = StepInput(
        *(numbers(1, 2, -3), numbers(0, 1, 5), numbers(4, 5, 6), numbers(2, 1), numbers(2, 6), numbers(0, 2)),
        np.arange(8, dtype=np.int32).reshape(4, 2),
        [(0, [3, 4]), (2, [])],
        [7],
        *(numbers(0), numbers(2), numbers(1), 5, True),
    )
    other = StepInput.decode(step.encode())
    for name, value in vars(step).items():
        assert np.array_equal(value, getattr(other, name)) if isinstance(value, np.ndarray) else value == getattr(other, name)
    empty = Adjustments.decode(AdjustedRequests([]).adjust().encode())
    assert not len(empty.requests)


def test_scores_are_log_probabilities_with_the_most_likely_tokens() -> None:
    logits = torch.randn(SLICE + 9, VOCABULARY, generator=torch.Generator().manual_seed(3)).bfloat16()
    logits[3, 8] = -torch.inf
    rows = torch.arange(len(logits)).flip(0)
    tokens = torch.arange(len(logits), dtype=torch.int32) % VOCABULARY
    tokens[rows[3]] = 8
    scores = score_tokens(logits, rows, tokens, 3)
    expected = logits.float().log_softmax(-1)[rows]
    chosen = expected.gather(-1, tokens.long()[:, None])[:, 0].clamp(min=LOWEST_LOGPROB)
    assert torch.equal(scores.logprobs, chosen)
    assert scores.logprobs[rows[3]] == LOWEST_LOGPROB
    assert torch.equal(scores.top_logprobs, expected.topk(3).values)
    assert score_tokens(logits, rows, tokens, 0).top_tokens.shape == (len(logits), 0)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, ""),
        ({"prompt": []}, "no tokens"),
        ({"prompt": [70]}, "vocabulary of 70"),
        ({"prompt": [-1]}, "vocabulary of 70"),
        ({"prompt": [1] * 16}, "16 tokens"),
        ({"prompt": [1] * 16, "max_new_tokens": 0, "prompt_logprobs": 0}, ""),
        ({"prompt": [1] * 17, "max_new_tokens": 0, "prompt_logprobs": 0}, "17 tokens"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": -1, "prompt_logprobs": 0}, "max_new_tokens"),
        ({"logprobs": 21}, "^logprobs must be between 0 and 20"),
        ({"prompt_logprobs": -1}, "^prompt_logprobs must be"),
        ({"min_p": 1.5}, "min_p"),
        ({"min_p": float("nan")}, "min_p"),
        ({"frequency_penalty": float("nan")}, "frequency_penalty"),
        ({"presence_penalty": float("inf")}, "presence_penalty"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty"),
        ({"logit_bias": [(70, 1.0)]}, "token 70"),
        ({"logit_bias": [(3, float("inf"))]}, "token 3 must be finite"),
        ({"generated_tokens": 3}, "generated_tokens"),
        ({"scored_tokens": -1}, "scored_tokens"),
        ({"adapter": "small"}, ""),
        ({"adapter": "other"}, "no adapter 'other'"),
    ],
)
def test_a_problem_names_the_field(fields: dict[str, Any], problem: str) -> None:
    import re

    request = GenerationRequest(**({"id": "r", "prompt": [1, 2, 3], "max_new_tokens": 4, "stop_token_ids": []} | fields))
    found = find_problem(request, vocabulary_size=VOCABULARY, max_context=16, adapters=["small"])
    assert re.search(problem, found) if problem else not found


def test_a_request_with_every_field_survives_serialization() -> None:
    request = GenerationRequest(
        *("r", [1, 2], 0, [3]),
        min_p=0.1,
        logit_bias=[(4, -1.5)],
        logprobs=0,
        prompt_logprobs=20,
        grammar="g",
        ignore_stop_tokens=True,
        generated_tokens=1,
        scored_tokens=1,
    )
    assert decode_message(encode_message(request)) == request
