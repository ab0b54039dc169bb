"""Builds the engine core of a loaded model: its attention, paged cache, runner and scheduler."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from shared.models.catalogue import ModelEntry
from workers.gpu.engine.attention_backend import AttentionBackend
from workers.gpu.engine.cache_size import PAGE_TOKENS, cache_pages, smallest_of_ranks, step_tokens
from workers.gpu.engine.graph_runner import GraphRunner
from workers.gpu.engine.model_runner import Forward, ModelRunner, PlainRunner, model_forward
from workers.gpu.engine.output_buffer import OutputBuffer
from workers.gpu.engine.page_cache import PageCache
from workers.gpu.engine.paged_attention import FlashAttention, LayerShape, PagedAttention, SdpaAttention, layer_shapes
from workers.gpu.engine.scheduler import Scheduler

logger = logging.getLogger("engine.core")

ProgressCallback = Callable[[str, float], None]


@dataclass(frozen=True)
class CoreParts:
    """What a loop needs. ``depth``: how many steps may run at once; ``max_context``: tokens that one request may have."""

    attention: PagedAttention
    runner: ModelRunner
    scheduler: Scheduler
    depth: int
    max_context: int


def build_core(
    model: Any, entry: ModelEntry, backend: AttentionBackend, in_flight: int, buffer: OutputBuffer, report: ProgressCallback
) -> CoreParts:
    """For up to ``in_flight`` requests at once; output goes to ``buffer``. Raises ModelUnavailable if there is too little memory."""
    device, share = model.device, in_flight / entry.max_in_flight
    context = entry.max_context or int(model.config.get_text_config().max_position_embeddings)
    layers = layer_shapes(model)
    tokens = step_tokens(device, in_flight, share)
    attention: SdpaAttention | FlashAttention = FlashAttention(backend.name) if backend.is_flash else SdpaAttention()
    attention.register(model)
    table_pages = -(-context // PAGE_TOKENS)

    def make_runner(forward: Forward) -> PlainRunner | GraphRunner:
        if isinstance(attention, SdpaAttention):
            return PlainRunner(forward, attention, in_flight, table_pages, device)
        return GraphRunner(forward, attention, in_flight, table_pages, tokens, device)

    runner = make_runner(_forward(model, attention, context))
    if isinstance(runner, GraphRunner):
        _measure_largest_step(runner, attention, layers, model.dtype, device)
    pages = cache_pages(layers, model.dtype, device, context=context, in_flight=in_flight, share=share, gpu_share=entry.gpu_share)
    pages = smallest_of_ranks(pages, device)
    attention.allocate(layers, pages, PAGE_TOKENS, dtype=model.dtype, device=device)
    if isinstance(runner, GraphRunner):
        start = time.monotonic()
        count = runner.capture_graphs(report)
        logger.info("%s: captured %d graphs in %.1f s", entry.name, count, time.monotonic() - start)
    cache = PageCache(pages, PAGE_TOKENS)
    max_context = min(context, cache.capacity * PAGE_TOKENS)
    if max_context < context:
        logger.warning(
            "%s: the KV cache holds %d tokens of one request, less than the context of %d", entry.name, max_context, context
        )
    scheduler = Scheduler(cache, in_flight, tokens, buffer.append_step)
    return CoreParts(attention, runner, scheduler, 2 if isinstance(runner, GraphRunner) else 1, max_context)


def _forward(model: Any, attention: SdpaAttention | FlashAttention, context: int) -> Forward:
    if isinstance(attention, FlashAttention):
        # Imported here: only a GPU has Triton.
        from workers.gpu.engine.fused_decoder import FusedDecoder, can_fuse

        if can_fuse(model):
            return FusedDecoder(model, attention, context).forward
        _compile_layers(model)
    return model_forward(model)


def _compile_layers(model: Any) -> None:
    """Compile each layer, for any size of a step, once for all layers although each has its own number."""
    torch._dynamo.config.allow_unspec_int_on_nn_module = True
    for layer in model.get_decoder().layers:
        layer.compile(dynamic=True)


def _measure_largest_step(
    runner: GraphRunner, attention: PagedAttention, layers: dict[int, LayerShape], dtype: torch.dtype, device: torch.device
) -> None:
    """Run the largest step on a cache of one page, so that the allocator knows the most memory that a step takes."""
    attention.allocate(layers, 1, PAGE_TOKENS, dtype=dtype, device=device)
    torch.cuda.reset_peak_memory_stats(device)
    runner.run_largest_step()
    torch.cuda.synchronize(device)
