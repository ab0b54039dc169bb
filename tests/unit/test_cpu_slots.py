"""Places are for so many at once; who lends takes only what is free, and gives it back whatever happens."""

from pathlib import Path

import pytest

from workers.cpu.cpu_slots import CpuSlots


def test_no_more_are_taken_than_there_are(tmp_path: Path) -> None:
    slots = CpuSlots(tmp_path, 2)
    first, second = slots.acquire(), slots.acquire()
    assert first is not None
    assert second is not None
    assert slots.acquire() is None
    first.release()
    again = slots.acquire()
    assert again is not None
    assert slots.acquire() is None
    second.release(), again.release()


def test_only_free_ones_are_lent_and_they_come_back(tmp_path: Path) -> None:
    slots = CpuSlots(tmp_path, 3)
    own = slots.acquire()
    assert own is not None
    with slots.borrow_idle() as borrow_idle:
        assert borrow_idle == 2
        assert slots.acquire() is None
        with slots.borrow_idle() as none_left:
            assert none_left == 0
    with pytest.raises(ZeroDivisionError), slots.borrow_idle():
        raise ZeroDivisionError
    with slots.borrow_idle() as again:
        assert again == 2
    own.release()
