"""Sampling with adjusted logits: applies penalties, biases, grammars and ``min_p`` in float32, then samples again.

It only touches the requests that have adjustments. On a GPU one kernel samples those whose logits are not edited; the others, and
all of them on the CPU, use plain torch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workers.gpu.engine.adjustments import Adjustments, parameters_length
from workers.gpu.engine.arrays import Integers
from workers.gpu.engine.grammars import Masks
from workers.gpu.engine.sampling import TEMPERATURE, sample_tokens
from workers.gpu.engine.step import INVALID_TOKEN, SAMPLING_FIELDS

# Logits of this many requests are edited at once: with a vocabulary of 128,000 they take 33 MB.
SLICE = 64

Copy = Callable[[list[Integers]], list[Tensor]]
"""Copies arrays to the device. They stay until the next call."""


class PinnedCopier:
    """Copies arrays to a GPU from pinned memory, without waiting for it.

    Its host buffers take turns: one is filled again when the copies from it have ended. Arrays begin at multiples of 16 bytes on
    the device, because a kernel is compiled again for other alignments.
    """

    def __init__(self, device: torch.device, buffers: int) -> None:
        self._device = device
        self._host = [torch.zeros(0, dtype=torch.int32)] * buffers
        self._masks = [torch.zeros(0, dtype=torch.int32)] * buffers
        self._target = torch.zeros(0, dtype=torch.int32, device=device)
        self._copied: list[Any] = [torch.cuda.Event() for _ in range(buffers)]  # type: ignore[no-untyped-call]
        self._turn = 0

    def mask_rows(self, count: int, words: int) -> Masks:
        """Memory for masks of the next call, which copies them from there."""
        self._copied[self._turn].synchronize()
        self._masks[self._turn] = _pinned(self._masks[self._turn], count * words)
        return self._masks[self._turn].numpy()[: count * words].reshape(count, words)

    def __call__(self, arrays: list[Integers]) -> list[Tensor]:
        """Copy. The results are valid until the next call, in the order of the stream."""
        starts, size = [], 0
        for array in arrays:
            starts.append(size)
            size += (len(array) + 3) // 4 * 4
        if len(self._target) < size:
            self._target = torch.zeros(2 * size, dtype=torch.int32, device=self._device)
        self._copied[self._turn].synchronize()
        host = self._host[self._turn] = _pinned(self._host[self._turn], size)
        flat, masks = host.numpy(), self._masks[self._turn].numpy()
        results = [self._target[start : start + len(array)] for start, array in zip(starts, arrays, strict=True)]
        copied = 0
        for start, array, result in zip(starts, arrays, results, strict=True):
            if len(array) and np.may_share_memory(array, masks):
                self._copy(host, copied, start)
                result.copy_(torch.from_numpy(array), non_blocking=True)
                copied = start + len(array)
            else:
                flat[start : start + len(array)] = array
        self._copy(host, copied, size)
        self._copied[self._turn].record()
        self._turn = (self._turn + 1) % len(self._host)
        return results

    def _copy(self, host: Tensor, start: int, end: int) -> None:
        if start < end:
            self._target[start:end].copy_(host[start:end], non_blocking=True)


def _pinned(buffer: Tensor, size: int) -> Tensor:
    """The buffer, or a larger one."""
    return buffer if len(buffer) >= size else torch.zeros(2 * size, dtype=torch.int32).pin_memory()


def from_host(arrays: list[Integers]) -> list[Tensor]:
    """Tensors on the CPU, over the same memory."""
    return [torch.from_numpy(array) for array in arrays]


@dataclass(frozen=True)
class _Part:
    """The tensors of some of the requests; ``edit_requests`` are indices of them, and the first ones have ``masks``."""

    requests: Tensor
    sampling: Tensor
    min_p: Tensor
    edit_requests: Tensor
    edit_tokens: Tensor
    factors: Tensor
    added: Tensor
    masks: Tensor
    has_min_p: bool


def sample_adjusted(logits: Tensor, tokens: Tensor, positions: Tensor, adjustments: Adjustments, copy: Copy = from_host) -> None:
    """Replace the ``tokens`` of the adjusted requests, one for each row of ``logits``, by tokens of their adjusted logits.

    An invalid token stays: it means that the logits themselves are NaN or infinite. Does not wait for a GPU.
    """
    if logits.is_cuda and len(adjustments.requests):
        is_edited = np.zeros(len(adjustments.requests), np.bool_)
        is_edited[adjustments.edit_requests] = True
        if not is_edited.all():
            others = adjustments.select(np.flatnonzero(~is_edited)) if is_edited.any() else adjustments
            _sample_by_kernel(logits, tokens, positions, others, copy)
        if not is_edited.any():
            return
        adjustments = adjustments.select(np.flatnonzero(is_edited))
    count = len(adjustments.requests)
    for start in range(0, count, SLICE):
        part = adjustments if count <= SLICE else adjustments.select(np.arange(start, min(start + SLICE, count)))
        _sample_part(logits, tokens, positions, _copy_part(part, copy))


def _sample_by_kernel(logits: Tensor, tokens: Tensor, positions: Tensor, adjustments: Adjustments, copy: Copy) -> None:
    from workers.gpu.engine.sampling_kernel import sample_again_on_gpu

    count = len(adjustments.requests)
    encoded = np.empty(parameters_length(count), np.int32)
    adjustments.write_parameters(encoded, count)
    parameters, masks = copy([encoded, adjustments.masks.ravel()])
    sample_again_on_gpu(logits, positions, tokens, parameters, masks, count)


def warm_up_adjusted(logits: Tensor, tokens: Tensor, positions: Tensor, copy: Copy) -> None:
    """Sample the first two requests, one in each way, so that the first real ones do not wait for a kernel to be compiled."""
    adjustments = Adjustments(
        requests=np.arange(2, dtype=np.int32),
        sampling=np.zeros((SAMPLING_FIELDS, 2), np.int32),
        min_p=np.zeros(2, np.float32),
        edit_requests=np.ones(1, np.int32),
        edit_tokens=np.zeros(1, np.int32),
        factors=np.ones(1, np.float32),
        added=np.zeros(1, np.float32),
        masks=np.full((1, (logits.shape[1] + 31) // 32), -1, np.int32),
    )
    sample_adjusted(logits, tokens, positions, adjustments, copy)


def _sample_part(logits: Tensor, tokens: Tensor, positions: Tensor, part: _Part) -> None:
    requests, edit_requests, edit_tokens = part.requests.long(), part.edit_requests.long(), part.edit_tokens.long()
    scores = logits[requests].float()
    if len(edit_tokens):
        edited = scores[edit_requests, edit_tokens]
        edited = torch.where(edited > 0, edited / part.factors, edited * part.factors) + part.added
        scores[edit_requests, edit_tokens] = edited
    if len(part.masks):
        scores[: len(part.masks)].masked_fill_(_allowed(part.masks, scores.shape[1]).logical_not_(), -torch.inf)
    if part.has_min_p:
        # Relative to the most likely token after the temperature; 0 makes it minus infinity.
        floor = scores.amax(-1) + part.sampling[TEMPERATURE].view(torch.float32) * part.min_p.log()
        scores.masked_fill_(scores < floor[:, None], -torch.inf)
    sampled = sample_tokens(scores, part.sampling, positions[requests])
    before = tokens[requests]
    tokens[requests] = torch.where(before == INVALID_TOKEN, before, sampled.to(before.dtype))


def _allowed(masks: Tensor, vocabulary: int) -> Tensor:
    """Rows of 32-bit words as booleans, one for each token of the vocabulary."""
    bits = torch.arange(8, dtype=torch.uint8, device=masks.device)
    allowed = (masks.view(torch.uint8)[:, :, None] >> bits).bitwise_and_(1).bool().flatten(1)
    missing = vocabulary - allowed.shape[1]
    return torch.nn.functional.pad(allowed, (0, missing)) if missing > 0 else allowed[:, :vocabulary]


def _copy_part(part: Adjustments, copy: Copy) -> _Part:
    requests, sampling, min_p, edit_requests, edit_tokens, factors, added, _, masks = copy(part.arrays())
    return _Part(
        requests,
        sampling.view(part.sampling.shape),
        min_p.view(torch.float32),
        edit_requests,
        edit_tokens,
        factors.view(torch.float32),
        added.view(torch.float32),
        masks.view(part.masks.shape),
        bool(part.min_p.any()),
    )
