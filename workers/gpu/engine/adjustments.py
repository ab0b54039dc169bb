"""Adjustments of logits (logits processors): penalties, biases and grammars of some requests of a step, before they are sampled.

They depend on every earlier token of a request, so they are made when the step before has been processed, while the device
already computes the logits. A request without them costs nothing.

Holds no tensors; not thread-safe.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.gpu.engine.arrays import Integers, decode_arrays, encode_arrays
from workers.gpu.engine.grammars import GrammarMatcher, MaskFiller, MaskMemory, mask_rows
from workers.gpu.engine.messages import FinishReason, GenerationRequest
from workers.gpu.engine.step import SAMPLING_FIELDS

Floats = NDArray[np.float32]

_EMPTY = np.zeros(0, np.int32)
KERNEL_HEADER = 4
"""Numbers before the parameters of the sampling kernel: how many requests, how many of them have a mask, the words of a mask. Aligned to 16
bytes."""


@dataclass(frozen=True)
class Adjustments:
    """For A of the R requests of a step; the others sample as they are.

    ``requests`` (A) are their indices in the step; ``sampling`` (SAMPLING_FIELDS, A) and ``min_p`` (A) their parameters. Logits are
    edited one by one: ``edit_requests`` (E, ascending) are indices of ``requests``, ``edit_tokens`` (E) are distinct for each
    request, ``factors`` (E) divide positive logits and multiply negative ones, then ``added`` (E) is added. The first M requests
    have a grammar: ``masks`` (M, words of 32 tokens) has a bit for each token that it allows.
    """

    requests: Integers
    sampling: Integers
    min_p: Floats
    edit_requests: Integers
    edit_tokens: Integers
    factors: Floats
    added: Floats
    masks: Integers

    def arrays(self) -> list[Integers]:
        """All fields as one-dimensional int32, in order; floats keep their bits."""
        return [
            array.ravel().view(np.int32)
            for array in (
                *(self.requests, self.sampling, self.min_p, self.edit_requests, self.edit_tokens, self.factors, self.added),
                *(np.array([len(self.masks)], np.int32), self.masks),
            )
        ]

    def select(self, chosen: NDArray[np.integer[Any]]) -> "Adjustments":
        """The adjustments of some of the requests: ``chosen`` are indices of ``requests``, ascending."""
        places = np.searchsorted(chosen, self.edit_requests)
        kept = np.flatnonzero(np.isin(self.edit_requests, chosen))
        return Adjustments(
            self.requests[chosen],
            self.sampling[:, chosen],
            self.min_p[chosen],
            places[kept].astype(np.int32),
            self.edit_tokens[kept],
            self.factors[kept],
            self.added[kept],
            self.masks[chosen[chosen < len(self.masks)]],
        )

    def write_parameters(self, target: Integers, capacity: int) -> None:
        """Write what the sampling kernel reads of at most ``capacity`` requests to ``target``, of ``parameters_length`` elements."""
        count = len(self.requests)
        target[:KERNEL_HEADER] = count, len(self.masks), self.masks.shape[1], 0
        columns = target[KERNEL_HEADER : parameters_length(capacity)].reshape(-1, capacity)
        columns[:SAMPLING_FIELDS, :count] = self.sampling
        columns[SAMPLING_FIELDS, :count] = self.requests
        columns[SAMPLING_FIELDS + 1, :count] = self.min_p.view(np.int32)

    def encode(self) -> bytes:
        """Serialize for another rank of a tensor-parallel group."""
        return encode_arrays(self.arrays())

    @classmethod
    def decode(cls, data: bytes) -> "Adjustments":
        """Parse the output of ``encode``."""
        requests, sampling, min_p, edit_requests, edit_tokens, factors, added, (masked,), masks = decode_arrays(data)
        return cls(
            requests,
            _rows(sampling, len(sampling) // max(len(requests), 1)),
            min_p.view(np.float32),
            edit_requests,
            edit_tokens,
            factors.view(np.float32),
            added.view(np.float32),
            _rows(masks, int(masked)),
        )


def parameters_length(capacity: int) -> int:
    """How many elements ``Adjustments.write_parameters`` needs."""
    return KERNEL_HEADER + (SAMPLING_FIELDS + 2) * capacity


class LogitAdjuster:
    """How the logits of one request are adjusted, as its tokens are generated.

    The order is: repetition penalty, presence and frequency penalty, bias, grammar, ``min_p``.
    """

    def __init__(self, request: GenerationRequest, sampling: Sequence[int], matcher: GrammarMatcher | None = None) -> None:
        self.sampling = tuple(sampling)
        self.min_p = request.min_p
        self.matcher = matcher
        self._presence, self._frequency = request.presence_penalty, request.frequency_penalty
        self._repetition = request.repetition_penalty
        self._edits = _TokenEdits()
        if self._repetition != 1.0:
            self._edits.divide(np.unique(np.array(request.prompt, np.int32)).tolist(), self._repetition)
        for token, bias in request.logit_bias:
            self._edits.add(token, bias)
        generated = request.prompt[len(request.prompt) - request.generated_tokens :]
        for token, count in Counter(generated).items() if self._presence or self._frequency else ():
            self._edits.add(token, -self._presence - self._frequency * count)
        self._seen = set(generated)

    @property
    def has_edits(self) -> bool:
        """Whether any logit is edited."""
        return len(self._edits) > 0

    @property
    def edits(self) -> tuple[Integers, Floats, Floats]:
        """Tokens with an edited logit, with their factors and addends."""
        return self._edits.arrays

    def accept(self, token: int) -> tuple[FinishReason, str] | None:
        """Take a generated token into account. Returns why the request ends with it, if its grammar allows no other token."""
        if self._presence or self._frequency:
            self._edits.add(token, -self._frequency - (0.0 if token in self._seen else self._presence))
            self._seen.add(token)
        if self._repetition != 1.0:
            self._edits.divide([token], self._repetition)
        return self.matcher.accept(token) if self.matcher is not None else None


def needs_adjuster(request: GenerationRequest) -> bool:
    """Whether the logits of a request change before it samples."""
    return bool(
        request.grammar
        or request.logit_bias
        or request.presence_penalty
        or request.frequency_penalty
        or request.repetition_penalty != 1.0
        or (request.min_p and request.temperature)
    )


class AdjustedRequests:
    """The adjusted requests of a step: their indices in it and their adjusters. Steps of the same requests share one."""

    def __init__(self, adjusters: Sequence[tuple[int, LogitAdjuster]]) -> None:
        adjusters = sorted(adjusters, key=lambda pair: pair[1].matcher is None)
        self._adjusters = [adjuster for _, adjuster in adjusters]
        self._requests = np.array([index for index, _ in adjusters], np.int32)
        self._sampling = np.array([adjuster.sampling for adjuster in self._adjusters], np.int32).T.copy()
        self._min_p = np.array([adjuster.min_p for adjuster in self._adjusters], np.float32)
        matchers = [adjuster.matcher for adjuster in self._adjusters if adjuster.matcher is not None]
        self._masks = MaskFiller(matchers) if matchers else None

    def adjust(self, memory: MaskMemory = mask_rows) -> Adjustments:
        """The adjustments after the tokens that the adjusters have accepted, with the masks in ``memory``."""
        edited = [(number, *adjuster.edits) for number, adjuster in enumerate(self._adjusters) if adjuster.has_edits]
        nothing = (_EMPTY, _EMPTY, _EMPTY.view(np.float32), _EMPTY.view(np.float32))
        edits = [(np.full(len(tokens), number, np.int32), tokens, *values) for number, tokens, *values in edited]
        edit_requests, tokens, factors, added = (np.concatenate(parts) for parts in zip(nothing, *edits, strict=True))
        return Adjustments(
            self._requests,
            self._sampling,
            self._min_p,
            edit_requests,
            tokens,
            factors,
            added,
            self._masks.fill(memory) if self._masks else _EMPTY.reshape(0, 0),
        )

    def errors(self) -> list[tuple[int, str]]:
        """Which requests of the step cannot go on, and why."""
        return [
            (int(index), adjuster.matcher.error)
            for index, adjuster in zip(self._requests, self._adjusters, strict=True)
            if adjuster.matcher is not None and adjuster.matcher.error
        ]


def _rows(array: Integers, count: int) -> Integers:
    return array.reshape(count, len(array) // max(count, 1))


class _TokenEdits:
    """Factor and addend of each token with an edited logit, in arrays that grow."""

    def __init__(self) -> None:
        self._index: dict[int, int] = {}
        self._tokens = np.zeros(16, np.int32)
        self._factors = np.ones(16, np.float32)
        self._added = np.zeros(16, np.float32)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def arrays(self) -> tuple[Integers, Floats, Floats]:
        count = len(self._index)
        return self._tokens[:count], self._factors[:count], self._added[:count]

    def divide(self, tokens: list[int], factor: float) -> None:
        for token in tokens:
            index = self._find(token)
            self._factors[index] = factor

    def add(self, token: int, value: float) -> None:
        index = self._find(token)
        self._added[index] += value

    def _find(self, token: int) -> int:
        """The index of a token. Replaces the arrays when they are full."""
        index = self._index.setdefault(token, len(self._index))
        if index == len(self._tokens):
            self._tokens = np.concatenate([self._tokens, np.zeros(index, np.int32)])
            self._factors = np.concatenate([self._factors, np.ones(index, np.float32)])
            self._added = np.concatenate([self._added, np.zeros(index, np.float32)])
        self._tokens[index] = token
        return index
