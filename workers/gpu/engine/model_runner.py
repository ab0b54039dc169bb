"""Model runner: runs scheduled steps on the device and returns the sampled tokens."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from workers.gpu.engine.adjusted_sampling import Copy, PinnedCopier, from_host, sample_adjusted
from workers.gpu.engine.adjustments import Adjustments
from workers.gpu.engine.arrays import Integers
from workers.gpu.engine.grammars import Masks, mask_rows
from workers.gpu.engine.logprobs import ScoreTensors, score_tokens
from workers.gpu.engine.page_cache import SPARE_PAGE
from workers.gpu.engine.paged_attention import SdpaAttention
from workers.gpu.engine.sampling import sample_tokens
from workers.gpu.engine.step import StepInput, StepResult, TokenScores

Forward = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Computes logits (N, vocabulary) from ids (T), positions (T) and the indices (N) of the tokens after which they are wanted."""


class StartedStep(Protocol):
    """A step that the device computes."""

    def mask_rows(self, count: int, words: int) -> Masks:
        """Memory for the masks of its ``Adjustments``, from which they reach the device fast. It may hold anything."""
        ...

    def adjust(self, adjustments: Adjustments) -> None:
        """Have a step that ``is_adjusted`` sample. Call it once, before the next step starts and before ``result``."""
        ...

    def result(self) -> StepResult:
        """Wait for the step."""
        ...


class ModelRunner(Protocol):
    """Runs one step after the other."""

    def start_step(self, step: StepInput) -> StartedStep:
        """Start a step. At most two may be running."""
        ...


def model_forward(model: Any) -> Forward:
    """The forward pass of any causal language model of transformers, whose attention function knows the step."""

    def forward(ids: Tensor, positions: Tensor, last: Tensor) -> Tensor:
        logits: Tensor = model(
            input_ids=ids[None], position_ids=positions[None], use_cache=False, logits_to_keep=last, return_dict=True
        ).logits[0]
        return logits

    return forward


class RowState:
    """What stays between the steps: the pages and the last token of each row, and of a spare row for padding."""

    def __init__(self, max_requests: int, max_pages: int, device: Any) -> None:
        self.spare_row = max_requests
        self.tables = np.full((max_requests + 1, max_pages), SPARE_PAGE, np.int32)
        self.last_tokens = torch.zeros(max_requests + 1, dtype=torch.long, device=device)

    def resolve(self, ids: Tensor) -> Tensor:
        """Replace ``-1 - row`` by the last token of the row. No embedding has a row for an invalid token."""
        return torch.where(ids >= 0, ids, self.last_tokens[(-1 - ids).clamp(min=0)]).clamp(min=0)

    def set_tables(self, step: StepInput) -> None:
        for row, pages in step.tables:
            self.tables[row, : len(pages)] = pages
            self.tables[row, len(pages) :] = SPARE_PAGE


class PlainRunner:
    """Runs each step as it is, and returns when it has ended. For the CPU, and GPUs without FlashAttention."""

    def __init__(self, forward: Forward, attention: SdpaAttention, max_requests: int, max_pages: int, device: Any) -> None:
        self._forward, self._attention, self._device = forward, attention, device
        self._state = RowState(max_requests, max_pages, device)
        self._copy: Copy = from_host if torch.device(device).type == "cpu" else PinnedCopier(device, 1)

    @torch.inference_mode()
    def start_step(self, step: StepInput) -> StartedStep:
        self._state.set_tables(step)
        self._attention.zero_pages(step.zeroed)
        ids, positions, slots, contexts, rows, sampling = (
            torch.from_numpy(array).to(self._device)
            for array in (step.ids, step.positions, step.slots, step.contexts, step.rows, step.sampling)
        )
        self._attention.begin_step(step, self._state.tables, slots.long())
        last = torch.from_numpy(np.concatenate([np.cumsum(step.query_lengths) - 1, step.scored])).to(self._device)
        logits = self._forward(self._state.resolve(ids.long()), positions.long(), last)
        tokens = sample_tokens(logits[: len(rows)], sampling, contexts)
        started = _PlainStep(self._state, self._copy, step, logits, tokens, contexts, rows.long())
        if not step.is_adjusted:
            started.complete()
        return started


class _PlainStep:
    """A step of ``PlainRunner``, whose logits are known."""

    def __init__(
        self, state: RowState, copy: Copy, step: StepInput, logits: Tensor, tokens: Tensor, contexts: Tensor, rows: Tensor
    ) -> None:
        self._state, self._copy, self._step = state, copy, step
        self._logits, self._tokens, self._contexts, self._rows = logits, tokens, contexts, rows
        self._result: StepResult
        self.mask_rows = mask_rows

    @torch.inference_mode()
    def adjust(self, adjustments: Adjustments) -> None:
        sample_adjusted(self._logits, self._tokens, self._contexts, adjustments, self._copy)
        self.complete()

    def complete(self) -> None:
        """Keep what was sampled, and the scores, but not the logits."""
        self._state.last_tokens[self._rows] = self._tokens
        scores = [to_host(each) for each in score_step(self._step, self._logits, self._tokens, len(self._rows))]
        self._result = StepResult(self._tokens.to("cpu", torch.int32).numpy(), *(token_scores(each) for each in scores))
        del self._logits

    def result(self) -> StepResult:
        return self._result


def score_step(step: StepInput, logits: Tensor, tokens: Tensor, requests: int) -> list[ScoreTensors | None]:
    """Scores of the sampled tokens and of the targets of a step. The logits of the targets follow those of the ``requests``."""
    scores: list[ScoreTensors | None] = [None, None]
    if len(step.reported):
        rows = to_device(step.reported, logits.device).long()
        scores[0] = score_tokens(logits, rows, tokens[rows], step.top)
    if len(step.scored):
        rows = torch.arange(requests, requests + len(step.scored), device=logits.device)
        scores[1] = score_tokens(logits, rows, to_device(step.targets, logits.device), step.top)
    return scores


def to_device(array: Integers, device: torch.device) -> Tensor:
    """Copy without waiting for a GPU."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def to_host(scores: ScoreTensors | None) -> ScoreTensors | None:
    """Copies that are valid when the device has reached this point."""
    if scores is None:
        return None
    copies = []
    for tensor in (scores.logprobs, scores.top_tokens, scores.top_logprobs):
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        copies.append(copy.copy_(tensor, non_blocking=True))
    return ScoreTensors(*copies)


def token_scores(scores: ScoreTensors | None) -> TokenScores | None:
    if scores is None:
        return None
    return TokenScores(scores.logprobs.numpy(), scores.top_tokens.numpy(), scores.top_logprobs.numpy())
