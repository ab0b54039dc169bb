"""Where this engine reaches into the manager's step: how the next tokens are taken, and which CUDA graph is replayed.

The manager has no hooks for these, so methods of its objects are replaced. It knows nothing of requests.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.generation.continuous_batching.utils import CudaGraphBuffer

from workers.gpu.engine.batch_scheduler import INVALID_TOKEN, BatchScheduler, Delivery
from workers.gpu.engine.graph_sizes import GraphSizes
from workers.gpu.engine.sampling import SamplingProcessors


def change_step(batch_processor: Any, processors: SamplingProcessors) -> None:
    """To be called before the first step, so that it is in every graph."""
    batch_processor.model_runner._sample = argmax_tokens
    buffers = batch_processor.inputs_and_outputs
    carry_over = buffers.carry_over_tokens

    def carry_over_tokens(input_ids: Tensor, carry_over_ids: Tensor, previous: Tensor) -> None:
        carry_over(input_ids, carry_over_ids, previous)
        # A request whose token is undefined is in the step after that too, and no table has a row for it.
        input_ids.clamp_(min=0)

    buffers.carry_over_tokens = carry_over_tokens
    cache, scheduler = batch_processor.cache, batch_processor.scheduler
    mark_complete = cache.mark_complete_blocks

    def mark_complete_blocks(state: Any, complete_blocks: dict[str, int]) -> None:
        # The manager (5.23) would die here of a request that was cancelled while its step was under way on the device.
        if state.request_id in scheduler.active_requests:
            mark_complete(state, complete_blocks)

    cache.mark_complete_blocks = mark_complete_blocks
    for pair in getattr(buffers, "io_pairs", ()):
        pair.device_io.graphs = GraphsByKind(processors)
    if hasattr(buffers, "graphs"):
        buffers.graphs = GraphsByKind(processors)


def take_over_steps(
    batch_processor: Any, processors: SamplingProcessors, shapes: GraphSizes, deliver: Delivery
) -> BatchScheduler:
    """Have our steps prepared and taken up in place of the manager's. Its kernel must read pages."""
    steps = BatchScheduler(batch_processor, processors, shapes, deliver)
    batch_processor.prepare_next_batch = steps.prepare
    batch_processor.update_batch = steps.update
    runner, buffers = batch_processor.model_runner, batch_processor.inputs_and_outputs
    choose = runner._get_forward_fn

    def get_forward_fn(use_block_table: bool) -> tuple[Any, bool]:
        forward, graph = choose(use_block_table)
        host = steps.hosts[getattr(buffers, "current_pair", 0)].io
        # Prompts that read what is in the cache come in too many sizes for a graph of each.
        return forward, graph and (use_block_table or not host.max_kv_read)

    runner._get_forward_fn = get_forward_fn
    return steps


def argmax_tokens(scores: Tensor, output_ids: Tensor) -> None:
    """Put the token with the largest score of each row into ``output_ids``, or UNDEFINED. The device is not waited for."""
    largest, tokens = scores[0].max(dim=-1)
    output_ids[0, : tokens.size(0)].copy_(torch.where(largest.isfinite(), tokens, INVALID_TOKEN))


class Evictions:
    """Counts the requests whose pages the manager takes away, to compute them again. The feed sees to it that there are none."""

    def __init__(self, batch_processor: Any) -> None:
        self.count = 0
        offloading, scheduler = batch_processor.offloading_manager, batch_processor.scheduler
        offload = offloading.offload_requests

        def offload_requests() -> bool:
            before = len(scheduler.active_requests)
            helped: bool = offload()
            # They go back to the waiting line, and nothing else leaves the batch or joins it meanwhile.
            self.count += before - len(scheduler.active_requests)
            return helped

        offloading.offload_requests = offload_requests


class GraphsByKind(CudaGraphBuffer):
    """Graphs of steps that draw and of steps that do not, as a captured graph cannot leave the drawing out."""

    def __init__(self, processors: SamplingProcessors) -> None:
        super().__init__()
        self._processors = processors

    def get_graph(self, key: tuple[int, ...]) -> Any:
        return super().get_graph((self._processors.drawing, *key))

    def set_graph(self, key: tuple[int, ...], graph: Any) -> None:
        super().set_graph((self._processors.drawing, *key), graph)
