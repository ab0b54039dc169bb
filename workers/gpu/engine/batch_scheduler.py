"""Batch scheduler: prefill and decode in steps of their own, with decode steps prepared and processed as arrays.

In one step with prefill, decoding requests would have their whole cache copied together; in a step of their own the kernel
reads it in place. And a Python loop over all requests, several times a step, takes longer than a small model's step takes
the GPU.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from workers.gpu.engine.decode_batch import INVALID_TOKEN, DecodeBatch
from workers.gpu.engine.graph_sizes import CACHE_READ, GraphSizes
from workers.gpu.engine.messages import FinishedRequest, FinishReason

if TYPE_CHECKING:  # torch takes seconds to import, and this module needs only its types
    from workers.gpu.engine.transformers_patches import BatchingBackend

# Prompt tokens in one step while other requests decode. Fewer shorten the pause in running generations, and lengthen
# everything else: see docs/performance.md.
MAX_PREFILL_TOKENS = 8192


class DeliverStep(Protocol):
    """Receives the output of a step: one token for each of ``ids``, then the requests that finished."""

    def __call__(self, ids: list[str], tokens: list[int], finished: list[FinishedRequest], *, first: bool) -> None: ...


@dataclass
class _RunningStep:
    """The requests of a step whose output has not been processed."""

    rows: NDArray[np.intp]
    serials: NDArray[np.int64]
    is_last: NDArray[np.bool_]
    is_prefill: bool
    filled: list[tuple[Any, dict[str, int]]] = field(default_factory=list)
    """Requests, with the pages of their prompts that this step fills."""


class BatchScheduler:
    """Prepares the steps of a batching backend whose attention reads cache pages, and processes their output."""

    def __init__(self, backend: "BatchingBackend", sizes: GraphSizes, deliver: DeliverStep) -> None:
        self._backend, self._sizes, self._deliver = backend, sizes, deliver
        self.batch = DecodeBatch(backend.max_requests, backend.max_pages, backend.spare_page)
        self._running: list[_RunningStep | None] = [None] * len(backend.buffers)
        self._partial: list[Any] = []
        """Requests whose prompt is longer than a step, and those that lacked space for the rest of it."""
        self._decode_next = False

    # Preparing a step

    def prepare_step(self) -> bool:
        """Prepare the next step; returns False if there is nothing to do."""
        if self._backend.is_stopping():
            return False
        cancelled = self._backend.take_cancelled()
        for id in cancelled:
            self.batch.remove_request(id)
        self._partial = [state for state in self._partial if state.request_id not in cancelled]
        if self._prepare_next():
            return True
        # No step follows the running one, so its output has to be processed here.
        if self._process_running():
            return self._prepare_next()
        return False

    def _prepare_next(self) -> bool:
        waiting = bool(self._partial or self._backend.has_waiting())
        if waiting and not (self._decode_next and len(self.batch)) and self._prepare_prefill():
            self._decode_next = True
            return True
        self._decode_next = False
        if len(self.batch):
            self._prepare_decode()
            return True
        return waiting and self._prepare_prefill()

    def _prepare_prefill(self) -> bool:
        backend = self._backend
        budget = min(MAX_PREFILL_TOKENS, backend.max_batch_tokens) if len(self.batch) else backend.max_batch_tokens
        candidates = self._select_prompts(budget)
        for _ in range(2):
            requests, starved, tokens, cache_read = backend.schedule_prefill(candidates, budget)
            if requests or not starved:
                break
            backend.free_unused_blocks(-(-budget // backend.page_size))
        # A request that took its shared pages and then found no space for the rest has left the waiting line too.
        partial = [state for state in candidates if backend.is_partial(state)]
        self._partial = partial + [state for state in self._partial if state not in candidates]
        if not requests:
            return False
        if backend.is_padded:
            tokens = self._sizes.pad_prefill(tokens)
            cache_read = min(-(-cache_read // CACHE_READ) * CACHE_READ, backend.max_cache_read)
        backend.fill_prefill(requests, tokens, cache_read)
        self.batch.output_index.fill(-1)
        rows = [self._start_decoding(request.state) for request in requests if request.has_new_token]
        self.batch.output_index[rows] = np.arange(len(rows), dtype=np.int32)
        filled = [(request.state, request.complete_blocks) for request in requests if request.complete_blocks]
        self._remember_step(np.array(rows, np.intp), filled, is_prefill=True)
        return True

    def _select_prompts(self, budget: int) -> list[Any]:
        """The next prompts that fit into a step as a whole; a longer one comes alone, in parts.

        A part makes the step after it read from the cache, and a step of that size has no graph.
        """
        selected: list[Any] = []
        for state in (*self._partial, *self._backend.waiting()):
            budget -= len(state.remaining_prefill_tokens)
            if len(selected) == self.batch.free_rows or (budget < 0 and selected):
                break
            selected.append(state)
        return selected

    def _start_decoding(self, state: Any) -> int:
        """Give a request a row and all pages that its output may fill; the admission queue has reserved them."""
        if not self._backend.reserve_tokens(state, state.max_new_tokens - 1):
            raise RuntimeError("the KV cache has no space for a request that was admitted")
        return self.batch.add_row(self._backend.decode_request(state), self._backend.pages(state))

    def _prepare_decode(self) -> None:
        backend, batch = self._backend, self.batch
        output_index = batch.output_index.copy()
        active = batch.advance()
        padded = self._sizes.pad_decode(len(active)) if backend.is_padded else len(active)
        backend.set_sampling(bool(batch.sampling[0, active].any()))
        backend.buffers[backend.current].fill_decode(batch, active, output_index[active], padded)
        self._remember_step(active, [], is_prefill=False)

    def _remember_step(self, rows: NDArray[np.intp], filled: list[tuple[Any, dict[str, int]]], *, is_prefill: bool) -> None:
        batch = self.batch
        step = _RunningStep(rows, batch.serial[rows], batch.remaining[rows] <= 0, is_prefill, filled)
        self._running[self._backend.current] = step

    # Processing its output

    def _process_running(self) -> bool:
        backend = self._backend
        if len(backend.buffers) == 1 or self._running[1 - backend.current] is None:
            return False
        backend.swap_buffers()
        try:
            self.process_output()
        finally:
            backend.swap_buffers()
        return True

    def process_output(self) -> None:
        """Process the tokens of the previous step, waiting for the device if need be."""
        backend, batch = self._backend, self.batch
        step, self._running[backend.current] = self._running[backend.current], None
        if step is None:
            return
        backend.wait_for_output()
        tokens = backend.buffers[backend.current].output[: len(step.rows)].copy()
        for state, blocks in step.filled:
            if backend.is_active(state):
                backend.mark_prefilled(state, blocks)
                batch.set_pages(state.request_id, backend.pages(state))
        alive = batch.serial[step.rows] == step.serials
        rows, tokens, is_last = step.rows[alive], tokens[alive], step.is_last[alive]
        batch.last_token[rows] = tokens
        ends = is_last | (tokens == INVALID_TOKEN)
        for stop in batch.stop_token_ids:
            ends |= tokens == stop
        ids, values = [], []
        for row, token, end in zip(rows.tolist(), tokens.tolist(), ends.tolist(), strict=True):
            request = batch.requests[row]
            assert request is not None
            if not end or (token != INVALID_TOKEN and token not in request.stop_token_ids):
                request.state.generated_tokens.append(token)
                ids.append(request.id)
                values.append(token)
        finished = [self._finish(int(rows[at]), int(tokens[at]), is_last=bool(is_last[at])) for at in ends.nonzero()[0]]
        if ids or finished:
            self._deliver(ids, values, [end for end in finished if end is not None], first=step.is_prefill)

    def _finish(self, row: int, token: int, *, is_last: bool) -> FinishedRequest | None:
        request = self.batch.requests[row]
        assert request is not None
        reason: FinishReason = "length"
        detail = ""
        if token == INVALID_TOKEN:
            position = len(request.state.initial_tokens) + len(request.state.generated_tokens)
            reason, detail = "nan_logits", f"NaN or infinite logits after {position} tokens"
        elif token in request.stop_token_ids:
            reason = "stop"
        elif not is_last:
            return None  # a stop token of another request
        self._backend.finish_request(request.state, poisoned=reason == "nan_logits")
        self.batch.remove_request(request.id)
        return request.id, reason, detail
