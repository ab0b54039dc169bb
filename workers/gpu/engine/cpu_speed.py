"""Speed on a CPU: float32 for a model in half precision, and the faster form of the product with its vocabulary, as measured at load."""

import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from shared.machine import free_memory_bytes

logger = logging.getLogger("engine.cpu")

HALF = (torch.bfloat16, torch.float16)
# A CPU that computes in half precision is about twice as fast in it, and one that converts each number is several times slower.
MAX_SLOWDOWN = 1.5
# Of the memory that is free, as other models and documents need some too.
MEMORY_SHARE = 0.5
_ROUNDS, _ROWS, _WIDTH = 3, 256, 512
# The output layer of a smaller vocabulary takes little of a step.
_LARGE_VOCABULARY, _HEAD_ROWS, _HEAD_SPEEDUP = 32_768, 8, 1.2


def use_fast_precision(
    model: torch.nn.Module, name: str, *, measure: Callable[[torch.dtype], float] | None = None, free_memory: int | None = None
) -> None:
    """Convert a model in half precision to float32 if the CPU is slow in half precision and has memory for it.

    ``measure`` returns the seconds of a product in a precision. ``free_memory`` is in bytes.
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
    free = free_memory_bytes() if free_memory is None else free_memory
    if more > MEMORY_SHARE * free:
        logger.warning("%s, and has too little free memory for float32", about)
        return
    model.float()
    logger.info("%s, so float32 is used; set the model's dtype to take half the memory", about)


def measure_product(dtype: torch.dtype) -> float:
    """The seconds that a product of matrices takes in this precision."""
    left, right = torch.ones(_ROWS, _WIDTH, dtype=dtype), torch.ones(_WIDTH, _WIDTH, dtype=dtype)
    return _shortest(lambda: left @ right)


def use_fast_head(model: Any) -> None:
    """Compute the output layer of a large vocabulary as weights times inputs where that is faster than inputs times weights.

    The results are equal up to rounding.
    """
    head = model.get_output_embeddings()
    is_plain = isinstance(head, torch.nn.Linear) and type(head).forward is torch.nn.Linear.forward and head.bias is None
    if not is_plain or head.out_features < _LARGE_VOCABULARY:
        return
    inputs = torch.ones(_HEAD_ROWS, head.in_features, dtype=head.weight.dtype)
    with torch.inference_mode():
        plain = _shortest(lambda: torch.nn.functional.linear(inputs, head.weight))
        transposed = _shortest(lambda: multiply_transposed(inputs, head.weight))
    if transposed * _HEAD_SPEEDUP < plain:
        head.forward = lambda hidden: multiply_transposed(hidden, head.weight)
        logger.info(
            "the output layer takes %.0f ms as weights times inputs, %.0f ms in the usual form", 1000 * transposed, 1000 * plain
        )


def multiply_transposed(hidden: Tensor, weight: Tensor) -> Tensor:
    """``hidden @ weight.T``, computed as ``weight @ hidden.T`` if there is more than one row."""
    rows = hidden.reshape(-1, hidden.shape[-1])
    if len(rows) == 1:
        return torch.nn.functional.linear(hidden, weight)
    # Sampling reads each row from end to end.
    return (weight @ rows.t()).t().contiguous().view(*hidden.shape[:-1], len(weight))


def _shortest(function: Callable[[], object]) -> float:
    """The seconds that a function takes: the least of a few times, as the machine may have other load."""
    times = []
    for _ in range(_ROUNDS + 1):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times[1:])
