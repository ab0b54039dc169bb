"""Grammars that limit which tokens a request may generate, compiled and matched by llguidance.

llguidance keeps the state of each request and writes the tokens that it may generate next as a row of bits.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llguidance import LLExecutor, LLMatcher, LLParserLimits, LLTokenizer
from llguidance.numpy import fill_next_token_bitmask_par
from numpy.typing import NDArray

from workers.gpu.engine.messages import FinishReason

Masks = NDArray[np.int32]
MaskMemory = Callable[[int, int], Masks]
"""Gives memory for a number of rows of a number of words."""

_END = "<|end of constrained output|>"
_TOO_COMPLEX = "the grammar has become too complex to go on"
# Longer explanations repeat the grammar.
_MAX_DETAIL = 300
# Grammars that are kept compiled, each with up to some megabytes.
_MAX_COMPILED = 64
# Rows that are left after this time are filled in threads. Most take a few microseconds, less than it takes to wake a thread.
SERIAL_SECONDS = 0.001


class GrammarError(Exception):
    """A grammar that cannot be used, and why."""


class GrammarCompiler:
    """Compiles grammars for the tokens of one model. ``make_tokenizer`` is called on the first use, because it takes seconds.

    Its tokenizer ends texts with a token that the model never generates: then a row of bits shows whether the output may end here,
    and the tokens that really end it can differ by request.
    """

    def __init__(self, make_tokenizer: Callable[[], LLTokenizer]) -> None:
        self._make_tokenizer = make_tokenizer
        self._tokenizer: LLTokenizer | None = None
        self._lock = threading.Lock()
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        """Unused matchers of recent grammars: copying one takes microseconds. Least recently used first."""

    def compile(self, grammar: str, stop_token_ids: Sequence[int], generated: Sequence[int] = ()) -> "GrammarMatcher":
        """A matcher that has read ``generated``. Takes up to a second for a new grammar, and may be called from any thread.

        Raises GrammarError.
        """
        with self._lock:
            if self._tokenizer is None:
                try:
                    self._tokenizer = self._make_tokenizer()
                except (ValueError, OSError) as error:
                    raise GrammarError(f"the model's tokenizer cannot be used with grammars: {error}") from error
            matcher = self._copy(grammar)
        if matcher is None:
            # Errors would otherwise contain the output so far.
            limits = LLParserLimits(verbose_errors=False)
            matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=limits)
            if matcher.is_error():
                raise GrammarError(f"the grammar is invalid: {_first_line(matcher.get_error())}")
            with self._lock:
                self._compiled[grammar] = matcher.deep_copy()
                if len(self._compiled) > _MAX_COMPILED:
                    self._compiled.popitem(last=False)
        if generated and not matcher.consume_tokens(list(generated)):
            raise GrammarError("the output so far does not match the grammar")
        return GrammarMatcher(matcher, self._tokenizer, stop_token_ids)

    def _copy(self, grammar: str) -> LLMatcher | None:
        """A matcher of a grammar that was compiled lately."""
        if grammar not in self._compiled:
            return None
        self._compiled.move_to_end(grammar)
        return self._compiled[grammar].deep_copy()


def make_grammar_tokenizer(backend: Any, vocabulary_size: int) -> LLTokenizer:
    """A tokenizer for a GrammarCompiler from one of the library ``tokenizers``. Raises ValueError if it is not made of bytes."""
    tokenizer = type(backend).from_str(backend.to_str())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.add_special_tokens([_END])
    size = max(vocabulary_size, tokenizer.get_vocab_size(with_added_tokens=True))
    return LLTokenizer(tokenizer.to_str(), n_vocab=size, eos_token=tokenizer.token_to_id(_END))


class GrammarMatcher:
    """The state of one request's grammar. Its output may end where the grammar is complete, by one of ``stop_token_ids``."""

    def __init__(self, matcher: LLMatcher, tokenizer: LLTokenizer, stop_token_ids: Sequence[int]) -> None:
        self.matcher = matcher
        size = tokenizer.vocab_size
        self.words = (size + 31) // 32
        """Length of a row of bits."""
        self.end = tokenizer.eos_token
        self.stops = tuple(sorted({token for token in stop_token_ids if 0 <= token < size and token != self.end}))

    @property
    def is_complete(self) -> bool:
        """Whether the grammar allows no more output."""
        return self.matcher.is_stopped() and not self.matcher.is_error()

    @property
    def error(self) -> str:
        """Why no token can be allowed any more; usually empty."""
        return _TOO_COMPLEX if self.matcher.is_error() else ""

    def accept(self, token: int) -> tuple[FinishReason, str] | None:
        """Advance by a generated token. Returns why the output ends with it, if it does."""
        if not self.matcher.consume_token(token):
            return "failed", _TOO_COMPLEX
        return ("stop", "") if self.matcher.is_stopped() and self.is_complete else None


