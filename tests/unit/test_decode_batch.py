"""Requests as rows of arrays: who is in the next step, where their tokens are, and that a row given up is nobody's."""

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

from workers.gpu.engine.decode_batch import DecodeBatch
from workers.gpu.engine.graph_sizes import GraphSizes
from workers.gpu.engine.sampling import GREEDY, KEY

SPARE = 7


def state(name: str, new: int = 5, stops: tuple[int, ...] = (), length: int = 3) -> Any:
    return SimpleNamespace(
        request_id=name,
        position_offset=length,
        max_new_tokens=new,
        logit_processor_kwargs={KEY: GREEDY},
        _eos_token_ids=set(stops),
    )


def test_a_request_is_in_the_steps_that_its_answer_needs_after_the_one_that_ends_its_prompt() -> None:
    rows = DecodeBatch(4, 2, SPARE)
    row = rows.join(state("a", new=3), [1])
    assert len(rows) == 1
    assert rows.advance().tolist() == [row]
    assert rows.position[row] == 4
    assert rows.advance().tolist() == [row]
    assert len(rows) == 0


def test_a_request_for_one_token_is_in_no_step_of_answers() -> None:
    rows = DecodeBatch(4, 2, SPARE)
    rows.join(state("a", new=1), [1])
    assert len(rows) == 0
    assert rows.drop("a").request_id == "a"
    assert rows.free == 4


def test_those_in_a_step_know_their_place_in_its_output() -> None:
    rows = DecodeBatch(4, 2, SPARE)
    first, second, third = (rows.join(state(name), [1]) for name in "abc")
    rows.drop("b")
    rows.advance()
    assert rows.place[first] == 0
    assert rows.place[third] == 1
    assert rows.place[second] == -1


def test_a_row_that_is_used_again_has_another_serial_and_its_own_pages() -> None:
    rows = DecodeBatch(1, 3, SPARE)
    row = rows.join(state("a"), [1, 2, 3])
    before = int(rows.serial[row])
    rows.drop("a")
    assert rows.join(state("b"), [9]) == row
    assert int(rows.serial[row]) != before
    assert rows.table[row].tolist() == [9, SPARE, SPARE]
    rows.repage("b", [4])
    assert rows.table[row].tolist() == [4, SPARE, SPARE]
    assert rows.drop("a") is None


def test_only_the_stops_of_living_rows_are_looked_for() -> None:
    rows = DecodeBatch(2, 1, SPARE)
    rows.join(state("a", stops=(5, 6)), [1])
    rows.join(state("b", stops=(6,)), [1])
    assert sorted(rows.stop_tokens) == [5, 6]
    rows.drop("a")
    assert rows.stop_tokens == [6]


def test_a_step_is_padded_to_the_next_size_and_the_largest_size_is_what_there_may_be() -> None:
    shapes = GraphSizes(700, 20)
    assert [shapes.prompt(tokens) for tokens in (1, 64, 65, 600, 641, 700)] == [64, 64, 128, 640, 700, 700]
    assert [shapes.answer(requests) for requests in (1, 3, 9, 17, 20)] == [1, 4, 16, 20, 20]
