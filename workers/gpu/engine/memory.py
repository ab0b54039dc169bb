"""Tells a want of memory from other faults, on the GPU and on the CPU. It knows no torch, so every engine can ask it."""

import re

# Torch raises a class of its own for its CUDA allocator only; the CPU's, the graphs' and the libraries' raise RuntimeError.
_WORDS = re.compile(r"out of memory|can(?:'|no)t allocate|not enough memory|bad_alloc|ALLOC_FAILED", re.IGNORECASE)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether ``error``, or one that it was raised from, says that memory was wanting."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError | OSError) and _WORDS.search(str(error))):
            return True
        error = error.__cause__
    return False
