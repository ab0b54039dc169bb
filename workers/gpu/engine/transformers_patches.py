"""Everything that depends on internals of transformers: private names, replaced methods and undocumented modules.

Its continuous-batching manager has no hooks for what this engine changes, so methods of its objects are replaced. The exact
version is pinned, and ``tests/unit/test_transformers_patches.py`` checks every name that is used here.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.generation.continuous_batching.cache import group_layers_by_attn_type
from transformers.generation.continuous_batching.cache_allocators import FULL_ATTENTION
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessorList
from transformers.generation.continuous_batching.continuous_api import BackgroundThreadStatus, OutputRouter
from transformers.generation.continuous_batching.model_runner import infer_max_single_request_tokens
from transformers.generation.continuous_batching.requests import GenerationOutput, RequestStatus
from transformers.generation.continuous_batching.utils import CudaGraphBuffer, stream_context
from transformers.generation.logits_process import LogitsProcessorList

from workers.gpu.engine.decode_batch import DecodeRequest
from workers.gpu.engine.host_buffers import HostBuffers
from workers.gpu.engine.messages import FinishedRequest
from workers.gpu.engine.output_buffer import OutputBuffer
from workers.gpu.engine.sampling import GREEDY, POSITION, SamplingParameters, apply_sampling, argmax_tokens

SAMPLING_KEY = "sampling"
"""Under this keyword the manager carries the sampling parameters of a request."""

SALT_KEY = "cache_salt"
"""Under this keyword the manager carries a request's ``cache_salt``."""


class SamplingProcessors(ContinuousBatchingLogitsProcessorList):
    """Replaces the manager's logits processors; greedy decoding of the scores that it returns is the sample.

    ``is_sampling``: whether any request of the step that is being prepared samples; if none does, scores are unchanged.
    ``default_sampling`` is for requests without parameters: those with which the manager warms up.
    """

    def __init__(self) -> None:
        super().__init__(LogitsProcessorList())
        self.tensors_required = POSITION + 1
        self.supported_keys = {SAMPLING_KEY: tuple, SALT_KEY: int}
        self.do_processing = True
        self.is_sampling = False
        self.default_sampling: SamplingParameters = GREEDY

    def fill_defaults(self, int32_tensor: Tensor) -> None:
        int32_tensor.copy_(torch.tensor([*GREEDY, 0], dtype=torch.int32).view(-1, 1))

    def prepare_tensor_args(self, requests_in_batch: list[Any], arg_storage: Tensor) -> Tensor:
        rows = [
            (*request.state.logit_processor_kwargs.get(SAMPLING_KEY, self.default_sampling), request.state.position_offset)
            for request in requests_in_batch
            if request.has_new_token
        ]
        self.is_sampling = any(row[0] for row in rows)
        if rows:
            arg_storage[:, : len(rows)] = torch.tensor(rows, dtype=torch.int32).T
        return arg_storage

    # Hidden from the compiler, which would compile the model once for steps that sample and once for those that do not.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, input_ids: Tensor, scores: Tensor, logits_processor_args: Tensor) -> Tensor:
        if not self.is_sampling:
            return scores
        return apply_sampling(scores, logits_processor_args[:, : scores.size(0)])


class BufferedRouter(OutputRouter):
    """Passes the output of the manager's own scheduler to an OutputBuffer."""

    def __init__(self, buffer: OutputBuffer) -> None:
        super().__init__()
        self._buffer = buffer

    def deliver(self, output: GenerationOutput) -> None:
        self.deliver_batch([output])

    def deliver_batch(self, outputs: list[GenerationOutput]) -> None:
        ids: list[str] = []
        tokens: list[int] = []
        finished: list[FinishedRequest] = []
        first = False
        for output in outputs:
            if output.status == RequestStatus.FAILED:
                finished.append((output.request_id, "failed", output.error or ""))
                self._buffer.report_error(output.error or "no reason given")
                continue
            # Called once per step, and each step adds one token.
            ids.append(output.request_id)
            tokens.append(output.generated_tokens[-1])
            first = first or len(output.generated_tokens) == 1
            if output.is_finished():
                finished.append((output.request_id, "length", ""))
        self._buffer.append_step(ids, tokens, finished, first=first)


class GraphBuffer(CudaGraphBuffer):
    """Separate CUDA graphs for steps that sample and steps that do not, because a captured graph cannot skip the sampling."""

    def __init__(self, processors: SamplingProcessors) -> None:
        super().__init__()
        self._processors = processors

    def get_graph(self, key: tuple[int, ...]) -> Any:
        return super().get_graph((self._processors.is_sampling, *key))

    def set_graph(self, key: tuple[int, ...], graph: Any) -> None:
        super().set_graph((self._processors.is_sampling, *key), graph)


