"""Attention request by request gives what attention over the masked batch gives, and no request sees another's NaN."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from workers.gpu.engine.attention import attend

HEADS, KEY_HEADS, SIZE = 4, 2, 16
MODULE: Any = SimpleNamespace(layer_idx=0, num_key_value_groups=HEADS // KEY_HEADS, training=False, is_causal=True)

# Queries and keys of each request: some that read their prompt, some that generate, with short and long contexts.
MIXED = [(1, 9), (5, 5), (1, 1), (3, 12), (1, 40)]
GENERATING = [(1, 9), (1, 3), (1, 17)]
ONE = [(1, 9)]


class Cache:
    """Keys and values are there already."""

    def update(self, *, key_states: Tensor, value_states: Tensor, layer_idx: int, kwargs: Any) -> tuple[Tensor, Tensor]:
        return key_states, value_states


def batch(requests: list[tuple[int, int]], *, boolean: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]:
    chance = torch.Generator().manual_seed(7)
    queries, keys = (sum(request[part] for request in requests) for part in (0, 1))
    query = torch.randn(1, HEADS, queries, SIZE, generator=chance)
    key, value = (torch.randn(1, KEY_HEADS, keys, SIZE, generator=chance) for _ in range(2))
    seen = torch.zeros(1, 1, queries, keys, dtype=torch.bool)
    ends_q, ends_k = [0], [0]
    for own_queries, own_keys in requests:
        for number in range(own_queries):
            end = ends_k[-1] + own_keys - own_queries + number + 1
            # The oldest key is out of sight, as with a sliding window.
            seen[0, 0, ends_q[-1] + number, min(ends_k[-1] + 1, end - 1) : end] = True
        ends_q.append(ends_q[-1] + own_queries)
        ends_k.append(ends_k[-1] + own_keys)
    mask = seen if boolean else torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    # The manager's lists of ends may be longer than the batch.
    ends = {"cu_seq_lens_q": torch.tensor([*ends_q, ends_q[-1]]), "cu_seq_lens_k": torch.tensor([*ends_k, ends_k[-1]])}
    return query, key, value, mask, ends


@pytest.mark.parametrize("requests", [MIXED, GENERATING, ONE], ids=["mixed", "generating", "one"])
@pytest.mark.parametrize("boolean", [True, False])
def test_the_same_as_over_the_masked_batch(requests: list[tuple[int, int]], boolean: bool) -> None:
    query, key, value, mask, ends = batch(requests, boolean=boolean)
    together, _ = sdpa_attention_forward(MODULE, query, key, value, mask, scaling=0.25)
    apart, _ = attend(MODULE, query, key, value, mask, cache=Cache(), scaling=0.25, **ends)
    torch.testing.assert_close(apart, together, atol=1e-5, rtol=1e-5)


def test_what_one_request_has_spoilt_spoils_no_other() -> None:
    query, key, value, mask, ends = batch(MIXED, boolean=False)
    value[:, :, 8] = float("nan")  # the last key of the first request
    answer, _ = attend(MODULE, query, key, value, mask, cache=Cache(), scaling=0.25, **ends)
    assert answer[0, 0].isnan().all()
    assert answer[0, 1:].isfinite().all()
