"""How many of a machine's processes work on documents at once: so many as the pool has, whoever started them.

Each place is a file that is locked while it is taken. The kernel gives it back when its process dies, so no crash can lose
one. A job takes a place for itself if it finds one and goes on without if not; what is left over is lent to long documents,
for reading and for embedding.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.settings import Settings


class CpuSlot:
    """A place that is taken, until ``leave``."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        os.close(self._descriptor)


class CpuSlots:
    """The ``count`` places under ``folder``."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self.count = count

    def acquire(self) -> CpuSlot | None:
        """A free place, or None; never waits."""
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
        """All places that are free now, taken for the time of the block; how many they are. One stays for the borrower, who may
        have found none for itself."""
        taken: list[CpuSlot] = []
        try:
            while len(taken) < self.count - 1 and (slot := self.acquire()):
                taken.append(slot)
            yield len(taken)
        finally:
            for slot in taken:
                slot.release()


def machine_cpu_slots(settings: Settings) -> CpuSlots:
    """Those of this machine's CPU workers on one data folder."""
    return CpuSlots(settings.data_dir / "cpu-slots", settings.cpu_workers)
