"""Scheduler: which tokens of which requests the next step computes, and what its output means.

A step holds one token of every request that is decoding, and fills the rest of its token budget with chunks of prompts, so a
prompt never stops the running outputs. A deterministic request has steps of its own, in turn with those of all others: what it is computed
with must not change its rounding. A request is admitted when the cache has pages for it to its last token, so none is ever
evicted and computed again. Requests are rows of arrays: a step over hundreds of them is a few array operations.

Holds no tensors; not thread-safe.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from workers.gpu.engine.adjustments import AdjustedRequests, Adjustments, LogitAdjuster
from workers.gpu.engine.arrays import Integers
from workers.gpu.engine.grammars import MaskMemory, mask_rows
from workers.gpu.engine.messages import FinishedRequest, FinishReason, TokenLogprobs
from workers.gpu.engine.output_buffer import Scores
from workers.gpu.engine.page_cache import SPARE_PAGE, PageCache
from workers.gpu.engine.step import INVALID_TOKEN, SAMPLING_FIELDS, StepInput, StepResult

# How many requests may overtake one that does not fit; after that, freed pages are kept for it.
MAX_OVERTAKES = 256

# Prompt tokens whose log-probabilities one step computes: each of them takes the logits of a whole vocabulary.
MAX_SCORED_TOKENS = 256

NO_LOGPROBS = -1
_EMPTY = np.zeros(0, np.int32)


@dataclass(frozen=True)
class ScheduledStep:
    """A step whose output has not been processed. For each of its ``rows``: whether it outputs a token, and whether it ends.

    ``scored`` are the requests whose prompt tokens are scored, with their number, in the order of ``StepInput.scored``.
    """

    input: StepInput
    is_output: NDArray[np.bool_]
    is_last: NDArray[np.bool_]
    scored: list[tuple["QueuedRequest", int]] = field(default_factory=list)


class DeliverStep(Protocol):
    """Receives the output of a step: one token for each of ``ids``, with scores of some, then the requests that finished.

    ``first`` are those whose first token it is.
    """

    def __call__(
        self,
        ids: list[str],
        tokens: list[int],
        finished: list[FinishedRequest],
        *,
        first: list[str],
        logprobs: Scores,
        prompt_logprobs: Scores,
    ) -> None: ...


@dataclass(eq=False)
class QueuedRequest:
    """A request as the scheduler keeps it. ``computed``: tokens of its prompt that scheduled steps have computed, including ``cached``
    ones, which earlier requests had left in the cache.

    ``scored_until`` is the end of the prompt tokens whose log-probabilities are wanted, and ``prompt_top`` the number of most likely
    tokens with each; those from ``scored_from`` on are wanted. ``digests`` leaves out the pages that have to be computed again.
    """

    id: str
    prompt: Integers
    max_new_tokens: int
    stop_token_ids: frozenset[int]
    sampling: tuple[int, ...]
    cache_salt: int
    digests: list[bytes]
    logprobs: int = NO_LOGPROBS
    prompt_top: int = NO_LOGPROBS
    scored_from: int = 1
    scored_until: int = 0
    adjuster: LogitAdjuster | None = None
    deterministic: bool = False
    row: int = -1
    pages: list[int] = field(default_factory=list)
    computed: int = 0
    cached: int = 0
    output: list[int] = field(default_factory=list)
    overtaken: int = 0

    @property
    def max_tokens(self) -> int:
        return len(self.prompt) + self.max_new_tokens

    @property
    def remaining_prompt(self) -> int:
        return len(self.prompt) - self.computed

    @property
    def is_scored(self) -> bool:
        """Whether the next tokens of its prompt are scored."""
        return self.computed + 1 < self.scored_until


class Scheduler:
    """For up to ``max_requests`` requests at once and ``max_step_tokens`` tokens per step, at least one for each request."""

    def __init__(self, cache: PageCache, max_requests: int, max_step_tokens: int, deliver: DeliverStep) -> None:
        self.cache = cache
        self.max_step_tokens = max_step_tokens
        self.prompt_tokens = 0
        """Prompt tokens of all admitted requests."""
        self.cached_tokens = 0
        # By request, until it is taken together with its end.
        self.cached_of_finished: dict[str, int] = {}
        """Those of them that were in the cache, instead of computed."""
        self._deliver = deliver
        self._waiting: deque[QueuedRequest] = deque()
        self._prefilling: list[QueuedRequest] = []
        self._requests: dict[str, QueuedRequest] = {}
        # Admitted requests that have steps of their own, the one whose turn is next first.
        self._alone: deque[QueuedRequest] = deque()
        self._is_turn_of_alone = False
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
        self._logprobs = np.full(max_requests, NO_LOGPROBS, np.int32)
        self._is_adjusted = np.zeros(max_requests, np.bool_)
        # Admitted requests of these two kinds: without them, steps take no time for them.
        self._reporting = self._adjusting = 0
        # How many requests with an adjuster have been admitted, and the adjusted requests of the last such step with what identifies them.
        self._adjusted_started = 0
        self._adjusted: tuple[tuple[int, bytes, bytes], AdjustedRequests] | None = None
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
        return bool(len(self._decoding) or self._prefilling or self._waiting or self._alone)

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
        request.pages, request.computed, request.cached = pages, shared_tokens, shared_tokens
        self.prompt_tokens += len(request.prompt)
        self.cached_tokens += shared_tokens
        self._by_row[row] = request
        self._remaining[row] = 0
        self._has_ended[row] = self._is_poisoned[row] = False
        self._sampling[:, row] = request.sampling
        self._logprobs[row], self._is_adjusted[row] = request.logprobs, request.adjuster is not None
        self._reporting += request.logprobs != NO_LOGPROBS
        self._adjusting += request.adjuster is not None
        self._adjusted_started += request.adjuster is not None
        if len(pages) > self._table.shape[1]:
            wider = np.full((len(self._table), len(pages)), SPARE_PAGE, np.int32)
            wider[:, : self._table.shape[1]] = self._table
            self._table = wider
        self._table[row, : len(pages)] = pages
        self._new_tables.append((row, pages))
        for token in request.stop_token_ids:
            self._stop_counts[token] = self._stop_counts.get(token, 0) + 1
        (self._alone if request.deterministic else self._prefilling).append(request)

    # Scheduling a step

    def next_step(self) -> ScheduledStep | None:
        """Schedule the next step, or return None if no request can go on before the output of the steps that are running."""
        self._admit()
        self._is_turn_of_alone = bool(self._alone) and not self._is_turn_of_alone
        if self._is_turn_of_alone and (alone := self._next_alone()) is not None:
            return self._make_alone_step(alone)
        decoding = self._decoding
        chunks = self._choose_chunks(self.max_step_tokens - len(decoding))
        if len(decoding) or chunks:
            step = self._make_step(decoding, chunks)
            self._decoding = np.concatenate([self._still_decoding(decoding), self._end_prompts(chunks)])
            return step
        alone = self._next_alone()
        return None if alone is None else self._make_alone_step(alone)

    def _next_alone(self) -> QueuedRequest | None:
        """The next request that has steps of its own, unless all of them wait for the output of their last steps."""
        for _ in range(len(self._alone)):
            self._alone.rotate(-1)
            request = self._alone[-1]
            if request.remaining_prompt or self._remaining[request.row] > 0:
                return request
        return None

    def _make_alone_step(self, request: QueuedRequest) -> ScheduledStep:
        """The next chunk of a prompt, whose size depends on nothing but the prompt, or the next token."""
        if request.remaining_prompt:
            size = min(request.remaining_prompt, MAX_SCORED_TOKENS if request.is_scored else self.max_step_tokens)
            step = self._make_step(_EMPTY, [(request, size)])
            self._end_prompts([(request, size)])
        else:
            row = np.array([request.row], np.int32)
            step = self._make_step(row, [])
            self._still_decoding(row)
        return step

    def _make_step(self, decoding: Integers, chunks: list[tuple[QueuedRequest, int]]) -> ScheduledStep:
        at = self._position[decoding]
        ids, positions, rows = [-1 - decoding], [at], [decoding]
        slots = [self._slots(decoding, at)]
        contexts, lengths = [at + 1], [np.ones(len(decoding), np.int32)]
        is_output, is_last = [np.ones(len(decoding), np.bool_)], [self._remaining[decoding] == 1]
        scored: list[tuple[QueuedRequest, int]] = []
        scored_at, targets = [_EMPTY], [_EMPTY]
        offset = len(decoding)
        for request, taken in chunks:
            row = np.array([request.row], np.int32)
            places = np.arange(request.computed, request.computed + taken, dtype=np.int32)
            ids.append(request.prompt[request.computed : request.computed + taken])
            positions.append(places)
            slots.append(self._slots(row, places))
            rows.append(row)
            if request.is_scored:
                start = max(request.computed + 1, request.scored_from)
                end = min(request.computed + taken + 1, request.scored_until)
                targets.append(request.prompt[start:end])
                scored_at.append(np.arange(start, end, dtype=np.int32) + np.int32(offset - 1 - request.computed))
                scored.append((request, len(targets[-1])))
            offset += taken
            request.computed += taken
            contexts.append(np.array([request.computed], np.int32))
            lengths.append(np.array([taken], np.int32))
            complete = not request.remaining_prompt
            is_output.append(np.array([complete and request.max_new_tokens > 0]))
            is_last.append(np.array([complete and request.max_new_tokens <= 1]))
            self.cache.mark_written(request.pages[: request.computed // self.cache.page_size])
        step_rows = np.concatenate(rows)
        tables, self._new_tables = self._new_tables, []
        zeroed, self._zeroed = self._zeroed, []
        outputs = np.concatenate(is_output)
        reported, top = self._reported(step_rows, outputs)
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
                np.concatenate(scored_at),
                np.concatenate(targets),
                reported,
                max([top, *(request.prompt_top for request, _ in scored)]),
                bool(self._adjusting) and bool((self._is_adjusted[step_rows] & outputs).any()),
            ),
            outputs,
            np.concatenate(is_last),
            scored,
        )
        self._in_steps[step_rows] += 1
        return step

    def _reported(self, rows: Integers, is_output: NDArray[np.bool_]) -> tuple[Integers, int]:
        """Indices of the requests that report log-probabilities of what they sample, and the most of likely tokens with each."""
        if not self._reporting:
            return _EMPTY, 0
        wanted = np.where(is_output, self._logprobs[rows], NO_LOGPROBS)
        return np.flatnonzero(wanted >= 0).astype(np.int32), max(int(wanted.max()), 0)

    def make_adjustments(self, step: ScheduledStep, memory: MaskMemory = mask_rows) -> Adjustments:
        """What a step that is adjusted waits for, with its masks in ``memory``.

        Call when the output of the steps before it has been processed.
        """
        requests = self._find_adjusted(step)
        adjustments = requests.adjust(memory)
        failed: list[FinishedRequest] = []
        for index, error in requests.errors():
            request = self._by_row[step.input.rows[index]]
            assert request is not None
            failed.append((request.id, "failed", error))
            self._end(request)
        if failed:
            self._deliver([], [], failed, first=[], logprobs=[], prompt_logprobs=[])
        return adjustments

    def _find_adjusted(self, step: ScheduledStep) -> AdjustedRequests:
        """The requests of a step that are adjusted. They are usually those of the step before, at the same places."""
        rows = step.input.rows
        indices = np.flatnonzero(self._is_adjusted[rows] & step.is_output & ~self._has_ended[rows])
        key = (self._adjusted_started, indices.tobytes(), rows[indices].tobytes())
        if self._adjusted is None or self._adjusted[0] != key:
            adjusters: list[tuple[int, LogitAdjuster]] = []
            for index in indices.tolist():
                request = self._by_row[rows[index]]
                assert request is not None
                assert request.adjuster is not None
                adjusters.append((index, request.adjuster))
            self._adjusted = (key, AdjustedRequests(adjusters))
        return self._adjusted[1]

    def _choose_chunks(self, room: int) -> list[tuple[QueuedRequest, int]]:
        """Chunks of prompts for ``room`` tokens. A long prompt leaves half of the room to the prompts behind it."""
        if not self._prefilling or room < 1:
            return []
        oldest, *others = self._prefilling
        scored = MAX_SCORED_TOKENS
        wanted = oldest.remaining_prompt
        if oldest.is_scored:
            wanted = min(wanted, scored)
            scored -= wanted
        reserved = min(wanted, room if not others else max(room // 2, 1))
        left = room - reserved
        chunks = []
        for request in others:
            if not left:
                break
            taken = min(request.remaining_prompt, left)
            if request.is_scored:
                taken = min(taken, scored)
                scored -= taken
            if taken:
                left -= taken
                chunks.append((request, taken))
        return [(oldest, min(wanted, reserved + left)), *chunks]

    def _slots(self, rows: Integers, positions: Integers) -> Integers:
        size = self.cache.page_size
        slots: Integers = self._table[rows, positions // size] * size + positions % size
        return slots

    def _still_decoding(self, decoded: Integers) -> Integers:
        """Count one token for the decoded rows; returns those that go on."""
        self._position[decoded] += 1
        self._remaining[decoded] -= 1
        if len(decoded) and int(self._remaining[decoded].min()) <= 0:
            return decoded[self._remaining[decoded] > 0]
        return decoded

    def _end_prompts(self, chunks: Sequence[tuple[QueuedRequest, int]]) -> Integers:
        """Count the first token of the requests whose prompt is complete; returns the rows that go on decoding."""
        complete = [request for request, _ in chunks if not request.remaining_prompt]
        if not complete:
            return _EMPTY
        self._prefilling = [request for request in self._prefilling if request.remaining_prompt]
        for request in complete:
            self._position[request.row] = len(request.prompt)
            self._remaining[request.row] = request.max_new_tokens - 1
        return np.array([request.row for request in complete if request.max_new_tokens > 1], np.int32)

    # Processing its output

    def process_output(self, step: ScheduledStep, result: StepResult) -> None:
        """Deliver the sampled token of each row of a step, and end the requests that it completes."""
        rows, tokens = step.input.rows, result.tokens
        self._in_steps[rows] -= 1
        is_invalid = tokens == INVALID_TOKEN
        self._is_poisoned[rows] |= is_invalid
        is_running = ~self._has_ended[rows]
        ends = is_last = step.is_last
        if self._stop_counts:
            ends = is_last | np.isin(tokens, list(self._stop_counts))
        ends = is_running & ((step.is_output & ends) | is_invalid | is_last)
        ids: list[str] = []
        values: list[int] = []
        finished: list[FinishedRequest] = []
        first: list[str] = []
        logprobs: list[tuple[str, list[TokenLogprobs]]] = []
        prompt_logprobs = self._prompt_scores(step, result) if step.scored else []
        scores = dict(zip(step.input.reported.tolist(), range(len(step.input.reported)), strict=True))
        row_of, token_of, ending, outputs = rows.tolist(), tokens.tolist(), ends.tolist(), step.is_output.tolist()
        for index in np.flatnonzero(is_running & (step.is_output | is_invalid | is_last)).tolist():
            request, token = self._by_row[row_of[index]], token_of[index]
            assert request is not None
            reason = self._finish_reason(request, token, bool(is_last[index])) if ending[index] else None
            detail = f"NaN or infinite logits after {step.input.contexts[index]} tokens" if reason == "nan_logits" else ""
            if reason in (None, "length") and outputs[index]:
                if not request.output:
                    first.append(request.id)
                request.output.append(token)
                ids.append(request.id)
                values.append(token)
                if index in scores:
                    assert result.reported is not None
                    logprobs.append((request.id, [result.reported.entry(scores[index], token, request.logprobs)]))
                if request.adjuster is not None and (end := request.adjuster.accept(token)):
                    reason, detail = end
            if reason is not None:
                finished.append((request.id, reason, detail))
                if request.cached:
                    self.cached_of_finished[request.id] = request.cached
                self._end(request)
        for row in rows[self._has_ended[rows] & (self._in_steps[rows] == 0)].tolist():
            self._release(row)
        if ids or finished or prompt_logprobs:
            self._deliver(ids, values, finished, first=first, logprobs=logprobs, prompt_logprobs=prompt_logprobs)

    def _prompt_scores(self, step: ScheduledStep, result: StepResult) -> Scores:
        """Entries of the scored prompt tokens of requests that have not ended."""
        assert result.scored is not None
        targets, scores, at = step.input.targets.tolist(), result.scored, 0
        entries: list[tuple[str, list[TokenLogprobs]]] = []
        for request, count in step.scored:
            if count and not (self._has_ended[request.row] or self._is_poisoned[request.row]):
                own = [scores.entry(index, targets[index], request.prompt_top) for index in range(at, at + count)]
                entries.append((request.id, own))
            at += count
        return entries

    @staticmethod
    def _finish_reason(request: QueuedRequest, token: int, is_last: bool) -> FinishReason | None:
        if token == INVALID_TOKEN:
            return "nan_logits"
        if token in request.stop_token_ids and request.max_new_tokens:
            return "stop"
        return "length" if is_last else None

    def _end(self, request: QueuedRequest) -> None:
        """Ask for no more tokens of a request. Its pages are released with the output of its last scheduled step."""
        row = request.row
        self._has_ended[row] = True
        self._decoding = self._decoding[self._decoding != row]
        for queue in (self._prefilling, self._alone):
            if request in queue:
                queue.remove(request)
        for token in request.stop_token_ids:
            self._stop_counts[token] -= 1
            if not self._stop_counts[token]:
                del self._stop_counts[token]
        self._reporting -= request.logprobs != NO_LOGPROBS
        self._adjusting -= request.adjuster is not None
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
