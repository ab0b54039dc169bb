"""The manager's steps, made anew: prompts in steps of their own, and answers prepared and taken up as arrays.

In one step with prompts, answers would have their whole cache copied together; in a step of their own the kernel reads it
where it lies. And a loop in Python over all requests, several times a step, takes longer than a small model's step takes
the GPU. It knows nothing of jobs, text, or who asked.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from transformers.generation.continuous_batching.requests import RequestStatus
from transformers.generation.continuous_batching.utils import stream_context

from workers.gpu.engine.decode_batch import DecodeBatch
from workers.gpu.engine.graph_sizes import CACHE_READ, GraphSizes
from workers.gpu.engine.messages import FinishReason
from workers.gpu.engine.sampling import POSITION, SamplingProcessors

INVALID_TOKEN = -1
"""In place of a token that could not be taken: the largest of its scores is NaN or infinite."""

# Tokens of prompts in one step while answers wait for the next. Smaller waves shorten the pause in running answers, and
# lengthen everything else: see docs/performance.md.
MAX_PREFILL_TOKENS = 8192


class Delivery(Protocol):
    """Takes what a step gave: numbers and a token for each of them, then the ends as number, reason, detail."""

    def __call__(self, ids: list[str], tokens: list[int], ends: list[tuple[str, FinishReason, str]], *, first: bool) -> None: ...


@dataclass
class _Prepared:
    """What one step is for, until its tokens have come."""

    rows: NDArray[np.intp]
    serials: NDArray[np.int64]
    last: NDArray[np.bool_]
    begins: bool
    read: list[tuple[Any, dict[str, int]]] = field(default_factory=list)
    """Requests with the pages of their prompts that this step has filled."""


class BatchScheduler:
    """Takes the place of ``prepare_next_batch`` and ``update_batch`` of a batch processor whose kernel reads pages."""

    def __init__(self, processor: Any, processors: SamplingProcessors, shapes: GraphSizes, deliver: Delivery) -> None:
        self._processor, self._processors, self._shapes, self._deliver = processor, processors, shapes, deliver
        self._cache, self._scheduler, self._io = processor.cache, processor.scheduler, processor.inputs_and_outputs
        (self._allocator,) = self._cache.cache_allocators.values()
        self._stride = self._allocator.block_physical_stride // self._allocator.tokens_per_page
        self._spare = self._allocator.write_trash_index // self._allocator.tokens_per_page
        most = processor.cb_config.max_requests_per_batch
        self.rows = DecodeBatch(most, self._cache.max_blocks_per_request, self._spare)
        self.hosts = [_Host(pair.host_io) for pair in getattr(self._io, "io_pairs", ())] or [_Host(self._io)]
        self._pending: list[_Prepared | None] = [None] * len(self.hosts)
        self._unread: list[Any] = []
        self._answers_next = False
        self._count = np.arange(max(most, self._cache.max_batch_tokens) + 1, dtype=np.int32)

    # Preparing

    def prepare(self) -> bool:
        """Whether there is a step to make, which is then prepared."""
        if self._processor._update_tp_group_state():
            return False
        # In an order that is the same in every rank: rows that become free must do so alike.
        for state in sorted(self._scheduler.clear_cancelled_requests(), key=lambda state: int(state.request_id)):
            self.rows.drop(state.request_id)
            self._processor.offloading_manager.free_request_cpu_cache(state)
            self._unread = [one for one in self._unread if one is not state]
        if self._prepare_next():
            return True
        # Nothing follows the step under way, so nothing else would take it up.
        if self._flush():
            return self._prepare_next()
        return False

    def _prepare_next(self) -> bool:
        waiting = bool(self._unread or self._scheduler.waiting_requests)
        if waiting and not (self._answers_next and len(self.rows)) and self._prepare_prompts():
            self._answers_next = True
            return True
        self._answers_next = False
        if len(self.rows):
            self._prepare_answers()
            return True
        return waiting and self._prepare_prompts()

    def _prepare_prompts(self) -> bool:
        scheduler, cache = self._scheduler, self._cache
        budget = min(MAX_PREFILL_TOKENS, cache.max_batch_tokens) if len(self.rows) else cache.max_batch_tokens
        candidates = self._whole_prompts(budget)
        for _ in range(2):
            gone: set[str] = set()
            requests, starved, _, tokens, read = scheduler._process_candidates(candidates, budget, cache.max_tokens_read, gone)
            scheduler._cleanup_waiting_queue(gone)
            if requests or not starved:
                break
            self._make_room(-(-budget // self._allocator.tokens_per_page))
        # Some may have taken their shared pages and then found no room for the rest: they have left the waiting line too.
        unread = [one for one in candidates if one.status == RequestStatus.PREFILLING and one.remaining_prefill_tokens]
        self._unread = unread + [one for one in self._unread if one not in candidates]
        if not requests:
            return False
        padding = self._processor.model_runner.pad_inputs
        if padding:
            tokens = self._shapes.prompt(tokens)
            read = min(-(-read // CACHE_READ) * CACHE_READ, cache.max_tokens_read)
        current = self._current
        host = self.hosts[current].io
        host.prepare_batch_tensors(requests, self._processors, False, tokens, read, padding)
        # A longest prompt of that many tokens is assumed, so that there is one graph for each padded size.
        if padding and not read:
            host.max_length_k = dict.fromkeys(host.max_length_k, tokens)
        host.carry_over_ids.fill_(-1)
        self.rows.place.fill(-1)
        rows = [self._join(one.state) for one in requests if one.has_new_token]
        self.rows.place[rows] = self._count[: len(rows)]
        read_by = [(one.state, one.complete_blocks) for one in requests if one.complete_blocks]
        self._pending[current] = self._prepared(np.array(rows, np.intp), read_by, begins=True)
        return True

    def _whole_prompts(self, budget: int) -> list[Any]:
        """The next prompts that a step of so many tokens takes to their end; a longer one comes alone, in parts.

        A part would have to read the cache in the step after, whose size then has no graph.
        """
        line = self._scheduler.waiting_requests
        chosen: list[Any] = []
        for state in (*self._unread, *(line[id] for id in self._scheduler.waiting_requests_order)):
            budget -= len(state.remaining_prefill_tokens)
            if len(chosen) == self.rows.free or (budget < 0 and chosen):
                break
            chosen.append(state)
        return chosen

    def _join(self, state: Any) -> int:
        """Give a request its row, and all pages that its answer may fill: the feed has set them aside."""
        more = state.max_new_tokens - 1
        if more and not self._cache.can_store_request_tokens(state, more):
            self._make_room(self._allocator.needs_new_blocks(state.request_id, state.position_offset, more))
            if not self._cache.can_store_request_tokens(state, more):
                raise RuntimeError("the cache has no room for a request that it was promised to")
        return self.rows.join(state, self._pages(state))

    def _prepare_answers(self) -> None:
        current = self._current
        host, rows = self.hosts[current], self.rows
        places = rows.place.copy()
        active = rows.advance()
        count = len(active)
        padded = self._shapes.answer(count) if self._processor.model_runner.pad_inputs else count
        self._processors.drawing = bool(rows.sampling[0, active].any())
        host.fill_answers(rows, active, places[active], padded, self._count)
        self._pending[current] = self._prepared(active, [], begins=False)

    def _prepared(self, rows: NDArray[np.intp], read: list[tuple[Any, dict[str, int]]], *, begins: bool) -> _Prepared:
        return _Prepared(rows, self.rows.serial[rows], self.rows.left[rows] <= 0, begins, read)

    # Taking up

    def _flush(self) -> bool:
        if len(self.hosts) == 1 or self._pending[1 - self._io.current_pair] is None:
            return False
        self._io.swap_io_pairs()
        try:
            self.update()
        finally:
            self._io.swap_io_pairs()
        return True

    def update(self) -> None:
        """Take up the tokens of the step before, waiting for the device if need be."""
        current = self._current
        step, self._pending[current] = self._pending[current], None
        if step is None:
            return
        if len(self.hosts) > 1:
            self._io.io_pairs[current].d2h_over.synchronize()
        tokens = self.hosts[current].output[: len(step.rows)].copy()
        for state, blocks in step.read:
            if state.request_id in self._scheduler.active_requests:
                self._cache.mark_complete_blocks(state, blocks)
                self.rows.repage(state.request_id, self._pages(state))
        rows = self.rows
        alive = rows.serial[step.rows] == step.serials
        mine, tokens, last = step.rows[alive], tokens[alive], step.last[alive]
        rows.token[mine] = tokens
        ended = last | (tokens == INVALID_TOKEN)
        for stop in rows.stop_tokens:
            ended |= tokens == stop
        ids, values = [], []
        for row, token, end in zip(mine.tolist(), tokens.tolist(), ended.tolist(), strict=True):
            if not end or (token != INVALID_TOKEN and token not in rows.stops[row]):
                state = rows.states[row]
                state.generated_tokens.append(token)
                ids.append(state.request_id)
                values.append(token)
        ends = [self._end(int(mine[at]), int(tokens[at]), last=bool(last[at])) for at in ended.nonzero()[0]]
        if ids or ends:
            self._deliver(ids, values, [end for end in ends if end is not None], first=step.begins)

    def _end(self, row: int, token: int, *, last: bool) -> tuple[str, FinishReason, str] | None:
        state = self.rows.states[row]
        reason: FinishReason = "length"
        detail = ""
        if token == INVALID_TOKEN:
            at = len(state.initial_tokens) + len(state.generated_tokens)
            reason, detail = "nan_logits", f"NaN or infinity among the scores after {at} tokens"
        elif token in self.rows.stops[row]:
            reason = "stop"
        elif not last:
            return None  # a stop of another request
        if reason == "nan_logits":
            self._scrub(state)
        else:
            self._mark_answer(state)
            self._scheduler.finish_request(state.request_id)
        state.status = RequestStatus.FINISHED
        self.rows.drop(state.request_id)
        return state.request_id, reason, detail

    def _mark_answer(self, state: Any) -> None:
        """Let the pages that the answer has filled be shared: the next turn of a conversation begins with them."""
        if not self._cache.use_prefix_sharing:
            return
        full = (len(state.initial_tokens) + len(state.generated_tokens) - 1) // self._allocator.tokens_per_page
        known = self._allocator.ledger.block_to_hash
        new = sum(block not in known for block in self._allocator.block_table[state.request_id][:full])
        if new:
            self._allocator.mark_complete_blocks(state.request_id, state.initial_tokens + state.generated_tokens, new)

    def _scrub(self, state: Any) -> None:
        """Empty the pages of a request with NaN in them: a kernel may multiply what it masks, and NaN times zero is NaN."""
        blocks = self._allocator.block_table.get(state.request_id, [])
        with stream_context(self._io.compute_stream):
            self._allocator._copy_view[blocks] = 0
        self._cache.free_blocks(state.request_id, no_cache=True)
        self._scheduler.active_requests.pop(state.request_id, None)

    # The cache

    def _pages(self, state: Any) -> list[int]:
        return [block * self._stride for block in self._allocator.block_table[state.request_id]]

    def _make_room(self, blocks: int) -> None:
        """Give up shared pages that nobody uses, the oldest first, until so many more are free."""
        ledger, pool, index = self._allocator.ledger, self._cache.pool, self._allocator.index
        oldest = list(ledger.cached_blocks)[:blocks]
        for block in oldest:
            del ledger.cached_blocks[block]
            del ledger.hash_to_block[ledger.block_to_hash.pop(block)]
        pool.free_blocks(index, oldest)
        pool.try_to_free_sectors()

    @property
    def _current(self) -> int:
        return getattr(self._io, "current_pair", 0)


class _Host:
    """The buffers of one step on the host, as arrays over the same memory."""

    def __init__(self, io: Any) -> None:
        self.io = io
        self.output = io.output_ids[0].numpy()
        self._ids = io.input_ids.numpy()
        self._positions = io.position_ids.numpy()
        self._ends_q = io.cumulative_seqlens_q.numpy()
        ((self._layers, ends_k),) = io.cumulative_seqlens_k.items()
        self._ends_k = ends_k.numpy()
        self._indices = io.logits_indices.numpy()
        self._carried = io.carry_over_ids.numpy()
        self._sampling = io._bulk_input_tensor[io.static_inputs :].numpy()
        self._table = io.block_table[0].numpy()

    def fill_answers(
        self, rows: DecodeBatch, active: NDArray[np.intp], places: NDArray[np.int32], padded: int, count: NDArray[np.int32]
    ) -> None:
        """A token for each of ``active``. What pads it are requests of one token each on the spare page."""
        io, real = self.io, len(active)
        lengths = rows.position[active]
        io.use_block_table = True
        io.num_q_tokens, io.max_kv_read, io.num_request_in_batch = padded, 0, padded
        io.true_read_sizes, io.true_write_sizes = [0], [padded]
        io.max_length_q, io.max_length_k = 1, {self._layers: 1}
        io.total_seqlen_q = padded
        io.requests_in_batch, io.req_id_to_new_token_position = [], {}
        self._ids[:real] = rows.token[active]
        # Undefined tokens are in the step after theirs too, and no table has a row for them.
        np.maximum(self._ids[:real], 0, out=self._ids[:real])
        self._positions[:real] = lengths - 1
        self._ends_q[: padded + 1] = count[: padded + 1]
        np.cumsum(lengths, out=self._ends_k[1 : real + 1])
        self._ends_k[0] = 0
        total = int(self._ends_k[real])
        self._indices[:padded] = count[:padded]
        self._carried[:real] = places
        self._sampling[:POSITION, :real] = rows.sampling[:, active]
        self._sampling[POSITION, :real] = lengths
        pages = rows.table.shape[1]
        self._table[:real] = rows.table[active]
        if padded > real:
            self._ids[real:padded] = 0
            self._positions[real:padded] = 0
            self._ends_k[real + 1 : padded + 1] = total + count[1 : padded - real + 1]
            self._carried[real:padded] = -1
            self._sampling[:, real:padded] = 0
            self._table[real:padded, :pages] = rows.table_of_nobody
        io.total_seqlen_k = {self._layers: total + padded - real}

    def fill_answers_of_nobody(self, rows: DecodeBatch, size: int) -> None:
        """A step of that size with padding only."""
        nothing = np.zeros(0, np.intp)
        self.fill_answers(rows, nothing, np.zeros(0, np.int32), size, np.arange(size + 1, dtype=np.int32))

    def fill_prompt_of_nobody(self, size: int, cache: Any) -> None:
        """A prompt that fills a step of that size and writes to the spare page."""
        io = self.io
        (allocator,) = cache.cache_allocators.values()
        io.use_block_table = False
        io.num_q_tokens, io.max_kv_read, io.num_request_in_batch = size, 0, 1
        io.true_read_sizes, io.true_write_sizes = [0], [size]
        io.max_length_q, io.max_length_k = size, {self._layers: size}
        io.total_seqlen_q, io.total_seqlen_k = size, {self._layers: size}
        io.requests_in_batch, io.req_id_to_new_token_position = [], {}
        self._ids[:size] = 0
        self._positions[:size] = np.arange(size, dtype=np.int32)
        self._ends_q[0] = self._ends_k[0] = 0
        self._ends_q[1:] = self._ends_k[1:] = size
        self._indices[:] = 0
        self._carried[:size] = -1
        self._sampling[:] = 0
        io.write_index_storage[0, :size] = allocator.write_trash_index
