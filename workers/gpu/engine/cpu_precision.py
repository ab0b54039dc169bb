"""Precision on a CPU: float32 for a model in half precision, unless the CPU computes in that."""

import logging
import time
from collections.abc import Callable

import psutil
import torch

logger = logging.getLogger("engine.precision")

HALF = (torch.bfloat16, torch.float16)
# A CPU that computes in half precision is about twice as fast in it, and one that converts each number is several times slower.
MAX_SLOWDOWN = 1.5
# Of the memory that is free, as other models and documents need some too.
MEMORY_SHARE = 0.5
_ROUNDS, _ROWS, _WIDTH = 3, 256, 512


def use_fast_precision(
    model: torch.nn.Module, name: str, *, measure: Callable[[torch.dtype], float] | None = None, free_memory: int | None = None
) -> None:
    """Convert a model in half precision to float32 if the CPU is slow in half precision and has memory for it.

    ``measure`` returns the seconds of a product in a precision. ``free_memory`` in bytes is by default what the machine has available.
    """
    dtype = next(model.parameters()).dtype
    if dtype not in HALF:
        return
    measure = measure or measure_product
    half, single = measure(dtype), measure(torch.float32)
    if half < MAX_SLOWDOWN * single:
        return
    # In float32 the weights take as much again.
    more = sum(parameter.nbytes for parameter in model.parameters())
    about = f"model {name}: this CPU takes {half / single:.1f} times as long in {str(dtype).removeprefix('torch.')} as in float32"
    free = psutil.virtual_memory().available if free_memory is None else free_memory
    if more > MEMORY_SHARE * free:
        logger.warning("%s, and has too little free memory for float32", about)
        return
    model.float()
    logger.info("%s, so float32 is used; set the model's dtype to take half the memory", about)


def measure_product(dtype: torch.dtype) -> float:
    """The seconds that a product of matrices takes: the shortest of a few times, as the machine may have other load."""
    left, right = torch.ones(_ROWS, _WIDTH, dtype=dtype), torch.ones(_WIDTH, _WIDTH, dtype=dtype)
    times = []
    for _ in range(_ROUNDS + 1):
        start = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - start)
    return min(times[1:])
