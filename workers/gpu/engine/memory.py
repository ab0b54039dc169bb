"""Tells a want of memory from other faults, and what an engine may take where it shares its GPU. It knows no torch, so every
engine can ask it."""

import re

from shared.errors import ModelUnavailable

# Torch raises a class of its own for its CUDA allocator only; the CPU's, the graphs' and the libraries' raise RuntimeError.
_WORDS = re.compile(r"out of memory|can(?:'|no)t allocate|not enough memory|bad_alloc|ALLOC_FAILED", re.IGNORECASE)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether ``error``, or one that it was raised from, says that memory was wanting."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError | OSError) and _WORDS.search(str(error))):
            return True
        error = error.__cause__
    return False


def cache_fraction(gpu_share: float, total: int, taken: int, kernels: int) -> float:
    """The part of the memory that is not ``taken`` by this engine's weights which its cache may have, so that all of it stays
    within ``gpu_share`` of the GPU's ``total`` bytes with ``kernels`` left for the rest. Raises ModelUnavailable when nothing is left.
    """
    room = gpu_share * total - taken - kernels
    if room <= 0:
        raise ModelUnavailable(
            f"gpu_share {gpu_share:g} of {total / 2**30:.1f} GiB leaves nothing for the cache: {taken / 2**30:.1f} GiB are weights"
        )
    return min(room / (total - taken), 0.9)
