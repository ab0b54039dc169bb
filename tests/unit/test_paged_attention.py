"""Attention over pages equals attention of each request over its own keys, with windows and softcaps, and never reads another's."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from workers.gpu.engine.paged_attention import LayerShape, SdpaAttention
from workers.gpu.engine.step import SAMPLING_FIELDS, StepInput

HEADS, KEY_HEADS, SIZE, PAGE, PAGES = 4, 2, 16, 4, 40
MODULE: Any = SimpleNamespace(layer_idx=0)

# Queries and tokens in the cache after the step: chunks at the start and later, and single tokens of short and long contexts.
MIXED = [(1, 9), (5, 5), (1, 1), (3, 12), (1, 33)]
SINGLE = [(1, 9), (1, 3), (1, 17)]


class Batch:
    """Random keys and values of each request, of which all but the step's own are in the cache already."""

    def __init__(self, requests: list[tuple[int, int]]) -> None:
        generator = torch.Generator().manual_seed(7)
        self.requests = requests
        self.keys = [torch.randn(context, KEY_HEADS, SIZE, generator=generator) for _, context in requests]
        self.values = [torch.randn(context, KEY_HEADS, SIZE, generator=generator) for _, context in requests]
        self.queries = [torch.randn(length, HEADS, SIZE, generator=generator) for length, _ in requests]
        # Pages in an order that no request could guess.
        pages = np.random.default_rng(3).permutation(PAGES - 1) + 1
        self.table = np.zeros((len(requests), 10), np.int32)
        for row, (_, context) in enumerate(requests):
            needed = -(-context // PAGE)
            self.table[row, :needed], pages = pages[:needed], pages[needed:]

    def attend(self, **options: Any) -> list[Tensor]:
        attention = SdpaAttention()
        attention.allocate({0: LayerShape(KEY_HEADS, SIZE, SIZE)}, PAGES, PAGE, dtype=torch.float32, device="cpu")
        slots = []
        for row, (length, context) in enumerate(self.requests):
            places = np.arange(context)
            own = torch.from_numpy(self.table[row, places // PAGE].astype(np.int64) * PAGE + places % PAGE)
            for cached, states in ((attention.keys[0], self.keys[row]), (attention.values[0], self.values[row])):
                cached.flatten(0, 1)[own[: context - length]] = states[: context - length]
            slots.append(own[context - length :])
        lengths, contexts = (np.array(numbers, np.int32) for numbers in zip(*self.requests, strict=True))
        empty, sampling = np.zeros(0, np.int32), np.zeros((SAMPLING_FIELDS, 0), np.int32)
        rows = np.arange(len(self.requests), dtype=np.int32)
        attention.begin_step(StepInput(empty, empty, empty, lengths, contexts, rows, sampling), self.table, torch.cat(slots))
        new_keys, new_values = (
            torch.cat([each[context - length :] for each, (length, context) in zip(states, self.requests, strict=True)])
            for states in (self.keys, self.values)
        )
        query, key, value = (states.transpose(0, 1)[None] for states in (torch.cat(self.queries), new_keys, new_values))
        output, _ = attention.attend(MODULE, query, key, value, None, scaling=0.25, **options)
        return list(output[0].split(lengths.tolist()))

    def expected(self, row: int, *, sliding_window: int | None = None, softcap: float | None = None) -> Tensor:
        length, context = self.requests[row]
        key, value = (states[row].repeat_interleave(HEADS // KEY_HEADS, dim=1) for states in (self.keys, self.values))
        scores = torch.einsum("qhd,khd->hqk", self.queries[row], key) * 0.25
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        at, keys = torch.arange(context - length, context)[:, None], torch.arange(context)
        visible = keys <= at
        if sliding_window is not None:
            visible &= keys > at - sliding_window
        return torch.einsum("hqk,khd->qhd", scores.masked_fill(~visible, -torch.inf).softmax(-1), value)


@pytest.mark.parametrize("requests", [MIXED, SINGLE, [(1, 9)], [(7, 7)]], ids=["mixed", "single", "one", "prompt"])
@pytest.mark.parametrize("options", [{}, {"sliding_window": 3}, {"sliding_window": 100}, {"softcap": 2.0}], ids=str)
def test_each_request_attends_to_its_own_pages(requests: list[tuple[int, int]], options: dict[str, Any]) -> None:
    batch = Batch(requests)
    for row, output in enumerate(batch.attend(**options)):
        torch.testing.assert_close(output, batch.expected(row, **options), atol=1e-5, rtol=1e-5)


def test_nan_in_one_request_does_not_reach_another() -> None:
    batch = Batch(MIXED)
    batch.values[0][2] = torch.nan
    first, *others = batch.attend()
    assert first.isnan().all()
    assert all(output.isfinite().all() for output in others)


def test_zeroed_pages_are_zero_in_every_layer() -> None:
    attention = SdpaAttention()
    shapes = {0: LayerShape(1, 2, 3), 5: LayerShape(2, 4, 4)}
    attention.allocate(shapes, 3, PAGE, dtype=torch.float32, device="cpu")
    for cached in (*attention.keys.values(), *attention.values.values()):
        cached.fill_(torch.nan)
    attention.zero_pages([0, 2])
    for cached in (*attention.keys.values(), *attention.values.values()):
        assert cached[[0, 2]].eq(0).all()
        assert cached[1].isnan().all()
