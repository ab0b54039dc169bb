"""Scheduler: which tokens of which requests the next step computes, and what its output means.

A step holds one token of every request that is decoding, and fills the rest of its token budget with chunks of prompts, so a
prompt never stops the running outputs. A request is admitted when the cache has pages for it to its last token, so none is ever
evicted and computed again. Requests are rows of arrays: a step over hundreds of them is a few array operations.

Holds no tensors; not thread-safe.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from workers.gpu.engine.messages import FinishedRequest, FinishReason
from workers.gpu.engine.page_cache import SPARE_PAGE, PageCache

Integers = NDArray[np.int32]

INVALID_TOKEN = -1
"""Stands for a token that could not be chosen, because its largest logit is NaN or infinite."""

SAMPLING_FIELDS = 4
"""How many sampling parameters a request has; see ``sampling.encode_sampling``."""

# How many requests may overtake one that does not fit; after that, freed pages are kept for it.
MAX_OVERTAKES = 256


@dataclass(frozen=True)
class StepInput:
    """Everything that the device needs for one step over T tokens of R requests, concatenated.

    ``ids`` (T) has token ids, or ``-1 - row`` for the last token that a row has sampled, which is still on the device.
    ``positions`` (T) are places in the request, ``slots`` (T) places in the cache. ``query_lengths``, ``contexts`` (tokens in the
    cache after the step) and ``rows`` have R elements, ``sampling`` is (SAMPLING_FIELDS, R). Each request samples a token after its last
    one. ``tables`` are the pages of rows that are new, and ``zeroed`` pages that have to be zeroed first.
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

    def encode(self) -> bytes:
        """Serialize for another rank of a tensor-parallel group."""
        tables = [[row, len(pages), *pages] for row, pages in self.tables]
        parts = [
            *(self.ids, self.positions, self.slots, self.query_lengths, self.contexts, self.rows, self.sampling.ravel()),
            np.array([number for table in tables for number in table], np.int32),
            np.array(self.zeroed, np.int32),
        ]
        return np.concatenate([np.array([len(part) for part in parts], np.int32), *parts]).tobytes()

    @classmethod
    def decode(cls, data: bytes) -> "StepInput":
        """Parse the output of ``encode``."""
        numbers = np.frombuffer(data, np.int32).copy()
        ends = np.cumsum(numbers[:9]) + 9
        parts = [numbers[end - size : end] for end, size in zip(ends, numbers[:9], strict=True)]
        ids, positions, slots, query_lengths, contexts, step_rows, sampling, tables, zeroed = parts
        pages_of: list[tuple[int, list[int]]] = []
        at = 0
        while at < len(tables):
            row, count = tables[at : at + 2].tolist()
            pages_of.append((row, tables[at + 2 : at + 2 + count].tolist()))
            at += 2 + count
        sampling = sampling.reshape(SAMPLING_FIELDS, -1)
        return cls(ids, positions, slots, query_lengths, contexts, step_rows, sampling, pages_of, zeroed.tolist())


@dataclass(frozen=True)
class ScheduledStep:
    """A step whose output has not been processed. For each of its ``rows``: whether it outputs a token, and its last one."""

    input: StepInput
    is_output: NDArray[np.bool_]
    is_last: NDArray[np.bool_]
    is_first: bool


class DeliverStep(Protocol):
    """Receives the output of a step: one token for each of ``ids``, then the requests that finished."""

    def __call__(self, ids: list[str], tokens: list[int], finished: list[FinishedRequest], *, first: bool) -> None: ...


@dataclass(eq=False)
class QueuedRequest:
    """A request as the scheduler keeps it. ``computed``: tokens of its prompt that scheduled steps have computed."""

    id: str
    prompt: Integers
    max_new_tokens: int
    stop_token_ids: frozenset[int]
    sampling: tuple[int, ...]
    cache_salt: int
    digests: list[bytes]
    row: int = -1
    pages: list[int] = field(default_factory=list)
    computed: int = 0
    output: list[int] = field(default_factory=list)
    overtaken: int = 0

    @property
    def max_tokens(self) -> int:
        return len(self.prompt) + self.max_new_tokens

    @property
    def remaining_prompt(self) -> int:
        return len(self.prompt) - self.computed


