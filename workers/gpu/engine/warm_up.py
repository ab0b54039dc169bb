"""Warm-up: captures the CUDA graph and compiles the kernels of every padded step size before the first request.

Each size has a graph for steps that sample and one for steps that do not, in each of the two sets of buffers that take
turns. The steps consist of padding, on a cache page that no request uses.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from workers.gpu.engine.batch_scheduler import BatchScheduler
from workers.gpu.engine.graph_sizes import GraphSizes
from workers.gpu.engine.transformers_patches import BatchingBackend

ProgressCallback = Callable[[str, float], None]


def capture_graphs(
    model: Any, backend: BatchingBackend, scheduler: BatchScheduler, sizes: GraphSizes, report: ProgressCallback
) -> int:
    """Capture all graphs and return their number, while the generation loop is not running.

    The largest come first, so that the smaller ones share their memory.
    """
    steps = list(_steps(sizes))
    for done, (is_decode, size, is_sampling) in enumerate(steps):
        what = f"decode of {size} requests" if is_decode else f"prefill of {size} tokens"
        report(f"capturing graphs: {what}, {'sampled' if is_sampling else 'greedy'}", done / len(steps))
        for _ in backend.buffers:
            buffers = backend.buffers[backend.current]
            backend.set_sampling(is_sampling)
            if is_decode:
                buffers.fill_decode_padding(scheduler.batch, size)
            else:
                buffers.fill_prefill_padding(size, backend.spare_index)
            backend.run_step(model)
        torch.cuda.synchronize()
    return len(steps) * len(backend.buffers)


def _steps(sizes: GraphSizes) -> Iterator[tuple[bool, int, bool]]:
    for is_sampling in (True, False):
        yield from ((False, size, is_sampling) for size in reversed(sizes.prefill))
        yield from ((True, size, is_sampling) for size in reversed(sizes.decode))
