"""Scheduler against a device that computes nothing: what is in each step, when requests end, and what happens to their pages."""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pytest
from llguidance import LLMatcher, LLTokenizer
from numpy.testing import assert_array_equal

from workers.gpu.engine.adjustments import LogitAdjuster
from workers.gpu.engine.grammars import GrammarCompiler
from workers.gpu.engine.messages import FinishedRequest, GenerationRequest
from workers.gpu.engine.output_buffer import Scores
from workers.gpu.engine.page_cache import PageCache
from workers.gpu.engine.scheduler import MAX_OVERTAKES, MAX_SCORED_TOKENS, QueuedRequest, ScheduledStep, Scheduler
from workers.gpu.engine.step import INVALID_TOKEN, SAMPLING_FIELDS, StepInput, StepResult, TokenScores

PAGE = 4


class Engine:
    """A scheduler with up to ``depth`` steps under way, whose requests generate 100, 101, 102 and so on."""

    def __init__(self, *, requests: int = 8, tokens: int = 16, pages: int = 100, depth: int = 2) -> None:
        self.cache = PageCache(pages + 1, PAGE)
        self.scheduler = Scheduler(self.cache, requests, tokens, self.deliver)
        self.tokens: dict[str, list[int]] = {}
        self.ends: dict[str, tuple[str, str]] = {}
        self.scores: dict[str, list[int]] = {}
        self.firsts: list[str] = []
        self.running: deque[ScheduledStep] = deque()
        self.depth = depth
        self.next_token: Callable[[str, int], int] = lambda id, position: 100 + position
        self._lengths: dict[int, tuple[str, int]] = {}

    def deliver(
        self,
        ids: list[str],
        tokens: list[int],
        finished: list[FinishedRequest],
        *,
        first: list[str],
        logprobs: Scores,
        prompt_logprobs: Scores,
    ) -> None:
        for id in first:
            assert id not in self.tokens
        self.firsts += first
        for id, token in zip(ids, tokens, strict=True):
            assert id not in self.ends
            self.tokens.setdefault(id, []).append(token)
        for id, reason, detail in finished:
            assert id not in self.ends
            self.ends[id] = (reason, detail)
        for id, entries in [*prompt_logprobs, *logprobs]:
            self.scores.setdefault(id, []).extend(token for token, _, _ in entries)

    def add(
        self, id: str, prompt: Sequence[int], new: int = 3, *, stops: Sequence[int] = (), salt: int = 0, **fields: Any
    ) -> QueuedRequest:
        digests = self.cache.digests(list(prompt[: 0 if "scored_until" in fields else -1]), salt)
        request = QueuedRequest(id, np.array(prompt, np.int32), new, frozenset(stops), (1, 2, 3, 4), salt, digests, **fields)
        self.scheduler.add_request(request)
        return request

    def start(self) -> ScheduledStep | None:
        step = self.scheduler.next_step()
        if step is not None:
            self.running.append(step)
        return step

    def finish(self) -> None:
        step = self.running.popleft()
        tokens = []
        for row, context in zip(step.input.rows.tolist(), step.input.contexts.tolist(), strict=True):
            request = self.scheduler._by_row[row]
            assert request is not None, "a row is released only after its last step"
            tokens.append(self.next_token(request.id, context - len(request.prompt)))
        scores = [
            TokenScores(
                np.zeros(count, np.float32), np.zeros((count, step.input.top), np.int32), np.zeros((count, step.input.top))
            )
            for count in (len(step.input.reported), len(step.input.scored))
        ]
        self.scheduler.process_output(step, StepResult(np.array(tokens, np.int32), *scores))
        if self.running and self.running[0].input.is_adjusted:
            self.scheduler.make_adjustments(self.running[0])

    def run(self) -> None:
        while True:
            step = self.start()
            if step is None and not self.running:
                return
            if step is None or len(self.running) >= self.depth:
                self.finish()


def numbers(count: int, start: int = 0) -> list[int]:
    return list(range(start, start + count))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_every_request_generates_its_tokens_and_ends_once(depth: int) -> None:
    engine = Engine(depth=depth)
    for number in range(20):
        engine.add(str(number), numbers(1 + number * 3 % 30, number), new=1 + number % 7)
    engine.run()
    for number in range(20):
        assert engine.tokens[str(number)] == numbers(1 + number % 7, 100)
        assert engine.ends[str(number)] == ("length", "")
    assert sorted(engine.firsts) == sorted(engine.tokens)
    assert engine.cache.used_fraction == 0
    assert engine.scheduler.waiting == 0
    assert not engine.scheduler.has_work


