"""CPU slots: a limit on how many processes of a machine work on documents at once, across all worker processes.

Each slot is a file that is locked while the slot is taken. The kernel releases the lock when its process dies, so a crash
cannot lose a slot. A job takes a slot if one is free and runs without one if not; long documents borrow the idle slots to
parse and embed in parallel.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.settings import Settings


class CpuSlot:
    """A slot that is taken until ``release``."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        os.close(self._descriptor)


class CpuSlots:
    """``count`` slots, as lock files in ``folder``."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self.count = count

    def acquire(self) -> CpuSlot | None:
        """Take a free slot; return None, without waiting, if there is none."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for number in range(self.count):
            descriptor = os.open(self._folder / str(number), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
            else:
                return CpuSlot(descriptor)
        return None

    @contextmanager
    def borrow_idle(self) -> Iterator[int]:
        """Take all free slots for the duration of the block, and yield how many there are.

        At most ``count - 1`` are taken: the borrower uses one processor itself, even if it found no slot.
        """
        borrowed: list[CpuSlot] = []
        try:
            while len(borrowed) < self.count - 1 and (slot := self.acquire()):
                borrowed.append(slot)
            yield len(borrowed)
        finally:
            for slot in borrowed:
                slot.release()


def machine_cpu_slots(settings: Settings) -> CpuSlots:
    """The slots that all CPU workers with the same data folder share."""
    return CpuSlots(settings.data_dir / "cpu-slots", settings.cpu_workers)
