"""Resampling graph: samples the adjusted requests of a decode step again, as one CUDA graph.

Starting its parts one by one takes the host a quarter of a step of a small model, and the host is what such steps wait for.
"""

from typing import Any

import torch
from torch import Tensor

from workers.gpu.engine.adjustments import Adjustments, parameters_length

# A model's tokenizer can have more tokens than its logits, so masks can be longer than them.
SPARE_WORDS = 64


class ResamplingMemory:
    """Memory that the graphs of all sizes share: only one step is adjusted at a time, and it has ended before the next one is."""

    def __init__(self, max_requests: int, vocabulary: int, device: Any) -> None:
        length = parameters_length(max_requests)
        self.host_parameters = torch.zeros(length, dtype=torch.int32).pin_memory()
        self.parameters = torch.zeros(length, dtype=torch.int32, device=device)
        words = (vocabulary + 31) // 32 + SPARE_WORDS
        self.masks = torch.zeros(max_requests * words, dtype=torch.int32, device=device)
        self.host_tokens = torch.zeros(max_requests, dtype=torch.long).pin_memory()


class ResamplingGraph:
    """For decode steps of one padded size R, whose graph leaves ``logits`` (R, vocabulary) and ``tokens`` (R).

    It replaces the tokens of the adjusted requests, keeps those of all ``rows`` (R) as ``last_tokens``, and copies them to the host.
    """

    def __init__(
        self,
        memory: ResamplingMemory,
        logits: Tensor,
        tokens: Tensor,
        positions: Tensor,
        rows: Tensor,
        last_tokens: Tensor,
        pool: Any,
        stream: Any,
    ) -> None:
        from workers.gpu.engine.sampling_kernel import sample_again_on_gpu  # Triton is installed only with a GPU

        self._memory, self._requests = memory, len(tokens)
        length = parameters_length(self._requests)

        def resample() -> None:
            memory.parameters[:length].copy_(memory.host_parameters[:length], non_blocking=True)
            sample_again_on_gpu(logits, positions, tokens, memory.parameters[:length], memory.masks, self._requests)
            last_tokens.index_copy_(0, rows, tokens)
            memory.host_tokens[: self._requests].copy_(tokens, non_blocking=True)

        # What the kernel compiles on its first use must not happen inside the capture. The parameters are those of no request yet.
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            resample()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool, stream=stream):
            resample()

    def can_run(self, adjustments: Adjustments) -> bool:
        """Whether it can apply these: it edits no logits."""
        return not len(adjustments.edit_requests) and adjustments.masks.size <= len(self._memory.masks)

    def run(self, adjustments: Adjustments) -> Tensor:
        """Start it. Returns where the host finds the tokens of the step when it has ended, until the next one is adjusted."""
        adjustments.write_parameters(self._memory.host_parameters.numpy(), self._requests)
        if len(adjustments.masks):
            masks = torch.from_numpy(adjustments.masks.ravel())
            self._memory.masks[: len(masks)].copy_(masks, non_blocking=True)
        self._graph.replay()
        return self._memory.host_tokens