def test_a_step_has_one_token_of_each_running_request_and_chunks_of_prompts() -> None:
    engine = Engine(tokens=10, depth=1)
    engine.add("short", [5, 6], new=5)
    first = engine.start()
    assert first is not None
    assert_array_equal(first.input.ids, [5, 6])
    assert_array_equal(first.input.positions, [0, 1])
    assert_array_equal(first.input.contexts, [2])
    assert first.input.tables == [(0, engine.scheduler._by_row[0].pages)]  # type: ignore[union-attr]
    engine.finish()
    engine.add("long", numbers(20), new=2)
    second = engine.start()
    assert second is not None
    assert_array_equal(second.input.ids, [-1, *numbers(9)])
    assert_array_equal(second.input.query_lengths, [1, 9])
    assert_array_equal(second.input.contexts, [3, 9])
    assert second.is_output.tolist() == [True, False]
    engine.run()
    assert engine.tokens == {"short": numbers(5, 100), "long": numbers(2, 100)}


def test_slots_follow_the_pages_of_a_request() -> None:
    engine = Engine()
    request = engine.add("a", numbers(6), new=4)
    step = engine.start()
    assert step is not None
    expected = [request.pages[place // PAGE] * PAGE + place % PAGE for place in range(6)]
    assert_array_equal(step.input.slots, expected)
    following = engine.start()
    assert following is not None
    assert_array_equal(following.input.slots, [request.pages[1] * PAGE + 2])
    assert_array_equal(following.input.sampling, [[1], [2], [3], [4]])


def test_a_long_prompt_leaves_half_of_a_step_to_the_prompts_behind_it() -> None:
    engine = Engine(tokens=8)
    engine.add("long", numbers(40))
    engine.add("short", numbers(3, 50))
    step = engine.start()
    assert step is not None
    assert_array_equal(step.input.query_lengths, [5, 3])


def test_a_stop_token_ends_its_request_without_being_delivered() -> None:
    engine = Engine()
    engine.add("stops", [1], new=9, stops=[103])
    engine.add("goes on", [2], new=6)
    engine.run()
    assert engine.tokens["stops"] == [101 - 1, 101, 102]
    assert engine.ends["stops"] == ("stop", "")
    assert engine.tokens["goes on"] == numbers(6, 100)


def test_an_invalid_token_ends_its_request_and_zeroes_its_pages_before_they_are_used_again() -> None:
    engine = Engine(pages=4)
    engine.next_token = lambda id, position: INVALID_TOKEN if id == "poisoned" and position == 2 else 100 + position
    request = engine.add("poisoned", [1, 2], new=9)
    engine.run()
    assert engine.ends["poisoned"] == ("nan_logits", "NaN or infinite logits after 4 tokens")
    assert engine.tokens["poisoned"] == [100, 101]
    engine.add("after", [1, 2], new=2)
    step = engine.start()
    assert step is not None
    assert sorted(step.input.zeroed) == sorted(request.pages)
    assert engine.cache.shareable == 0


def test_a_prompt_with_nan_ends_at_its_first_chunk() -> None:
    engine = Engine(tokens=4, depth=1)
    engine.next_token = lambda id, position: INVALID_TOKEN
    engine.add("poisoned", numbers(30))
    engine.run()
    assert engine.ends["poisoned"] == ("nan_logits", "NaN or infinite logits after 4 tokens")
    assert "poisoned" not in engine.tokens


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_an_aborted_request_is_not_reported_and_releases_its_pages_with_its_last_step(steps: int) -> None:
    engine = Engine(tokens=8, depth=3)
    engine.add("aborted", numbers(12), new=50)
    engine.add("other", numbers(3, 50), new=4)
    for _ in range(steps):
        engine.start()
    engine.scheduler.abort_request("aborted")
    assert (engine.cache.used_fraction == 0) == (steps == 0)
    engine.run()
    engine.scheduler.abort_request("aborted")
    assert engine.cache.used_fraction == 0
    assert engine.ends == {"other": ("length", "")}
    assert "aborted" not in engine.tokens


def test_requests_wait_until_the_cache_can_hold_them_to_their_end() -> None:
    engine = Engine(pages=8)
    for number in range(4):
        engine.add(str(number), numbers(4, 10 * number), new=12)
    step = engine.start()
    assert step is not None
    assert len(step.input.rows) == 2
    assert engine.scheduler.waiting == 2
    engine.run()
    assert len(engine.ends) == 4


def test_short_requests_overtake_a_long_one_only_a_limited_number_of_times() -> None:
    engine = Engine(pages=10, depth=1)
    engine.add("held", [1], new=3)
    engine.start()
    engine.add("long", numbers(4), new=36)
    overtakes = 0
    for number in range(MAX_OVERTAKES + 10):
        engine.add(f"{number}", [1, number], new=1)
        engine.scheduler._admit()
        request = engine.scheduler._requests[f"{number}"]
        overtakes += request.row >= 0
        engine.scheduler.abort_request(f"{number}")
    assert overtakes == MAX_OVERTAKES
    engine.run()
    assert engine.ends["long"] == ("length", "")


def test_a_shared_prefix_is_computed_once() -> None:
    engine = Engine(tokens=32)
    prefix = numbers(9)
    engine.add("first", [*prefix, 1])
    engine.add("second", [*prefix, 2])
    engine.add("other owner", [*prefix, 2], salt=5)
    first = engine.start()
    assert first is not None
    assert_array_equal(first.input.query_lengths, [10, 10])
    engine.run()
    assert engine.tokens["first"] == engine.tokens["second"] == numbers(3, 100)
    assert engine.scheduler.cached_tokens == 8
    assert engine.scheduler.prompt_tokens == 30


def test_the_next_turn_finds_the_output_in_the_cache() -> None:
    engine = Engine()
    engine.add("question", numbers(3), new=10)
    engine.run()
    conversation = [*numbers(3), *engine.tokens["question"], 7]
    engine.add("next", conversation, new=1)
    engine.run()
    assert engine.scheduler.cached_tokens == len(conversation[:-2]) // PAGE * PAGE


def test_the_first_token_of_a_request_is_marked() -> None:
    engine = Engine(tokens=4, depth=1)
    engine.add("a", numbers(10), new=5)
    engine.run()
    assert engine.firsts == ["a"]


def test_a_step_survives_encoding() -> None:
    arrays: list[Any] = [np.arange(count, dtype=np.int32) + count for count in (5, 5, 5, 2, 2, 2)]
    sampling = np.arange(2 * SAMPLING_FIELDS, dtype=np.int32).reshape(SAMPLING_FIELDS, 2)
    for tables, zeroed in (([(1, [4, 5]), (0, [])], [7]), ([], [])):
        step = StepInput(*arrays, sampling, tables, zeroed)
        decoded = StepInput.decode(step.encode())
        for name, value in vars(step).items():
            if isinstance(value, np.ndarray):
                assert_array_equal(getattr(decoded, name), value)
            else:
                assert getattr(decoded, name) == value


@pytest.mark.parametrize("depth", [1, 2])
def test_every_wanted_token_of_a_prompt_is_scored_once_beside_other_requests(depth: int) -> None:
    """Up to a number of tokens in each step, and each by the logits of the token before it."""
    engine = Engine(tokens=600, pages=1000, depth=depth)
    engine.add("free", numbers(700, 5000), new=4)
    engine.add("long", numbers(701), new=2, scored_until=701)
    engine.add("part", numbers(60, 2000), new=2, scored_from=11, scored_until=50, logprobs=2)
    engine.add("none", numbers(30, 3000), new=0, scored_until=30, prompt_top=3)
    engine.add("one", [9], new=0, scored_until=1)
    while engine.scheduler.has_work or engine.running:
        step = engine.start()
        if step is not None:
            assert len(step.input.scored) <= MAX_SCORED_TOKENS
            at = step.input.scored
            # Prompts count up by one.
            assert_array_equal(step.input.ids[at] + 1, step.input.targets)
            if len(step.input.reported):
                assert step.input.top >= 2
        if step is None or len(engine.running) >= depth:
            engine.finish()
    assert engine.scores == {
        "long": numbers(700, 1),
        "part": [*numbers(39, 2011), 100, 101],
        "none": numbers(29, 3001),
    }
    assert engine.tokens == {"free": numbers(4, 100), "long": [100, 101], "part": [100, 101]}
    assert {reason for reason, _ in engine.ends.values()} == {"length"}
    assert engine.cache.used_fraction == 0


def test_only_steps_with_adjusted_requests_wait_for_their_adjustments() -> None:
    engine = Engine(tokens=8)
    adjuster = LogitAdjuster(GenerationRequest("r", numbers(20), 3, [], frequency_penalty=1.0), (5, 6, 7, 8))
    engine.add("free", [1, 2], new=9)
    engine.add("adjusted", numbers(20), new=3, adjuster=adjuster)
    made = []
    for _ in range(12):
        step = engine.start()
        if step is None:
            break
        engine.finish()
        if step.input.is_adjusted:
            made.append(len(engine.tokens["adjusted"]))
    assert made == [1, 2, 3], "no step that reads a part of its prompt, and none after its end"
    assert adjuster.edits[0].tolist() == [100, 101, 102]


def test_a_grammar_ends_its_request_when_it_is_complete_or_cannot_go_on() -> None:
    """The tokens are 100, 101, 102 and so on, which are the bytes of ``def``."""
    compiler = GrammarCompiler(lambda: LLTokenizer("byte"))
    engine = Engine()
    adjusters = {}
    for id, regex in (("complete", "def"), ("mismatch", "dex"), ("broken", "[d-z]+"), ("cut", "[d-z]+")):
        matcher = compiler.compile(LLMatcher.grammar_from_regex(regex), ())
        adjusters[id] = LogitAdjuster(GenerationRequest(id, [1], 9, [], grammar=regex), (0, 0, 0, 0), matcher)
        engine.add(id, [1], new=3, adjuster=adjusters[id])
    engine.add("free", [3], new=5)
    engine.start()
    engine.start()
    broken = adjusters["broken"].matcher
    assert broken is not None
    broken.accept(1)
    engine.finish()
    assert engine.ends["broken"][0] == "failed"
    engine.run()
    assert engine.ends["complete"] == ("stop", ""), "although it has reached its limit, too"
    assert engine.tokens["complete"] == [100, 101, 102]
    assert engine.ends["mismatch"][0] == "failed"
    assert engine.ends["cut"] == engine.ends["free"] == ("length", "")
    assert engine.cache.used_fraction == 0


class SimulatedCache:
    """The keys and values of a device: for each slot, the tokens from the start of the request to it, with the owner's salt.

    A step that reads anything but its own request, or writes a page that another request reads, fails.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.slots: dict[int, tuple[int, tuple[int, ...]]] = {}
        self.nan: set[int] = set()
        self.tables: dict[int, list[int]] = {}
        self.last: dict[int, int] = {}

    def run(self, step: StepInput, choose: Callable[[str, int], int]) -> list[int]:
        """Compute a step as a device does, and return a token for each of its requests."""
        size = self.engine.cache.page_size
        for page in step.zeroed:
            self.nan -= set(range(page * size, (page + 1) * size))
        self.tables.update(step.tables)
        tokens, at = [], 0
        for row, length, context in zip(*(a.tolist() for a in (step.rows, step.query_lengths, step.contexts)), strict=True):
            request = self.engine.scheduler._by_row[row]
            assert request is not None
            places = [self.tables[row][place // size] * size + place % size for place in range(len(self.tables[row]) * size)]
            history = [self.slots[slot][1][-1] for slot in places[: context - length]]
            for index in range(at, at + length):
                assert step.positions[index] == len(history)
                assert step.slots[index] == places[len(history)]
                token = int(step.ids[index])
                history.append(token if token >= 0 else self.last[-1 - token])
                self.slots[places[len(history) - 1]] = (request.cache_salt, tuple(history))
                self.nan.discard(places[len(history) - 1])
            for place in range(context):
                assert self.slots[places[place]] == (request.cache_salt, tuple(history[: place + 1]))
            assert history[: len(request.prompt)] == request.prompt[:context].tolist()
            assert history[len(request.prompt) :][: len(request.output)] == request.output[: context - len(request.prompt)]
            # Masked or not, a kernel reads whole pages: one that is not its own must not contain NaN.
            token = choose(request.id, context)
            if token == INVALID_TOKEN or not self.nan.isdisjoint(places):
                reads_own = token == INVALID_TOKEN or not self.nan.isdisjoint(places[: context - length])
                assert reads_own, "NaN in a page that the request has not written"
                self.nan.update(places[context - length : context])
                token = INVALID_TOKEN
            self.last[row] = token
            tokens.append(token)
            at += length
        return tokens


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_random_requests_read_only_their_own_tokens_and_give_every_page_back(depth: int, seed: int) -> None:
    random = Random(seed)
    pages = random.choice([6, 12, 40])
    requests = random.choice([2, 5, 9])
    engine = Engine(requests=requests, tokens=requests + random.choice([0, 3, 30]), pages=pages, depth=depth)
    device, scheduler, cache = SimulatedCache(engine), engine.scheduler, engine.cache
    prefixes = [[random.randrange(3) for _ in range(16)] for _ in range(2)]
    added: dict[str, QueuedRequest] = {}
    aborted: set[str] = set()
    running: deque[tuple[ScheduledStep, list[int]]] = deque()

    def choose(id: str, context: int) -> int:
        return INVALID_TOKEN if random.random() < 0.02 else random.randrange(8)

    def check_pages() -> None:
        held = [request.pages for request in scheduler._by_row if request is not None]
        assert cache._users == [sum(page in pages for pages in held) for page in range(pages + 1)]
        assert cache.available == pages - sum(users > 0 for users in cache._users)
        assert sorted([*cache._free, *cache._unused]) == [page for page in range(1, pages + 1) if not cache._users[page]]

    for turn in range(2000):
        if turn < 120 and random.random() < 0.5:
            prompt = [
                *random.choice(prefixes)[: random.randrange(17)],
                *(random.randrange(8) for _ in range(random.randrange(8))),
            ]
            if added and random.random() < 0.3:
                earlier = random.choice(list(added.values()))
                prompt = [*earlier.prompt.tolist(), *earlier.output, *prompt]
            prompt = prompt[: pages * PAGE - 1] or [0]
            new = random.randint(1, min(12, pages * PAGE - len(prompt)))
            stops = random.sample(range(8), random.choice([0, 0, 2]))
            id = str(len(added))
            added[id] = engine.add(id, prompt, new, stops=stops, salt=random.randrange(2))
        if added and random.random() < 0.15:
            id = random.choice(list(added)[-8:])
            if id not in engine.ends:
                aborted.add(id)
            scheduler.abort_request(id)
        step = scheduler.next_step()
        if step is not None:
            assert 0 < len(step.input.ids) <= scheduler.max_step_tokens
            running.append((step, device.run(step.input, choose)))
        if running and (step is None or len(running) >= depth):
            completed, tokens = running.popleft()
            scheduler.process_output(completed, StepResult(np.array(tokens, np.int32)))
        check_pages()
        if turn >= 120 and not running and not scheduler.has_work:
            break
    assert not running
    assert not scheduler.has_work
    assert set(added) == aborted | set(engine.ends)
    assert not aborted & set(engine.ends)
    for id, (reason, _) in engine.ends.items():
        request = added[id]
        assert engine.tokens.get(id, []) == request.output
        assert request.stop_token_ids.isdisjoint(request.output)
        assert len(request.output) == request.max_new_tokens if reason == "length" else reason in ("stop", "nan_logits")
    assert cache.available == pages
    assert not scheduler._requests
    assert not scheduler._stop_counts
    assert not cache._unwritten
    assert not cache._poisoned - set(scheduler._zeroed)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_deterministic_request_has_steps_of_its_own_in_turn_with_those_of_others(depth: int) -> None:
    engine = Engine(depth=depth, tokens=8)
    steps: list[list[tuple[str, int]]] = []
    start = engine.scheduler.next_step

    def next_step() -> ScheduledStep | None:
        step = start()
        if step is not None:
            names = [engine.scheduler._by_row[row].id for row in step.input.rows.tolist()]  # type: ignore[union-attr]
            steps.append(list(zip(names, step.input.query_lengths.tolist(), strict=True)))
        return step

    engine.scheduler.next_step = next_step  # type: ignore[method-assign]
    for name in ("d1", "d2"):
        engine.add(name, numbers(19), new=4, deterministic=True).digests.clear()
    for name in ("a", "b", "c"):
        engine.add(name, numbers(5, 50), new=6)
    cancelled = engine.add("d3", numbers(9), new=50, deterministic=True)
    engine.start()
    engine.scheduler.abort_request(cancelled.id)
    engine.run()
    assert not engine.scheduler.has_work
    for name in ("d1", "d2"):
        own = [step for step in steps if any(id == name for id, _ in step)]
        assert own == [[(name, size)] for size in (8, 8, 3, 1, 1, 1)], "its steps depend on nothing but its prompt"
        assert engine.tokens[name] == numbers(4, 100)
    for name in ("a", "b", "c"):
        assert engine.tokens[name] == numbers(6, 100)
    ordinary = [at for at, step in enumerate(steps) if step[0][0] in "abc"]
    assert max(after - before for before, after in pairwise(ordinary)) <= 2, "they take turns"
    assert engine.cache.used_fraction == 0
