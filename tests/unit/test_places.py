"""Places are for so many at once; who lends takes only what is free, and gives it back whatever happens."""

from pathlib import Path

import pytest

from workers.cpu.cpu_slots import CpuSlots


def test_no_more_are_taken_than_there_are(tmp_path: Path) -> None:
    places = CpuSlots(tmp_path, 2)
    first, second = places.take(), places.take()
    assert first is not None
    assert second is not None
    assert places.take() is None
    first.leave()
    again = places.take()
    assert again is not None
    assert places.take() is None
    second.leave(), again.leave()


def test_only_free_ones_are_lent_and_they_come_back(tmp_path: Path) -> None:
    places = CpuSlots(tmp_path, 3)
    own = places.take()
    assert own is not None
    with places.lent() as lent:
        assert lent == 2
        assert places.take() is None
        with places.lent() as none_left:
            assert none_left == 0
    with pytest.raises(ZeroDivisionError), places.lent():
        raise ZeroDivisionError
    with places.lent() as again:
        assert again == 2
    own.leave()
