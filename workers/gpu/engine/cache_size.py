"""Sizes of the KV cache and of a step, for a device and what the model's entry allows."""

import torch

from shared.errors import ModelUnavailable
from workers.gpu.engine.memory import cache_bytes
from workers.gpu.engine.paged_attention import LayerShape
from workers.gpu.hardware.memory_estimate import KERNELS, TOKENS_IN_FLIGHT

PAGE_TOKENS = 256

# Tokens of one step. More let prompts through faster and make running outputs wait longer: see docs/performance.md.
CPU_STEP_TOKENS, GPU_STEP_TOKENS, MIN_STEP_TOKENS = 512, 2048, 64

# The fraction of the free memory for an engine that has run out of it before.
REDUCED_MEMORY_FRACTION = 0.8


def step_tokens(device: torch.device, in_flight: int, share: float) -> int:
    """Tokens of a step of up to ``in_flight`` requests, which is ``share`` of what the model's entry asks for."""
    largest = CPU_STEP_TOKENS if device.type == "cpu" else GPU_STEP_TOKENS
    return max(int(largest * share), in_flight + MIN_STEP_TOKENS)


def cache_pages(
    layers: dict[int, LayerShape],
    dtype: torch.dtype,
    device: torch.device,
    *,
    context: int,
    in_flight: int,
    share: float,
    gpu_share: float,
) -> int:
    """How many pages the cache gets. Call on a GPU after a step of the largest size, whose memory is known then.

    On the CPU the cache is sized by what the model's entry allows, because free memory is shared with the whole machine. Raises
    ModelUnavailable when a GPU has no memory left for it.
    """
    if device.type == "cpu":
        tokens = max(context, in_flight * min(context, TOKENS_IN_FLIGHT))
        # One more page per request, because its last page is seldom full, and the spare page.
        return -(-tokens // PAGE_TOKENS) + in_flight + 1
    allocated, peak = torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    # Twice what a step takes: before a graph is captured, and in the memory of the graphs.
    available = cache_bytes(gpu_share, total, free, allocated, 2 * (peak - allocated) + KERNELS)
    if share < 1:
        available = int(available * REDUCED_MEMORY_FRACTION)
    per_page = PAGE_TOKENS * dtype.itemsize * sum(shape.heads * (shape.key_size + shape.value_size) for shape in layers.values())
    pages = available // per_page
    if pages < 2:
        raise ModelUnavailable("The GPU has no memory left for the KV cache.")
    return pages


def smallest_of_ranks(pages: int, device: torch.device) -> int:
    """The smallest number of pages that any rank of a tensor-parallel group has memory for."""
    if not torch.distributed.is_initialized():
        return pages
    number = torch.tensor([pages], device=device)
    torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MIN)
    return int(number)
