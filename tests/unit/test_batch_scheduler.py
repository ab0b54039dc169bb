"""Batch scheduler, stepped over a fake backend: which step comes next, and what becomes of its output."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from workers.gpu.engine import batch_scheduler
from workers.gpu.engine.batch_scheduler import BatchScheduler
from workers.gpu.engine.decode_batch import INVALID_TOKEN, DecodeRequest
from workers.gpu.engine.graph_sizes import GraphSizes


@dataclass(eq=False)
class State:
    """What the batching manager knows of a request."""

    request_id: str
    initial_tokens: list[int]
    max_new_tokens: int = 3
    stops: frozenset[int] = frozenset()
    generated_tokens: list[int] = field(default_factory=list)
    computed: int = 0

    @property
    def remaining_prefill_tokens(self) -> list[int]:
        return self.initial_tokens[self.computed :]


class Buffers:
    def __init__(self) -> None:
        self.output = np.zeros(8, np.int32)
        self.step: tuple[str, int] = ("", 0)

    def fill_decode(self, batch: Any, active: Any, output_index: Any, padded: int) -> None:
        self.step = ("decode", padded)


class FakeBackend:
    """One set of buffers, and a cache with space for everything unless ``has_space`` is False."""

    def __init__(self) -> None:
        self.max_requests, self.max_pages, self.spare_page = 4, 4, 0
        self.max_batch_tokens, self.max_cache_read, self.page_size, self.is_padded = 16, 64, 4, True
        self.buffers = [Buffers()]
        self.current = 0
        self.has_space = True
        self.line: list[State] = []
        self.cancelled: list[str] = []
        self.finished: list[tuple[str, bool]] = []
        self.freed_blocks = 0

    def is_stopping(self) -> bool:
        return False

    def take_cancelled(self) -> list[str]:
        cancelled, self.cancelled = self.cancelled, []
        return cancelled

    def waiting(self) -> list[State]:
        return list(self.line)

    def has_waiting(self) -> bool:
        return bool(self.line)

    def schedule_prefill(self, candidates: list[State], budget: int) -> tuple[list[Any], bool, int, int]:
        scheduled, tokens = [], 0
        for state in candidates if self.has_space else []:
            count = min(len(state.remaining_prefill_tokens), budget - tokens)
            state.computed += count
            tokens += count
            done = not state.remaining_prefill_tokens
            scheduled.append(SimpleNamespace(state=state, has_new_token=done, complete_blocks={}))
            self.line = [other for other in self.line if other is not state]
        return scheduled, not self.has_space, tokens, 0

    def free_unused_blocks(self, count: int) -> None:
        self.freed_blocks += count

    def is_partial(self, state: State) -> bool:
        return 0 < state.computed < len(state.initial_tokens)

    def fill_prefill(self, requests: list[Any], tokens: int, cache_read: int) -> None:
        self.buffers[0].step = ("prefill", tokens)

    def reserve_tokens(self, state: State, tokens: int) -> bool:
        return True

    def decode_request(self, state: State) -> DecodeRequest:
        return DecodeRequest(state.request_id, len(state.initial_tokens), state.max_new_tokens, (0, 0, 0, 0), state.stops, state)

    def pages(self, state: State) -> list[int]:
        return [1]

    def set_sampling(self, is_sampling: bool) -> None:
        pass

    def wait_for_output(self) -> None:
        pass

    def is_active(self, state: State) -> bool:
        return True

    def finish_request(self, state: State, *, poisoned: bool) -> None:
        self.finished.append((state.request_id, poisoned))


class Rig:
    def __init__(self) -> None:
        self.backend = FakeBackend()
        self.delivered: list[tuple[dict[str, int], list[tuple[str, str]], bool]] = []
        self.scheduler = BatchScheduler(self.backend, GraphSizes(16, 4), self._deliver)  # type: ignore[arg-type]

    def _deliver(self, ids: list[str], tokens: list[int], finished: list[Any], *, first: bool) -> None:
        ends = [(id, reason) for id, reason, _ in finished]
        self.delivered.append((dict(zip(ids, tokens, strict=True)), ends, first))

    def add(self, id: str, length: int = 4, **options: Any) -> None:
        self.backend.line.append(State(id, list(range(length)), **options))

    def step(self, *tokens: int) -> tuple[str, int]:
        """Prepare a step, let the device produce these tokens, and process them."""
        assert self.scheduler.prepare_step()
        self.backend.buffers[0].output[: len(tokens)] = tokens
        self.scheduler.process_output()
        return self.backend.buffers[0].step


def test_prefill_and_decode_alternate_while_requests_arrive() -> None:
    rig = Rig()
    rig.add("a", max_new_tokens=5)
    assert rig.step(11) == ("prefill", 16)
    rig.add("b")
    assert rig.step(12) == ("decode", 1)
    assert rig.step(21) == ("prefill", 16)
    assert rig.step(13, 22) == ("decode", 2)
    assert [tokens for tokens, _, _ in rig.delivered] == [{"a": 11}, {"a": 12}, {"b": 21}, {"a": 13, "b": 22}]
    assert [first for _, _, first in rig.delivered] == [True, False, True, False]


def test_a_request_finishes_at_its_length_and_nothing_is_left_to_do() -> None:
    rig = Rig()
    rig.add("a", max_new_tokens=2)
    rig.step(1)
    rig.step(2)
    assert rig.delivered[-1] == ({"a": 2}, [("a", "length")], False)
    assert rig.backend.finished == [("a", False)]
    assert not rig.scheduler.prepare_step()


def test_a_stop_token_ends_only_its_own_request_and_is_not_delivered() -> None:
    rig = Rig()
    rig.add("a", stops=frozenset({7}), max_new_tokens=9)
    rig.add("b", max_new_tokens=9)
    rig.step(1, 2)
    rig.step(7, 7)
    assert rig.delivered[-1] == ({"b": 7}, [("a", "stop")], False)
    assert rig.step(8) == ("decode", 1)


def test_an_invalid_token_ends_its_request_and_clears_its_cache() -> None:
    rig = Rig()
    rig.add("a", max_new_tokens=9)
    rig.add("b", max_new_tokens=9)
    rig.step(1, 2)
    rig.step(INVALID_TOKEN, 3)
    assert rig.delivered[-1] == ({"b": 3}, [("a", "nan_logits")], False)
    assert rig.backend.finished == [("a", True)]


def test_output_of_a_request_cancelled_meanwhile_is_discarded() -> None:
    rig = Rig()
    rig.add("a", max_new_tokens=9)
    rig.add("b", max_new_tokens=9)
    rig.step(1, 2)
    assert rig.scheduler.prepare_step()
    rig.backend.buffers[0].output[:2] = (3, 4)
    rig.scheduler.batch.remove_request("a")
    rig.scheduler.process_output()
    assert rig.delivered[-1][0] == {"b": 4}


def test_a_cancelled_request_leaves_the_batch_before_the_next_step() -> None:
    rig = Rig()
    rig.add("a", max_new_tokens=9)
    rig.step(1)
    rig.backend.cancelled = ["a"]
    assert not rig.scheduler.prepare_step()


def test_prompts_that_do_not_fit_into_one_step_wait_for_the_next() -> None:
    rig = Rig()
    rig.add("a", length=10, max_new_tokens=1)
    rig.add("b", length=10, max_new_tokens=1)
    rig.step(1)
    rig.step(2)
    assert [tokens for tokens, _, _ in rig.delivered] == [{"a": 1}, {"b": 2}]


def test_a_prompt_longer_than_a_step_is_computed_in_parts() -> None:
    rig = Rig()
    rig.add("long", length=40, max_new_tokens=1)
    for _ in range(2):
        rig.step()
    assert rig.delivered == []
    rig.step(5)
    assert rig.delivered == [({"long": 5}, [("long", "length")], True)]


def test_prefill_is_smaller_while_other_requests_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_scheduler, "MAX_PREFILL_TOKENS", 8)
    rig = Rig()
    rig.add("a", max_new_tokens=9)
    rig.step(1)
    rig.add("b", length=6, max_new_tokens=1)
    rig.add("c", length=6, max_new_tokens=1)
    rig.step(2)
    rig.step(3)
    assert rig.delivered[-1][0] == {"b": 3}


def test_a_full_cache_drops_unused_pages_and_otherwise_decodes() -> None:
    rig = Rig()
    rig.add("a", max_new_tokens=9)
    rig.step(1)
    rig.step(2)
    rig.add("b")
    rig.backend.has_space = False
    assert rig.step(3) == ("decode", 1)
    assert rig.backend.freed_blocks > 0