def mask_rows(count: int, words: int) -> Masks:
    """Memory for masks."""
    return np.zeros((count, words), np.int32)


_executor: list[LLExecutor] = []


class MaskFiller:
    """Fills the masks of one or more matchers, which are those of one tokenizer, as often as wanted."""

    def __init__(self, matchers: Sequence[GrammarMatcher]) -> None:
        self._matchers = [matcher.matcher for matcher in matchers]
        self._words = matchers[0].words
        self._end = _position(matchers[0].end)
        rows_of: dict[tuple[int, ...], list[int]] = {}
        for row, matcher in enumerate(matchers):
            rows_of.setdefault(matcher.stops, []).append(row)
        self._stops = [([_position(token) for token in stops], np.array(rows)) for stops, rows in rows_of.items() if stops]

    def fill(self, memory: MaskMemory = mask_rows) -> Masks:
        """A row of bits for each matcher. ``GrammarMatcher.error`` is set where that failed."""
        masks = memory(len(self._matchers), self._words)
        length = self._words * masks.itemsize
        start, deadline = masks.ctypes.data, time.perf_counter() + SERIAL_SECONDS
        for row, matcher in enumerate(self._matchers):
            matcher.unsafe_compute_mask_ptr(start + row * length, length)
            if row + 1 < len(self._matchers) and time.perf_counter() > deadline:
                self._fill_in_threads(masks, row + 1)
                break
        self._replace_ends(masks)
        return masks

    def _fill_in_threads(self, masks: Masks, first: int) -> None:
        if not _executor:
            _executor.append(LLExecutor())
        rows = range(first, len(self._matchers))
        fill_next_token_bitmask_par(_executor[0], [(self._matchers[row], row) for row in rows], masks)

    def _replace_ends(self, masks: Masks) -> None:
        """Allow the stop tokens of each row where its output may end, and only there."""
        word, bit = self._end
        may_end = (masks[:, word] & bit) != 0
        masks[:, word] &= ~bit
        for positions, rows in self._stops:
            ends, others = rows[may_end[rows]], rows[~may_end[rows]]
            for word, bit in positions:
                masks[ends, word] |= bit
            # Few grammars match a stop token as text.
            matched = np.zeros(len(others), np.bool_)
            for word, bit in positions:
                matched |= (masks[others, word] & bit) != 0
            for row in others[matched].tolist():
                without = masks[row].copy()
                for word, bit in positions:
                    without[word] &= ~bit
                # Not if the text goes on with nothing but a token that ends the request.
                if without.any():
                    masks[row] = without


def fill_masks(matchers: Sequence[GrammarMatcher], memory: MaskMemory = mask_rows) -> Masks:
    """The masks of matchers whose ``MaskFiller`` is not worth keeping."""
    return MaskFiller(matchers).fill(memory)


def _position(token: int) -> tuple[int, np.int32]:
    """The word of a token in a row, and its bit."""
    number = token % 32
    # The last one is the sign.
    return token // 32, np.int32(1 << number if number < 31 else -(2**31))


def _first_line(error: str) -> str:
    return (error.splitlines() or [""])[0][:_MAX_DETAIL]
