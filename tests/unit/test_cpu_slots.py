"""CPU slots: a fixed number at once; a borrower takes only idle ones, and always returns them."""

from pathlib import Path

import pytest

from workers.cpu.cpu_slots import CpuSlots


def test_no_more_slots_are_acquired_than_exist(tmp_path: Path) -> None:
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


def test_idle_slots_are_borrowed_and_returned(tmp_path: Path) -> None:
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