class Scheduler:
    """For up to ``max_requests`` requests at once and ``max_step_tokens`` tokens per step, at least one for each request."""

    def __init__(self, cache: PageCache, max_requests: int, max_step_tokens: int, deliver: DeliverStep) -> None:
        self.cache = cache
        self.max_step_tokens = max_step_tokens
        self.prompt_tokens = 0
        """Prompt tokens of all admitted requests."""
        self.cached_tokens = 0
        """Those of them that were in the cache, instead of computed."""
        self._deliver = deliver
        self._waiting: deque[QueuedRequest] = deque()
        self._prefilling: list[QueuedRequest] = []
        self._requests: dict[str, QueuedRequest] = {}
        self._by_row: list[QueuedRequest | None] = [None] * max_requests
        self._free_rows = list(range(max_requests - 1, -1, -1))
        # Rows that decode, in the order in which they began to.
        self._decoding = np.zeros(0, np.int32)
        self._position = np.zeros(max_requests, np.int32)
        """Place of the next token of each decoding row."""
        self._remaining = np.zeros(max_requests, np.int32)
        """Tokens that each decoding row may still be asked for."""
        self._sampling = np.zeros((SAMPLING_FIELDS, max_requests), np.int32)
        self._table = np.full((max_requests, 1), SPARE_PAGE, np.int32)
        self._in_steps = np.zeros(max_requests, np.int32)
        """Scheduled steps of each row whose output has not been processed. Its pages are kept until then."""
        self._has_ended = np.zeros(max_requests, np.bool_)
        self._is_poisoned = np.zeros(max_requests, np.bool_)
        self._stop_counts: dict[int, int] = {}
        self._new_tables: list[tuple[int, list[int]]] = []
        self._zeroed: list[int] = []

    @property
    def waiting(self) -> int:
        """Requests that have not been admitted."""
        return len(self._waiting)

    @property
    def has_work(self) -> bool:
        """Whether a next step can be scheduled, apart from what the cache allows."""
        return bool(len(self._decoding) or self._prefilling or self._waiting)

    # Requests

    def add_request(self, request: QueuedRequest) -> None:
        """Queue a request."""
        self._requests[request.id] = request
        self._waiting.append(request)

    def abort_request(self, id: str) -> None:
        """End a request without reporting it. Unknown ids are ignored."""
        request = self._requests.get(id)
        if request is None:
            return
        if request.row < 0:
            self._waiting.remove(request)
            del self._requests[id]
        elif not self._has_ended[request.row]:
            self._end(request)

    def _admit(self) -> None:
        """Admit the requests that fit, oldest first, except that a short one may overtake a long one for a while."""
        kept: deque[QueuedRequest] = deque()
        blocked: list[QueuedRequest] = []
        closed = False
        while self._waiting and not closed and self._free_rows:
            request = self._waiting.popleft()
            if self.cache.is_being_computed(request.digests):
                # It shares those pages a step or two later.
                kept.append(request)
                continue
            allocation = self.cache.allocate(request.digests, request.max_tokens)
            if allocation is None:
                kept.append(request)
                blocked.append(request)
                closed = request.overtaken >= MAX_OVERTAKES
                continue
            for other in blocked:
                other.overtaken += 1
                closed = closed or other.overtaken >= MAX_OVERTAKES
            self._start(request, allocation.pages, allocation.shared * self.cache.page_size)
        self._waiting = kept + self._waiting

    def _start(self, request: QueuedRequest, pages: list[int], shared_tokens: int) -> None:
        row = request.row = self._free_rows.pop()
        request.pages, request.computed = pages, shared_tokens
        self.prompt_tokens += len(request.prompt)
        self.cached_tokens += shared_tokens
        self._by_row[row] = request
        self._has_ended[row] = self._is_poisoned[row] = False
        self._sampling[:, row] = request.sampling
        if len(pages) > self._table.shape[1]:
            wider = np.full((len(self._table), len(pages)), SPARE_PAGE, np.int32)
            wider[:, : self._table.shape[1]] = self._table
            self._table = wider
        self._table[row, : len(pages)] = pages
        self._new_tables.append((row, pages))
        for token in request.stop_token_ids:
            self._stop_counts[token] = self._stop_counts.get(token, 0) + 1
        self._prefilling.append(request)

    # Scheduling a step

    def next_step(self) -> ScheduledStep | None:
        """Schedule the next step, or return None if no request can go on before the output of the steps that are running."""
        self._admit()
        decoding = self._decoding
        chunks = self._choose_chunks(self.max_step_tokens - len(decoding))
        if not len(decoding) and not chunks:
            return None
        at = self._position[decoding]
        ids, positions, rows = [-1 - decoding], [at], [decoding]
        slots = [self._slots(decoding, at)]
        contexts, lengths = [at + 1], [np.ones(len(decoding), np.int32)]
        is_output, is_last = [np.ones(len(decoding), np.bool_)], [self._remaining[decoding] == 1]
        first = False
        for request, taken in chunks:
            row = np.array([request.row], np.int32)
            places = np.arange(request.computed, request.computed + taken, dtype=np.int32)
            ids.append(request.prompt[request.computed : request.computed + taken])
            positions.append(places)
            slots.append(self._slots(row, places))
            rows.append(row)
            request.computed += taken
            contexts.append(np.array([request.computed], np.int32))
            lengths.append(np.array([taken], np.int32))
            complete = not request.remaining_prompt
            is_output.append(np.array([complete]))
            is_last.append(np.array([complete and request.max_new_tokens == 1]))
            first = first or complete
            self.cache.mark_written(request.pages[: request.computed // self.cache.page_size])
        step_rows = np.concatenate(rows)
        tables, self._new_tables = self._new_tables, []
        zeroed, self._zeroed = self._zeroed, []
        step = ScheduledStep(
            StepInput(
                np.concatenate(ids),
                np.concatenate(positions),
                np.concatenate(slots),
                np.concatenate(lengths),
                np.concatenate(contexts),
                step_rows,
                self._sampling[:, step_rows],
                tables,
                zeroed,
            ),
            np.concatenate(is_output),
            np.concatenate(is_last),
            first,
        )
        self._in_steps[step_rows] += 1
        self._advance(decoding, [request for request, _ in chunks if not request.remaining_prompt])
        return step

    def _choose_chunks(self, room: int) -> list[tuple[QueuedRequest, int]]:
        """Chunks of prompts for ``room`` tokens. A long prompt leaves half of the room to the prompts behind it."""
        if not self._prefilling or room < 1:
            return []
        oldest, *others = self._prefilling
        reserved = min(oldest.remaining_prompt, room if not others else max(room // 2, 1))
        left = room - reserved
        chunks = []
        for request in others:
            if not left:
                break
            taken = min(request.remaining_prompt, left)
            left -= taken
            chunks.append((request, taken))
        return [(oldest, min(oldest.remaining_prompt, reserved + left)), *chunks]

    def _slots(self, rows: Integers, positions: Integers) -> Integers:
        size = self.cache.page_size
        slots: Integers = self._table[rows, positions // size] * size + positions % size
        return slots

    def _advance(self, decoded: Integers, complete: Sequence[QueuedRequest]) -> None:
        """Count one token for the decoded rows and the first one of the requests whose prompt is complete."""
        self._position[decoded] += 1
        self._remaining[decoded] -= 1
        if len(decoded) and int(self._remaining[decoded].min()) <= 0:
            decoded = decoded[self._remaining[decoded] > 0]
        if complete:
            self._prefilling = [request for request in self._prefilling if request.remaining_prompt]
            for request in complete:
                self._position[request.row] = len(request.prompt)
                self._remaining[request.row] = request.max_new_tokens - 1
            new = [request.row for request in complete if request.max_new_tokens > 1]
            decoded = np.concatenate([decoded, np.array(new, np.int32)])
        self._decoding = decoded

    # Processing its output

    def process_output(self, step: ScheduledStep, tokens: Integers) -> None:
        """Deliver the sampled token of each row of a step, and end the requests that it completes."""
        rows = step.input.rows
        self._in_steps[rows] -= 1
        is_invalid = tokens == INVALID_TOKEN
        self._is_poisoned[rows] |= is_invalid
        is_running = ~self._has_ended[rows]
        ends = is_last = step.is_last
        if self._stop_counts:
            ends = is_last | np.isin(tokens, list(self._stop_counts))
        ends = is_running & ((step.is_output & ends) | is_invalid)
        ids: list[str] = []
        values: list[int] = []
        finished: list[FinishedRequest] = []
        for index in np.flatnonzero(is_running & (step.is_output | is_invalid)).tolist():
            request, token = self._by_row[rows[index]], int(tokens[index])
            assert request is not None
            reason = self._finish_reason(request, token, bool(is_last[index])) if ends[index] else None
            if reason in (None, "length"):
                request.output.append(token)
                ids.append(request.id)
                values.append(token)
            if reason is not None:
                detail = f"NaN or infinite logits after {step.input.contexts[index]} tokens" if reason == "nan_logits" else ""
                finished.append((request.id, reason, detail))
                self._end(request)
        for row in rows[self._has_ended[rows] & (self._in_steps[rows] == 0)].tolist():
            self._release(row)
        if ids or finished:
            self._deliver(ids, values, finished, first=step.is_first)

    @staticmethod
    def _finish_reason(request: QueuedRequest, token: int, is_last: bool) -> FinishReason | None:
        if token == INVALID_TOKEN:
            return "nan_logits"
        if token in request.stop_token_ids:
            return "stop"
        return "length" if is_last else None

    def _end(self, request: QueuedRequest) -> None:
        """Ask for no more tokens of a request. Its pages are released with the output of its last scheduled step."""
        row = request.row
        self._has_ended[row] = True
        self._decoding = self._decoding[self._decoding != row]
        if request in self._prefilling:
            self._prefilling.remove(request)
        for token in request.stop_token_ids:
            self._stop_counts[token] -= 1
            if not self._stop_counts[token]:
                del self._stop_counts[token]
        del self._requests[request.id]
        if not self._in_steps[row]:
            self._release(row)

    def _release(self, row: int) -> None:
        request = self._by_row[row]
        if request is None:
            return  # released when it ended
        self._by_row[row] = None
        self._table[row] = SPARE_PAGE
        self._free_rows.append(row)
        poisoned = bool(self._is_poisoned[row])
        # The last token of the output has no keys and values yet.
        if (
            not poisoned
            and request.output
            and (len(request.prompt) + len(request.output) - 1) // self.cache.page_size > len(request.digests)
        ):
            written = [*request.prompt.tolist(), *request.output[:-1]]
            self.cache.share_output(request.pages, self.cache.digests(written, request.cache_salt, request.digests))
        # Kernels multiply what they mask, and NaN times zero is NaN.
        self._zeroed += self.cache.release(request.pages, poisoned=poisoned)
