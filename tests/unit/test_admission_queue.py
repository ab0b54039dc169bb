"""What the engine gives its batch: never more than the cache holds to the end, shared heads one after the other, nobody for ever last."""

import pytest

pytest.importorskip("torch")

from workers.gpu.engine.admission_queue import MAX_OVERTAKES, AdmissionQueue

PAGE = 4


def feed(most: int = 100, room: int = 10) -> AdmissionQueue:
    """A cache of ``room`` pages."""
    return AdmissionQueue(most, room, lambda length: (-(-length // PAGE),), (1,), PAGE)


def test_requests_go_in_until_the_cache_could_not_hold_them_to_their_end() -> None:
    here = feed()
    for number in range(4):
        here.add(str(number), [number], 16)
    assert here.admit() == ["0", "1"]
    assert here.used == 0.8
    here.ended("0")
    assert here.admit() == ["2"]
    assert len(here) == 1


def test_no_more_than_so_many_at_once() -> None:
    here = feed(most=2)
    for number in range(3):
        here.add(str(number), [number], 1)
    assert here.admit() == ["0", "1"]
    here.ended("1")
    assert here.admit() == ["2"]


def test_short_ones_pass_a_long_one_for_a_while_and_then_wait_for_it() -> None:
    here = feed(most=10_000, room=10)
    here.add("held", [1], 4)
    assert here.admit() == ["held"]
    here.add("long", [1], 40)
    passed = 0
    for number in range(MAX_OVERTAKES + 10):
        here.add(str(number), [1], 4)
        admitted = here.admit()
        passed += len(admitted)
        for one in admitted:
            here.ended(one)
    assert passed == MAX_OVERTAKES
    here.ended("held")
    assert here.admit()[0] == "long"


def test_what_begins_alike_waits_until_the_first_has_read_it_and_then_comes_first() -> None:
    here = feed(room=100)
    here.add("first", [1, 2, 3, 4, 5], 8)
    here.add("alike", [1, 2, 3, 4, 6], 8)
    here.add("other", [9, 2, 3, 4, 5], 8)
    here.add("also alike", [1, 2, 3, 4, 7], 8)
    assert here.admit() == ["first", "other"]
    here.add("late", [1], 8)
    here.began("first")
    assert here.admit() == ["alike", "late"]
    here.began("alike")
    assert here.admit() == ["also alike"]


def test_one_that_ends_before_it_has_read_holds_nobody_up() -> None:
    here = feed()
    here.add("first", [1, 2, 3, 4, 5], 8)
    here.add("alike", [1, 2, 3, 4, 6], 8)
    assert here.admit() == ["first"]
    here.ended("first")
    assert here.admit() == ["alike"]


def test_one_that_waits_can_leave() -> None:
    here = feed(most=1)
    here.add("in", [1], 4)
    here.add("waits", [1], 4)
    assert here.admit() == ["in"]
    here.ended("waits")
    here.ended("in")
    assert here.admit() == []
    assert here.used == 0
