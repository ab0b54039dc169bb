"""Step: what the device needs for one step of the engine, and what it has computed. Holds no tensors."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from workers.gpu.engine.arrays import Integers, decode_arrays, encode_arrays
from workers.gpu.engine.messages import TokenLogprobs

INVALID_TOKEN = -1
"""Stands for a token that could not be chosen, because its largest logit is NaN or infinite."""

SAMPLING_FIELDS = 4
"""How many sampling parameters a request has; see ``sampling.encode_sampling``."""

_EMPTY = np.zeros(0, np.int32)


@dataclass(frozen=True)
class StepInput:
    """Everything that the device needs for one step over T tokens of R requests, concatenated.

    ``ids`` (T) has token ids, or ``-1 - row`` for the last token that a row has sampled, which is still on the device.
    ``positions`` (T) are places in the request, ``slots`` (T) places in the cache. ``query_lengths``, ``contexts`` (tokens in the
    cache after the step) and ``rows`` have R elements, ``sampling`` is (SAMPLING_FIELDS, R). Each request samples a token after its last
    one. ``tables`` are the pages of rows that are new, and ``zeroed`` pages that have to be zeroed first.

    Log-probabilities are wanted of ``targets`` after the tokens at ``scored`` (indices of T), and of what the requests ``reported``
    (indices of R) sample, with the ``top`` most likely tokens. A step that ``is_adjusted`` samples when it gets its ``Adjustments``.
    """

    ids: Integers
    positions: Integers
    slots: Integers
    query_lengths: Integers
    contexts: Integers
    rows: Integers
    sampling: Integers
    tables: list[tuple[int, list[int]]] = field(default_factory=list)
    zeroed: list[int] = field(default_factory=list)
    scored: Integers = field(default_factory=lambda: _EMPTY)
    targets: Integers = field(default_factory=lambda: _EMPTY)
    reported: Integers = field(default_factory=lambda: _EMPTY)
    top: int = 0
    is_adjusted: bool = False

    def encode(self) -> bytes:
        """Serialize for another rank of a tensor-parallel group."""
        tables = [number for row, pages in self.tables for number in (row, len(pages), *pages)]
        return encode_arrays(
            [
                *(self.ids, self.positions, self.slots, self.query_lengths, self.contexts, self.rows, self.sampling.ravel()),
                np.array(tables, np.int32),
                np.array(self.zeroed, np.int32),
                *(self.scored, self.targets, self.reported, np.array([self.top, self.is_adjusted], np.int32)),
            ]
        )

    @classmethod
    def decode(cls, data: bytes) -> "StepInput":
        """Parse the output of ``encode``."""
        ids, positions, slots, query_lengths, contexts, rows, sampling, tables, zeroed, *extras = decode_arrays(data)
        scored, targets, reported, (top, is_adjusted) = extras
        pages_of: list[tuple[int, list[int]]] = []
        at = 0
        while at < len(tables):
            row, count = tables[at : at + 2].tolist()
            pages_of.append((row, tables[at + 2 : at + 2 + count].tolist()))
            at += 2 + count
        sampling = sampling.reshape(SAMPLING_FIELDS, -1)
        return cls(
            *(ids, positions, slots, query_lengths, contexts, rows, sampling, pages_of, zeroed.tolist()),
            *(scored, targets, reported, int(top), bool(is_adjusted)),
        )


@dataclass(frozen=True)
class TokenScores:
    """Natural log-probabilities of N tokens, and the ``top`` most likely tokens in place of each, best first: (N, top)."""

    logprobs: NDArray[np.float32]
    top_tokens: Integers
    top_logprobs: NDArray[np.float32]

    def entry(self, index: int, token: int, top: int) -> TokenLogprobs:
        """The entry of one of the tokens."""
        likely = zip(self.top_tokens[index, :top].tolist(), self.top_logprobs[index, :top].tolist(), strict=True)
        return token, float(self.logprobs[index]), list(likely)


@dataclass(frozen=True)
class StepResult:
    """What a step has computed: a token for each request; scores of those of ``reported``, and of ``targets``, if there are any."""

    tokens: Integers
    reported: TokenScores | None = None
    scored: TokenScores | None = None
