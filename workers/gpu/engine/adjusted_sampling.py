"""Sampling with adjusted logits: applies penalties, biases, grammars and ``min_p`` in float32, then samples again.

Plain torch, the same on every device. It only touches the requests that have adjustments.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workers.gpu.engine.adjustments import Adjustments
from workers.gpu.engine.sampling import TEMPERATURE, sample_tokens
from workers.gpu.engine.step import INVALID_TOKEN

# Logits of this many requests are adjusted at once: with a vocabulary of 128,000 they take 33 MB.
SLICE = 64


@dataclass(frozen=True)
class _Slice:
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


def sample_adjusted(logits: Tensor, tokens: Tensor, positions: Tensor, adjustments: Adjustments) -> None:
    """Replace the ``tokens`` of the adjusted requests, one for each row of ``logits``, by tokens of their adjusted logits.

    An invalid token stays: it means that the logits themselves are NaN or infinite. Does not wait for a GPU.
    """
    for part in _slices(adjustments, logits.device):
        scores = logits[part.requests].float()
        if len(part.edit_tokens):
            edited = scores[part.edit_requests, part.edit_tokens]
            edited = torch.where(edited > 0, edited / part.factors, edited * part.factors) + part.added
            scores[part.edit_requests, part.edit_tokens] = edited
        if len(part.masks):
            scores[: len(part.masks)].masked_fill_(_allowed(part.masks, scores.shape[1]).logical_not_(), -torch.inf)
        if part.has_min_p:
            # Relative to the most likely token after the temperature; 0 makes it minus infinity.
            floor = scores.amax(-1) + part.sampling[TEMPERATURE].view(torch.float32) * part.min_p.log()
            scores.masked_fill_(scores < floor[:, None], -torch.inf)
        sampled = sample_tokens(scores, part.sampling, positions[part.requests])
        before = tokens[part.requests]
        tokens[part.requests] = torch.where(before == INVALID_TOKEN, before, sampled.to(before.dtype))


def _allowed(masks: Tensor, vocabulary: int) -> Tensor:
    """Rows of 32-bit words as booleans, one for each token of the vocabulary."""
    bits = torch.arange(8, dtype=torch.uint8, device=masks.device)
    allowed = (masks.view(torch.uint8)[:, :, None] >> bits).bitwise_and_(1).bool().flatten(1)
    missing = vocabulary - allowed.shape[1]
    return torch.nn.functional.pad(allowed, (0, missing)) if missing > 0 else allowed[:, :vocabulary]


def _slices(adjustments: Adjustments, device: torch.device) -> list[_Slice]:
    """The tensors of ``SLICE`` requests each, by one copy to the device."""
    count = len(adjustments.requests)
    parts = (
        [adjustments] if 0 < count <= SLICE else [_part(adjustments, start, start + SLICE) for start in range(0, count, SLICE)]
    )
    if not parts:
        return []
    arrays = [part.arrays() for part in parts]
    flat = torch.from_numpy(np.concatenate([array for own in arrays for array in own]))
    if device.type == "cuda":
        flat = flat.pin_memory().to(device, non_blocking=True)
    pieces = iter(torch.split(flat, [len(array) for own in arrays for array in own]))
    slices = []
    for part in parts:
        requests, sampling, min_p, edit_requests, edit_tokens, factors, added, _, masks = (next(pieces) for _ in arrays[0])
        slices.append(
            _Slice(
                requests.long(),
                # As many columns each time, because the kernel is compiled again for other strides.
                sampling.new_zeros(len(part.sampling), SLICE)[:, : len(requests)].copy_(sampling.view(part.sampling.shape)),
                min_p.view(torch.float32),
                edit_requests.long(),
                edit_tokens.long(),
                factors.view(torch.float32),
                added.view(torch.float32),
                masks.view(part.masks.shape),
                bool(part.min_p.any()),
            )
        )
    return slices


def _part(adjustments: Adjustments, start: int, end: int) -> Adjustments:
    """The adjustments of some of the requests."""
    edits = slice(*np.searchsorted(adjustments.edit_requests, (start, end)).tolist())
    return Adjustments(
        adjustments.requests[start:end],
        adjustments.sampling[:, start:end],
        adjustments.min_p[start:end],
        adjustments.edit_requests[edits] - np.int32(start),
        adjustments.edit_tokens[edits],
        adjustments.factors[edits],
        adjustments.added[edits],
        adjustments.masks[start:end],
    )