class EvictionCounter:
    """Counts the requests whose cache pages the manager takes away, to compute them again. Admission should prevent any."""

    def __init__(self, batch_processor: Any) -> None:
        self.count = 0
        offloading, scheduler = batch_processor.offloading_manager, batch_processor.scheduler
        offload = offloading.offload_requests

        def offload_requests() -> bool:
            before = len(scheduler.active_requests)
            helped: bool = offload()
            # The requests return to the waiting line, and nothing else joins or leaves the batch meanwhile.
            self.count += before - len(scheduler.active_requests)
            return helped

        offloading.offload_requests = offload_requests


def defer_decode_update(cache: Any) -> Callable[..., tuple[Tensor, Tensor]]:
    """Leave the cache to the attention function in decode steps, and return the update that it replaces.

    A model calls the update ahead of attention. The compiler cannot look into it, so it would split each layer once more.
    """
    update: Callable[..., tuple[Tensor, Tensor]] = cache.update

    def update_prefill(key_states: Tensor, value_states: Tensor, layer_idx: int, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        if kwargs.get("block_table") is not None:
            return key_states, value_states
        return update(key_states, value_states, layer_idx, kwargs)

    cache.update = update_prefill
    return update


def allow_compiled_layers() -> None:
    """Compile the code of a layer once. Each layer passes its number to the cache, for which the compiler would compile it again."""
    torch._dynamo.config.allow_unspec_int_on_nn_module = True


def supports_flash_attention(model: Any) -> bool:
    """Whether the model's code can run on FlashAttention."""
    return bool(model._supports_flash_attn)


def has_full_attention(model: Any) -> bool:
    """Whether every layer attends to the whole context."""
    return [*group_layers_by_attn_type(model.config.get_text_config())] == [FULL_ATTENTION]


def max_single_request_tokens(cache: Any) -> int:
    """Tokens of one request that the cache can hold."""
    return int(infer_max_single_request_tokens(cache))


def salt_prefixes(cache: Any, scheduler: Any) -> None:
    """Let requests share pages only if they have the same ``cache_salt``, 31 bits.

    Otherwise the time to the first token would tell one owner what another has asked. The hash of a page includes that of the page
    before it, so it is enough to change the first token, which clients cannot choose: templates and tokenizers begin with a fixed one.
    """

    def salted(request: str, tokens: list[int]) -> list[int]:
        # The salt is part of the request: all ranks must find the same pages, however far each of them is.
        state = scheduler.active_requests.get(request) or scheduler.waiting_requests[request]
        return [tokens[0] ^ state.logit_processor_kwargs.get(SALT_KEY, 0), *tokens[1:]]

    search = cache.search_prefix_match
    cache.search_prefix_match = lambda request, tokens: search(request, salted(request, tokens))
    for allocator in cache.cache_allocators.values():

        def mark_complete(request: str, tokens: list[int], count: int, mark: Any = allocator.mark_complete_blocks) -> None:
            mark(request, salted(request, tokens), count)

        allocator.mark_complete_blocks = mark_complete


def create_batch_processor(manager: Any, processors: SamplingProcessors, buffer: OutputBuffer) -> Any:
    """Create the manager's batch processor with our sampling and output."""
    manager.logit_processor = processors
    manager.output_router = BufferedRouter(buffer)
    manager.batch_processor = processor = manager._create_batch_processor()
    # Before the first step, so that it is part of every graph.
    processor.model_runner._sample = argmax_tokens
    buffers = processor.inputs_and_outputs
    carry_over = buffers.carry_over_tokens

    def carry_over_tokens(input_ids: Tensor, carry_over_ids: Tensor, previous: Tensor) -> None:
        carry_over(input_ids, carry_over_ids, previous)
        # A request whose token is invalid is in the step after that too, and no embedding has a row for it.
        input_ids.clamp_(min=0)

    buffers.carry_over_tokens = carry_over_tokens
    cache, scheduler = processor.cache, processor.scheduler
    salt_prefixes(cache, scheduler)
    mark_complete = cache.mark_complete_blocks

    def mark_complete_blocks(state: Any, complete_blocks: dict[str, int]) -> None:
        # Without this check, a request that is cancelled while its step runs on the device ends the manager (5.24).
        if state.request_id in scheduler.active_requests:
            mark_complete(state, complete_blocks)

    cache.mark_complete_blocks = mark_complete_blocks
    for pair in getattr(buffers, "io_pairs", ()):
        pair.device_io.graphs = GraphBuffer(processors)
    if hasattr(buffers, "graphs"):
        buffers.graphs = GraphBuffer(processors)
    return processor


def loop_error(manager: Any, timeout: float) -> tuple[bool, BaseException | None]:
    """Whether the manager's generation loop has ended, and its error. Waits up to ``timeout`` for a loop that is ending."""
    status = manager.background_thread_status
    if status.local_status < BackgroundThreadStatus.HARD_STOP and manager.is_running():
        return False, None
    # The loop fails its requests first and records the error after that.
    manager._generation_thread.join(timeout)
    return True, status.fatal_error


def free_poisoned_requests(manager: Any, ids: Iterable[str]) -> None:
    """End requests whose pages may contain NaN, and share none of these pages. Raises RuntimeError when the loop has ended."""
    processor = manager.batch_processor
    with manager.pause():
        for id in ids:
            processor.cache.free_blocks(id, no_cache=True)
            processor.scheduler.set_request_cancellation(id)
        # Also the pages of a request that had ended by then.
        processor.cache.evict_cached_blocks()


class BatchingBackend:
    """The manager's batch processor as the BatchScheduler uses it: cache, waiting requests, and the buffers of a step."""

    def __init__(self, batch_processor: Any, processors: SamplingProcessors) -> None:
        self._processor, self._processors = batch_processor, processors
        self._cache, self._scheduler = batch_processor.cache, batch_processor.scheduler
        self._io = batch_processor.inputs_and_outputs
        (self._allocator,) = self._cache.cache_allocators.values()
        self._pages_per_block = self._allocator.block_physical_stride // self._allocator.tokens_per_page
        self.spare_index = int(self._allocator.write_trash_index)
        self.spare_page = self.spare_index // self._allocator.tokens_per_page
        self.page_size = int(self._allocator.tokens_per_page)
        self.max_requests = int(batch_processor.cb_config.max_requests_per_batch)
        self.max_pages = int(self._cache.max_blocks_per_request)
        self.max_batch_tokens = int(self._cache.max_batch_tokens)
        self.max_cache_read = int(self._cache.max_tokens_read)
        self.is_padded = bool(batch_processor.model_runner.pad_inputs)
        host_ios = [pair.host_io for pair in getattr(self._io, "io_pairs", ())] or [self._io]
        self.buffers = [HostBuffers(io, io._bulk_input_tensor[io.static_inputs :]) for io in host_ios]

    def install(self, prepare_step: Callable[[], bool], process_output: Callable[[], None]) -> None:
        """Have these prepare steps and process their output in place of the manager's own."""
        self._processor.prepare_next_batch = prepare_step
        self._processor.update_batch = process_output
        runner = self._processor.model_runner
        choose = runner._get_forward_fn

        def get_forward_fn(use_block_table: bool) -> tuple[Any, bool]:
            forward, graph = choose(use_block_table)
            # Prefill steps that read from the cache have too many sizes for a graph of each.
            return forward, graph and (use_block_table or not self.buffers[self.current].io.max_kv_read)

        runner._get_forward_fn = get_forward_fn

    # Steps

    @property
    def current(self) -> int:
        """Index of the buffers of the step that is being prepared or processed."""
        return int(getattr(self._io, "current_pair", 0))

    def swap_buffers(self) -> None:
        self._io.swap_io_pairs()

    def wait_for_output(self) -> None:
        """Wait until the output of the current step has been copied to the host."""
        if len(self.buffers) > 1:
            self._io.io_pairs[self.current].d2h_over.synchronize()

    def set_sampling(self, is_sampling: bool) -> None:
        """Whether any request of the step samples."""
        self._processors.is_sampling = is_sampling

    def fill_prefill(self, requests: list[Any], tokens: int, cache_read: int) -> None:
        """Fill the current buffers with the scheduled ``requests``."""
        buffers = self.buffers[self.current]
        buffers.fill_prefill(requests, self._processors, tokens, cache_read, padded=self.is_padded)

    def run_step(self, model: Any) -> None:
        """Run the prepared step, which captures its graph the first time."""
        self._processor._generation_step(model)

    # Requests

    def is_stopping(self) -> bool:
        """Exchange new requests and cancels with the other ranks; True if the group stops or waits."""
        return bool(self._processor._update_tp_group_state())

    def take_cancelled(self) -> list[str]:
        """Remove cancelled requests, in an order that is the same on every rank, so that rows are released alike."""
        cancelled = sorted(self._scheduler.clear_cancelled_requests(), key=lambda state: int(state.request_id))
        for state in cancelled:
            self._processor.offloading_manager.free_request_cpu_cache(state)
        return [state.request_id for state in cancelled]

    def waiting(self) -> Iterable[Any]:
        """States of the requests that wait for their prefill, in order."""
        line = self._scheduler.waiting_requests
        return (line[id] for id in self._scheduler.waiting_requests_order)

    def has_waiting(self) -> bool:
        return bool(self._scheduler.waiting_requests)

    def schedule_prefill(self, candidates: Sequence[Any], budget: int) -> tuple[list[Any], bool, int, int]:
        """Schedule up to ``budget`` tokens: requests, whether the cache lacked space, tokens, and tokens read from the cache."""
        scheduled: set[str] = set()
        requests, starved, _, tokens, cache_read = self._scheduler._process_candidates(
            candidates, budget, self.max_cache_read, scheduled
        )
        self._scheduler._cleanup_waiting_queue(scheduled)
        return requests, bool(starved), tokens, cache_read

    def is_partial(self, state: Any) -> bool:
        """Whether a request's prefill has begun and is not complete."""
        return state.status == RequestStatus.PREFILLING and bool(state.remaining_prefill_tokens)

    def decode_request(self, state: Any) -> DecodeRequest:
        """The request of a state whose prefill is complete."""
        return DecodeRequest(
            id=state.request_id,
            length=state.position_offset,
            max_new_tokens=state.max_new_tokens,
            sampling=state.logit_processor_kwargs.get(SAMPLING_KEY, GREEDY)[:POSITION],
            stop_token_ids=frozenset(state._eos_token_ids),
            state=state,
        )

    def is_active(self, state: Any) -> bool:
        return state.request_id in self._scheduler.active_requests

    def finish_request(self, state: Any, *, poisoned: bool) -> None:
        """End a request. The cache of one that is ``poisoned`` is cleared, else its pages can be shared."""
        if poisoned:
            self._clear_pages(state)
        else:
            self._share_output_pages(state)
            self._scheduler.finish_request(state.request_id)
        state.status = RequestStatus.FINISHED

    # The cache

    def pages(self, state: Any) -> list[int]:
        """The cache pages of a request."""
        return [block * self._pages_per_block for block in self._allocator.block_table[state.request_id]]

    def reserve_tokens(self, state: Any, tokens: int) -> bool:
        """Allocate pages for more tokens of a request, dropping shared pages that are unused."""
        if not tokens or self._cache.can_store_request_tokens(state, tokens):
            return True
        self.free_unused_blocks(self._allocator.needs_new_blocks(state.request_id, state.position_offset, tokens))
        return bool(self._cache.can_store_request_tokens(state, tokens))

    def mark_prefilled(self, state: Any, complete_blocks: dict[str, int]) -> None:
        """Make the pages that a prefill step has filled shareable."""
        self._cache.mark_complete_blocks(state, complete_blocks)

    def free_unused_blocks(self, count: int) -> None:
        """Drop shared pages that no request uses, oldest first, to free this many blocks."""
        ledger, pool, index = self._allocator.ledger, self._cache.pool, self._allocator.index
        oldest = list(ledger.cached_blocks)[:count]
        for block in oldest:
            del ledger.cached_blocks[block]
            del ledger.hash_to_block[ledger.block_to_hash.pop(block)]
        pool.free_blocks(index, oldest)
        pool.try_to_free_sectors()

    def _share_output_pages(self, state: Any) -> None:
        """Make the pages that the output has filled shareable: the next turn of a conversation begins with them."""
        if not self._cache.use_prefix_sharing:
            return
        full = (len(state.initial_tokens) + len(state.generated_tokens) - 1) // self._allocator.tokens_per_page
        known = self._allocator.ledger.block_to_hash
        new = sum(block not in known for block in self._allocator.block_table[state.request_id][:full])
        if new:
            self._allocator.mark_complete_blocks(state.request_id, state.initial_tokens + state.generated_tokens, new)

    def _clear_pages(self, state: Any) -> None:
        """Zero the pages of a request with NaN in them: kernels multiply what they mask, and NaN times zero is NaN."""
        blocks = self._allocator.block_table.get(state.request_id, [])
        with stream_context(self._io.compute_stream):
            self._allocator._copy_view[blocks] = 0
        self._cache.free_blocks(state.request_id, no_cache=True)
        self._scheduler.active_requests.pop(state.request_id, None)
