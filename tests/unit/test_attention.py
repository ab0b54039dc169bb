"""Attention per request: the same result as over the masked batch, and no request reads another's NaN."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from workers.gpu.engine.attention import sdpa_attention_per_request

HEADS, KEY_HEADS, SIZE = 4, 2, 16
MODULE: Any = SimpleNamespace(layer_idx=0, num_key_value_groups=HEADS // KEY_HEADS, training=False, is_causal=True)

# Queries and keys of each request: some in prefill, some decoding, with short and long contexts.
MIXED = [(1, 9), (5, 5), (1, 1), (3, 12), (1, 40)]
DECODING = [(1, 9), (1, 3), (1, 17)]
ONE = [(1, 9)]


def batch(requests: list[tuple[int, int]], *, boolean: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(7)
    queries, keys = (sum(request[part] for request in requests) for part in (0, 1))
    query = torch.randn(1, HEADS, queries, SIZE, generator=generator)
    key, value = (torch.randn(1, KEY_HEADS, keys, SIZE, generator=generator) for _ in range(2))
    visible = torch.zeros(1, 1, queries, keys, dtype=torch.bool)
    ends_q, ends_k = [0], [0]
    for own_queries, own_keys in requests:
        for number in range(own_queries):
            end = ends_k[-1] + own_keys - own_queries + number + 1
            # The oldest key is masked, as with a sliding window.
            visible[0, 0, ends_q[-1] + number, min(ends_k[-1] + 1, end - 1) : end] = True
        ends_q.append(ends_q[-1] + own_queries)
        ends_k.append(ends_k[-1] + own_keys)
    mask = visible if boolean else torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)
    # The manager may pass more ends than the batch has requests.
    ends = {"cu_seq_lens_q": torch.tensor([*ends_q, ends_q[-1]]), "cu_seq_lens_k": torch.tensor([*ends_k, ends_k[-1]])}
    return query, key, value, mask, ends


@pytest.mark.parametrize("requests", [MIXED, DECODING, ONE], ids=["mixed", "decoding", "one"])
@pytest.mark.parametrize("boolean", [True, False])
def test_attention_per_request_equals_attention_over_the_masked_batch(requests: list[tuple[int, int]], boolean: bool) -> None:
    query, key, value, mask, ends = batch(requests, boolean=boolean)
    expected, _ = sdpa_attention_forward(MODULE, query, key, value, mask, scaling=0.25)
    output, _ = sdpa_attention_per_request(MODULE, query, key, value, mask, scaling=0.25, **ends)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


def test_nan_in_one_request_does_not_reach_another() -> None:
    query, key, value, mask, ends = batch(MIXED, boolean=False)
    value[:, :, 8] = float("nan")  # the last key of the first request
    output, _ = sdpa_attention_per_request(MODULE, query, key, value, mask, scaling=0.25, **ends)
    assert output[0, 0].isnan().all()
    assert output[0, 1:].isfinite().all()
