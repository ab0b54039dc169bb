"""Out-of-memory detection, and the memory that an engine may use on a shared GPU. Imports no torch, so any engine can use it."""

import re

from shared.errors import ModelUnavailable

# Torch has an exception class for its CUDA allocator only; the CPU allocator, CUDA graphs and libraries raise RuntimeError.
_PATTERN = re.compile(r"out of memory|can(?:'|no)t allocate|not enough memory|bad_alloc|ALLOC_FAILED", re.IGNORECASE)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether ``error``, or one of its causes, reports a lack of memory."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError | OSError) and _PATTERN.search(str(error))):
            return True
        error = error.__cause__
    return False


def cache_bytes(gpu_share: float, total: int, free: int, allocated: int, reserve: int) -> int:
    """The memory for the KV cache of an engine that keeps within ``gpu_share`` of a GPU.

    ``total`` and ``free`` are the GPU's bytes, ``allocated`` those that the weights take, ``reserve`` those to leave for a step.
    Raises ModelUnavailable when nothing is left.
    """
    available = int(min(free, gpu_share * total - allocated)) - reserve
    if available <= 0:
        raise ModelUnavailable(
            f"gpu_share {gpu_share:g} of {total / 2**30:.1f} GiB, of which {free / 2**30:.1f} GiB are free, leaves no memory for the KV "
            f"cache: the weights take {allocated / 2**30:.1f} GiB and a step {reserve / 2**30:.1f} GiB."
        )
    return available
