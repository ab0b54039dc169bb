"""Graph runner: runs scheduled steps as CUDA graphs of padded sizes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workers.gpu.engine.adjusted_sampling import PinnedCopier, sample_adjusted, warm_up_adjusted
from workers.gpu.engine.adjustments import Adjustments
from workers.gpu.engine.arrays import Integers
from workers.gpu.engine.cache_size import PAGE_TOKENS
from workers.gpu.engine.logprobs import ScoreTensors, score_tokens
from workers.gpu.engine.model_runner import Forward, RowState, StartedStep, score_step, to_device, to_host, token_scores
from workers.gpu.engine.page_cache import SPARE_PAGE
from workers.gpu.engine.paged_attention import FlashAttention, FlashStep
from workers.gpu.engine.resampling_graph import ResamplingGraph, ResamplingMemory
from workers.gpu.engine.sampling import sample_tokens
from workers.gpu.engine.scheduler import MAX_SCORED_TOKENS
from workers.gpu.engine.step import SAMPLING_FIELDS, StepInput, StepResult
from workers.gpu.engine.step_sizes import StepSizes

# Host buffers take turns: one is filled again only after the step that read it has ended.
BUFFERS = 3
# Decode steps of up to this many requests have a second graph, for contexts longer than MIN_SPLIT_CONTEXT.
MAX_SPLIT_REQUESTS, MIN_SPLIT_CONTEXT = 32, 2048


class GraphRunner:
    """Runs steps as CUDA graphs of padded sizes, with one copy to the device, and without waiting for it."""

    def __init__(
        self, forward: Forward, attention: FlashAttention, max_requests: int, max_pages: int, max_tokens: int, device: Any
    ) -> None:
        self._forward, self._attention, self._device = forward, attention, device
        self._state = RowState(max_requests, max_pages, device)
        self._tables = torch.zeros(max_requests + 1, max_pages, dtype=torch.int32, device=device)
        self.sizes = StepSizes(max_tokens, max_requests)
        length = _layout(max_tokens, max_requests + 1)[1]
        self._input = torch.zeros(length, dtype=torch.int32, device=device)
        self._host_inputs = [torch.zeros(length, dtype=torch.int32).pin_memory() for _ in range(BUFFERS)]
        self._host_tokens = [torch.zeros(max_requests + 1, dtype=torch.long).pin_memory() for _ in range(BUFFERS)]
        self._graphs: dict[tuple[int, int, bool], tuple[torch.cuda.CUDAGraph, _Output]] = {}
        self._resampling: dict[tuple[int, int, bool], ResamplingGraph] = {}
        self._resampling_memory: ResamplingMemory | None = None
        self._pool: Any = None
        # One stream for all captures: each stream keeps the memory that it has used.
        self._side_stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._buffer = 0
        self.copy = PinnedCopier(device, BUFFERS)

    @torch.inference_mode()
    def start_step(self, step: StepInput) -> StartedStep:
        # Threads begin with device 0, which is that of another rank.
        torch.cuda.set_device(self._device)
        self._state.set_tables(step)
        for row, _ in step.tables:
            self._tables[row].copy_(torch.from_numpy(self._state.tables[row]), non_blocking=True)
        self._attention.zero_pages(step.zeroed)
        requests = len(step.rows)
        size = self.sizes.pad(len(step.ids), requests)
        used = self._fill(step, *size)
        self._buffer = (self._buffer + 1) % BUFFERS
        source, target = self._host_inputs[self._buffer], self._host_tokens[self._buffer]
        self._input[:used].copy_(source[:used], non_blocking=True)
        splits = self._needs_splits(*size, int(step.contexts.max()))
        graph = self._graphs.get((*size, splits))
        resampling = None
        if graph is None or len(step.scored):
            scored = to_device(step.scored, self._device).long() if len(step.scored) else None
            output = self._compute(*size, splits=splits, scored=scored)
        else:
            graph[0].replay()
            output = graph[1]
            resampling = self._resampling.get((*size, splits))
        started = _GraphStep(self, step, size, output, target, resampling)
        if not step.is_adjusted:
            started.complete()
        return started

    def keep_tokens(self, output: "_Output") -> None:
        """Make these the last tokens of their rows."""
        self._state.last_tokens.index_copy_(0, output.rows, output.tokens)

    def contexts(self, size: tuple[int, int]) -> Tensor:
        """The contexts of the step that is in the input buffer."""
        return self._input[_layout(*size)[0][_CONTEXTS]]

    @torch.inference_mode()
    def capture_graphs(self, report: Callable[[str, float], None]) -> int:
        """Capture a graph of each padded size, and return their number. Before the first request: it computes padding."""
        sizes = [(*size, splits) for size in self.sizes.all() for splits in self._split_choices(size)]
        for done, (tokens, requests, splits) in enumerate(sizes):
            report(f"capturing graphs: {tokens} tokens of {requests} requests", done / len(sizes))
            self._fill_padding(tokens, requests)
            self._capture(tokens, requests, splits=splits)
        for (size, requests, _), (_, output) in self._graphs.items():
            if requests > 1:
                warm_up_adjusted(output.logits, output.tokens, self.contexts((size, requests)), self.copy)
                break
        for key, (_, output) in self._graphs.items():
            if key[0] == key[1]:
                self._resampling[key] = self._capture_resampling(key[:2], output)
        torch.cuda.empty_cache()
        return len(sizes)

    def _capture_resampling(self, size: tuple[int, int], output: "_Output") -> ResamplingGraph:
        if self._resampling_memory is None:
            self._resampling_memory = ResamplingMemory(self.sizes.max_decode, output.logits.shape[1], self._device)
        positions, last_tokens = self.contexts(size), self._state.last_tokens
        return ResamplingGraph(
            self._resampling_memory,
            *(output.logits, output.tokens, positions, output.rows, last_tokens),
            *(self._pool, self._side_stream),
        )

    @torch.inference_mode()
    def run_largest_step(self) -> None:
        """Run a step of the largest size without a graph, and one that scores prompt tokens. They compute padding."""
        size = next(self.sizes.all())
        self._fill_padding(*size)
        self._compute(*size, splits=False)
        scored = torch.zeros(MAX_SCORED_TOKENS, dtype=torch.long, device=self._device)
        output = self._compute(*size, splits=False, scored=scored)
        score_tokens(output.logits, torch.arange(MAX_SCORED_TOKENS, device=self._device), scored, 1)

    def _split_choices(self, size: tuple[int, int]) -> tuple[bool, ...]:
        longest = self._tables.shape[1] * PAGE_TOKENS
        return (False, True) if self._needs_splits(*size, longest) else (False,)

    @staticmethod
    def _needs_splits(tokens: int, requests: int, longest: int) -> bool:
        """Whether a context is long, and the queries few: then several blocks read it, and combining their results pays off."""
        return tokens == requests <= MAX_SPLIT_REQUESTS and longest > MIN_SPLIT_CONTEXT

    def _capture(self, tokens: int, requests: int, *, splits: bool) -> None:
        side = self._side_stream
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            # What a kernel compiles or allocates on its first use must not happen inside the capture.
            self._compute(tokens, requests, splits=splits)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=side):
            output = self._compute(tokens, requests, splits=splits)
        self._pool = self._pool or graph.pool()
        self._graphs[tokens, requests, splits] = (graph, replace(output, logits=_borrow(output.logits)))

    def _fill(self, step: StepInput, tokens: int, requests: int) -> int:
        """Write a padded step to the next host buffer and return the length that it uses. Padding belongs to the spare row."""
        views, used = _layout(tokens, requests)
        buffer = self._host_inputs[(self._buffer + 1) % BUFFERS].numpy()
        ids, positions, slots, ends, context_ends, contexts, last, rows, *sampling = (buffer[view] for view in views)
        real_tokens, real = len(step.ids), len(step.rows)
        ids[:real_tokens], ids[real_tokens:] = step.ids, 0
        padding = np.arange(tokens - real_tokens, dtype=np.int32)
        slots[:real_tokens], slots[real_tokens:] = step.slots, SPARE_PAGE * PAGE_TOKENS + padding % PAGE_TOKENS
        ends[0] = context_ends[0] = 0
        np.cumsum(step.query_lengths, out=ends[1 : real + 1])
        last[:real], last[real:] = ends[1 : real + 1] - 1, 0
        contexts[:real], contexts[real:] = step.contexts, 1
        rows[:real], rows[real:] = step.rows, self._state.spare_row
        positions[:real_tokens], positions[real_tokens:] = step.positions, 0
        if tokens == requests:
            ends[real + 1 :] = real_tokens + 1 + padding
        elif requests > real:
            # One request has all the padding: rows of no request would stay uninitialized, perhaps NaN, and reach the cache.
            positions[real_tokens:] = padding
            ends[real + 1 :] = tokens
            contexts[real] = max(len(padding), 1)
        np.cumsum(contexts, out=context_ends[1:])
        for target, source in zip(sampling, step.sampling, strict=True):
            target[:real], target[real:] = source, 0
        return used

    def _fill_padding(self, tokens: int, requests: int) -> None:
        empty = np.zeros(0, np.int32)
        step = StepInput(empty, empty, empty, empty, empty, empty, np.zeros((SAMPLING_FIELDS, 0), np.int32))
        used = self._fill(step, tokens, requests)
        self._input[:used].copy_(self._host_inputs[(self._buffer + 1) % BUFFERS][:used])

    def _compute(self, tokens: int, requests: int, *, splits: bool, scored: Tensor | None = None) -> "_Output":
        """Run a step of this padded size from the input buffer. The logits are followed by those after the tokens at ``scored``."""
        views, _ = _layout(tokens, requests)
        ids, positions, slots, ends, context_ends, contexts, last, rows, *sampling = (self._input[view] for view in views)
        index = rows.long()
        is_decode = tokens == requests
        self._attention.step = FlashStep(
            slots.long(),
            ends,
            context_ends,
            contexts,
            self._tables[index],
            1 if is_decode else tokens,
            self._tables.shape[1] * PAGE_TOKENS,
            0 if splits else 1,
        )
        wanted = last.long() if scored is None else torch.cat([last.long(), scored])
        logits = self._forward(self._state.resolve(ids.long()), positions.long(), wanted)
        sampled = sample_tokens(logits if scored is None else logits[:requests], torch.stack(sampling), contexts)
        self._state.last_tokens[index] = sampled
        return _Output(sampled, index, logits)


@dataclass(frozen=True)
class _Output:
    """What a padded step over R requests has computed: their ``tokens`` (R), in these ``rows`` (R), and ``logits`` (R, vocabulary)."""

    tokens: Tensor
    rows: Tensor
    logits: Tensor


class _GraphStep:
    """A step of ``GraphRunner``. Its logits are those of the graph, which the next step overwrites."""

    def __init__(
        self,
        runner: GraphRunner,
        step: StepInput,
        size: tuple[int, int],
        output: _Output,
        target: Tensor,
        resampling: ResamplingGraph | None,
    ) -> None:
        self._runner, self._step, self._size, self._target = runner, step, size, target
        self._resampling = resampling
        self._output: _Output | None = output
        self._scores: list[ScoreTensors | None] = []
        self._done: Any = None
        self.mask_rows = runner.copy.mask_rows

    @torch.inference_mode()
    def adjust(self, adjustments: Adjustments) -> None:
        output = self._output
        assert output is not None
        if self._resampling is not None and self._resampling.can_run(adjustments):
            self._target = self._resampling.run(adjustments)
            self._finish(output)
            return
        sample_adjusted(output.logits, output.tokens, self._runner.contexts(self._size), adjustments, self._runner.copy)
        self._runner.keep_tokens(output)
        self.complete()

    def complete(self) -> None:
        """Start to copy what was sampled to the host."""
        output = self._output
        assert output is not None
        self._target[: len(output.tokens)].copy_(output.tokens, non_blocking=True)
        self._finish(output)

    def _finish(self, output: _Output) -> None:
        self._output = None
        self._scores = [to_host(each) for each in score_step(self._step, output.logits, output.tokens, self._size[1])]
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._done.record()

    def result(self) -> StepResult:
        self._done.synchronize()
        tokens: Integers = self._target[: len(self._step.rows)].numpy().astype(np.int32)
        return StepResult(tokens, *(token_scores(each) for each in self._scores))


class _SharedMemory:
    """Describes a tensor's memory to torch, which makes another tensor over it that does not own it."""

    def __init__(self, tensor: Tensor) -> None:
        kind = {1: "|u1", 2: "<i2", 4: "<i4"}[tensor.element_size()]
        self.__cuda_array_interface__ = {
            "shape": tuple(tensor.shape),
            "typestr": kind,
            "data": (tensor.data_ptr(), False),
            "version": 2,
        }


def _borrow(tensor: Tensor) -> Tensor:
    """A tensor over the same memory that later graphs may use for something else.

    The logits of a graph are valid until the next graph runs. Were they kept, no graph could share the memory of another's.
    """
    if not tensor.is_contiguous():
        return tensor
    return torch.as_tensor(_SharedMemory(tensor), device=tensor.device).view(tensor.dtype)


# Of the parts that ``_layout`` describes.
_CONTEXTS = 5


def _layout(tokens: int, requests: int) -> tuple[list[slice], int]:
    """Where the parts of a step are in one buffer: ids, positions and slots; query ends and context ends; contexts, last indices,
    rows and the sampling parameters. Aligned to 16 bytes."""
    views, offset = [], 0
    for size in (tokens, tokens, tokens, requests + 1, requests + 1, *(requests for _ in range(3 + SAMPLING_FIELDS))):
        views.append(slice(offset, offset + size))
        offset += (size + 3) // 4 * 4
    return views, offset
