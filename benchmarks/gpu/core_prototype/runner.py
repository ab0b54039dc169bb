"""Runs steps from host arrays: one copy to the device, one CUDA graph per padded size, tokens read one step late."""

from bisect import bisect_left

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.gpu.core_prototype.model import MAX_CONTEXT, PAGE, PagedLlama, Step

Array = NDArray[np.int32]

TOKEN_SIZES = (1, 2, 4, 8, *range(16, 129, 16), *range(160, 513, 32), *range(576, 1025, 64), *range(1152, 2049, 128))
TOKEN_SIZES_OVER_2048 = (*range(2304, 4097, 256), *range(4608, 8193, 512))
REQUEST_SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 448, 512)
# A host buffer is refilled only after the step that read it has ended; two steps are under way at most.
BUFFERS = 3


class StepRunner:
    """Up to ``requests`` requests and ``budget`` tokens per step; ``graphs`` replays CUDA graphs instead of launching kernels.

    A token id below zero stands for the token that row ``-1 - id`` drew last, which stays on the device.
    """

    def __init__(self, model: PagedLlama, requests: int, budget: int, *, graphs: bool = True) -> None:
        self.model, self.requests, self.budget, self._use_graphs = model, requests, budget, graphs
        largest = budget + requests
        self._token_sizes = [*(size for size in (*TOKEN_SIZES, *TOKEN_SIZES_OVER_2048) if size < largest), largest]
        self._request_sizes = [size for size in REQUEST_SIZES if size <= requests]
        self.pages_per_row = MAX_CONTEXT // PAGE
        length = 4 * (largest + 2 * requests) + 64
        self._device = torch.zeros(length, dtype=torch.int32, device="cuda")
        self._host = [torch.zeros(length, dtype=torch.int32).pin_memory() for _ in range(BUFFERS)]
        self.tokens = [torch.zeros(requests, dtype=torch.int64).pin_memory() for _ in range(BUFFERS)]
        self._row_tokens = torch.zeros(requests + 1, dtype=torch.int64, device="cuda")
        self.page_table = torch.zeros(requests, self.pages_per_row, dtype=torch.int32, device="cuda")
        self._captured: dict[tuple[int, int, bool], tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._pool: tuple[int, int] | None = None
        self._buffer = 0

    def run_step(
        self, ids: Array, positions: Array, slots: Array, query_lengths: Array, contexts: Array, rows: Array
    ) -> tuple[torch.cuda.Event, int]:
        """Start a step over the concatenated tokens of its requests. Returns an event and which of ``tokens`` it fills."""
        tokens, requests = len(ids), len(query_lengths)
        decode = tokens == requests
        padded_requests = self._request_sizes[bisect_left(self._request_sizes, requests)]
        padded_tokens = padded_requests if decode else self._token_sizes[bisect_left(self._token_sizes, tokens)]
        host = self._host[self._buffer].numpy()
        views, used = _lay_out(padded_tokens, padded_requests)
        ids_, positions_, slots_, ends_, contexts_, last_, rows_ = (host[view] for view in views)
        for target, source, fill in ((ids_, ids, 0), (positions_, positions, 0), (slots_, slots, -1)):
            target[:tokens], target[tokens:] = source, fill
        for target, source, fill in ((contexts_, contexts, 1), (rows_, rows, self.requests)):
            target[:requests], target[requests:] = source, fill
        ends_[0] = 0
        np.cumsum(query_lengths, out=ends_[1 : requests + 1])
        # Padding requests have one token each in a decode step, none in a mixed one.
        ends_[requests + 1 :] = ends_[requests] + (np.arange(1, padded_requests - requests + 1) if decode else 0)
        last_[:requests], last_[requests:] = ends_[1 : requests + 1] - 1, 0
        self._device[:used].copy_(self._host[self._buffer][:used], non_blocking=True)
        drawn = self._launch(padded_tokens, padded_requests, decode)
        buffer = self._buffer
        self.tokens[buffer][:padded_requests].copy_(drawn, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._buffer = (self._buffer + 1) % BUFFERS
        return event, buffer

    def _launch(self, tokens: int, requests: int, decode: bool) -> Tensor:
        if not self._use_graphs:
            return self._forward(tokens, requests, decode)
        key = (tokens, requests, decode)
        if key not in self._captured:
            self._capture(key)
        graph, drawn = self._captured[key]
        graph.replay()
        return drawn

    def _capture(self, key: tuple[int, int, bool]) -> None:
        before = self._row_tokens.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._forward(*key)
        torch.cuda.current_stream().wait_stream(side)
        self._row_tokens.copy_(before)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            drawn = self._forward(*key)
        self._pool = self._pool or graph.pool()
        self._captured[key] = (graph, drawn)
        torch.cuda.synchronize()

    def _forward(self, tokens: int, requests: int, decode: bool) -> Tensor:
        views, _ = _lay_out(tokens, requests)
        ids, positions, slots, ends, contexts, last, rows = (self._device[view] for view in views)
        wide, row = ids.long(), rows.long()
        filled = torch.where(wide >= 0, wide, self._row_tokens[(-1 - wide).clamp(min=0)])
        pages = self.page_table[row.clamp(max=self.requests - 1)]
        step = Step(positions, slots, ends, contexts, pages, last.long(), 1 if decode else self.budget)
        drawn = self.model.logits(filled, step).argmax(-1)
        self._row_tokens[row] = drawn
        return drawn


def _lay_out(tokens: int, requests: int) -> tuple[list[slice], int]:
    """Where ids, positions, slots, query ends, contexts, last indices and rows are in one int32 buffer, aligned to 16 bytes."""
    views, offset = [], 0
    for size in (tokens, tokens, tokens, requests + 1, requests, requests, requests):
        views.append(slice(offset, offset + size))
        offset += (size + 3) // 4 * 4
    return views, offset
