"""Configuration of the batching manager: sizes of its KV cache and its steps, for a device and an attention backend."""

from typing import Any

import torch
from transformers import ContinuousBatchingConfig

from workers.gpu.engine.attention_backend import AttentionBackend
from workers.gpu.engine.memory import cache_fraction
from workers.gpu.engine.transformers_patches import has_full_attention
from workers.gpu.hardware.memory_estimate import KERNELS

PAGE_TOKENS = 256

# On the CPU the cache is sized by what the model's entry allows, because free memory is shared with the whole machine.
CPU_BATCH_TOKENS, CPU_MIN_BATCH_TOKENS = 512, 64
CPU_TOKENS_PER_REQUEST = 1024

# Tokens of one step, and the fraction of the free memory for an engine that has run out of it before.
GPU_BATCH_TOKENS, GPU_MIN_BATCH_TOKENS = 8192, 512
REDUCED_MEMORY_FRACTION = 0.8


def make_batching_config(
    model: Any, backend: AttentionBackend, *, context: int, in_flight: int, share: float, gpu_share: float = 1.0
) -> ContinuousBatchingConfig:
    """For ``in_flight`` requests at once, which is ``share`` of what the model's entry asks for, on ``gpu_share`` of a GPU."""
    common: dict[str, Any] = {
        "page_size": PAGE_TOKENS,
        "max_requests_per_batch": in_flight,
        "scheduler_type": "prefill_first",
        "auto_switch_to_flash": False,
    }
    if model.device.type == "cpu":
        tokens = max(context, in_flight * min(context, CPU_TOKENS_PER_REQUEST))
        # One more page per request, because its last page is seldom full.
        blocks = -(-tokens // PAGE_TOKENS) + in_flight
        batch = max(int(CPU_BATCH_TOKENS * share), CPU_MIN_BATCH_TOKENS, in_flight)
        return ContinuousBatchingConfig(max_batch_tokens=batch, num_blocks=blocks, **common)
    common["max_batch_tokens"] = max(int(GPU_BATCH_TOKENS * share), GPU_MIN_BATCH_TOKENS, in_flight)
    if share < 1:
        common["max_memory_percent"] = REDUCED_MEMORY_FRACTION
    if gpu_share < 1:
        total = int(torch.cuda.get_device_properties(0).total_memory)
        fraction = cache_fraction(gpu_share, total, int(torch.cuda.memory_reserved()), KERNELS)
        common["max_memory_percent"] = min(fraction, common.get("max_memory_percent", fraction))
    return ContinuousBatchingConfig(default_compile_level=1 if backend.is_flash else 0, **common)


def enable_block_tables(manager: Any, model: Any, backend: AttentionBackend, context: int) -> None:
    """Have block tables for whole contexts, where attention can read pages. Call before the cache is created."""
    config = manager.continuous_batching_config
    on_device = model.device.type == "cpu" or (backend.is_flash and config.max_blocks_per_request > 0)
    config.max_blocks_per_request = -(-context // PAGE_TOKENS) if has_full_attention(model) and on_device else 0
