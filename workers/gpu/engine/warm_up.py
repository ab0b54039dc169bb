"""Makes every compiled kernel and CUDA graph that steps will need, before the first request.

Each padded size has a graph for steps that draw and one for steps that do not, in each of the two sets of buffers that
take turns. Nothing real is computed: what is run are requests of nobody, on a page that nobody reads.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from workers.gpu.engine.batch_scheduler import BatchScheduler
from workers.gpu.engine.graph_sizes import GraphSizes
from workers.gpu.engine.sampling import SamplingProcessors

Report = Callable[[str, float], None]


def capture_graphs(
    manager: Any, steps: BatchScheduler, processors: SamplingProcessors, shapes: GraphSizes, report: Report
) -> int:
    """Returns the number of graphs. The loop must not be running. Largest first: the smaller ones then share its memory."""
    processor = manager.batch_processor
    io = processor.inputs_and_outputs
    wanted = list(_wanted(shapes))
    for done, (answers, size, drawing) in enumerate(wanted):
        what = f"answers to {size} at once" if answers else f"prompts of {size} tokens"
        report(f"graphs of {what}, {'drawn' if drawing else 'likeliest'}", done / len(wanted))
        for _ in steps.hosts:
            host = steps.hosts[io.current_pair]
            processors.drawing = drawing
            if answers:
                host.fill_answers_of_nobody(steps.rows, size)
            else:
                host.fill_prompt_of_nobody(size, processor.cache)
            processor._generation_step(manager.model)
        torch.cuda.synchronize()
    return len(wanted) * len(steps.hosts)


def _wanted(shapes: GraphSizes) -> Iterator[tuple[bool, int, bool]]:
    for drawing in (True, False):
        yield from ((False, size, drawing) for size in reversed(shapes.prompts))
        yield from ((True, size, drawing) for size in reversed(shapes.answers))
