"""How the batching manager is set up: sizes of its cache and its steps, for this device and this kernel."""

from typing import Any

import torch
from transformers import ContinuousBatchingConfig
from transformers.generation.continuous_batching.cache import group_layers_by_attn_type
from transformers.generation.continuous_batching.cache_allocators import FULL_ATTENTION

from workers.gpu.engine.attention_backend import AttentionBackend
from workers.gpu.engine.memory import cache_fraction
from workers.gpu.hardware.memory_estimate import KERNELS

PAGE_TOKENS = 256

# On the CPU the cache is sized by what is promised, as free memory is shared with everything else on the machine.
CPU_BATCH_TOKENS, CPU_FEWEST_BATCH_TOKENS = 512, 64
CPU_TOKENS_PER_REQUEST = 1024

# Tokens of one step, and how much of the free memory an engine gets that has run out.
GPU_BATCH_TOKENS, GPU_FEWEST_BATCH_TOKENS = 8192, 512
CAREFUL_MEMORY_SHARE = 0.8


def make_batching_config(
    model: Any, kernel: AttentionBackend, *, context: int, in_flight: int, share: float, gpu_share: float = 1.0
) -> ContinuousBatchingConfig:
    """For ``in_flight`` requests at once, which is ``share`` of what the model's entry wants, on ``gpu_share`` of a GPU."""
    common: dict[str, Any] = {
        "page_size": PAGE_TOKENS,
        "max_requests_per_batch": in_flight,
        "scheduler_type": "prefill_first",
        "auto_switch_to_flash": False,
    }
    if model.device.type == "cpu":
        tokens = max(context, in_flight * min(context, CPU_TOKENS_PER_REQUEST))
        # One page more for each request, as its last page is seldom full.
        blocks = -(-tokens // PAGE_TOKENS) + in_flight
        batch = max(int(CPU_BATCH_TOKENS * share), CPU_FEWEST_BATCH_TOKENS, in_flight)
        return ContinuousBatchingConfig(max_batch_tokens=batch, num_blocks=blocks, **common)
    common["max_batch_tokens"] = max(int(GPU_BATCH_TOKENS * share), GPU_FEWEST_BATCH_TOKENS, in_flight)
    if share < 1:
        common["max_memory_percent"] = CAREFUL_MEMORY_SHARE
    if gpu_share < 1:
        total = int(torch.cuda.get_device_properties(0).total_memory)
        part = cache_fraction(gpu_share, total, int(torch.cuda.memory_reserved()), KERNELS)
        common["max_memory_percent"] = min(part, common.get("max_memory_percent", part))
    return ContinuousBatchingConfig(default_compile_level=1 if kernel.is_flash else 0, **common)


def enable_block_tables(manager: Any, model: Any, kernel: AttentionBackend, context: int) -> None:
    """Have tables of pages made for whole contexts, where attention can read by them. Before the cache is made."""
    config = manager.continuous_batching_config
    by_pages = [*group_layers_by_attn_type(model.config.get_text_config())] == [FULL_ATTENTION]
    on_device = model.device.type == "cpu" or (kernel.is_flash and config.max_blocks_per_request > 0)
    config.max_blocks_per_request = -(-context // PAGE_TOKENS) if by_pages and on_device else 0
