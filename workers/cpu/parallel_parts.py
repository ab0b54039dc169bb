"""Parallel parts: reads the parts of one document in this thread, and in more threads while CPU slots are free."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from workers.cpu.cpu_slots import CpuSlot, CpuSlots

T = TypeVar("T")


class OtherPartFailed(Exception):
    """Another part has failed, so this one need not be finished. The error of the other one is the one to report."""


class ParallelParts:
    """Reads the parts of one document. When one fails, the others stop at their next ``check``."""

    def __init__(self, slots: CpuSlots) -> None:
        self._slots = slots
        self._lock = threading.Lock()
        self._failed = threading.Event()

    def check(self) -> None:
        """Raise OtherPartFailed if a part has failed."""
        if self._failed.is_set():
            raise OtherPartFailed

    def read(self, parts: Sequence[T], read_part: Callable[[T, bool], None]) -> None:
        """Call ``read_part`` for each part, in this thread, and in one more for each CPU slot that is free whenever a part ends here.

        Its second argument says whether it runs in this thread. Raises the error of the part that failed.
        """
        pending, unfinished = iter(parts), len(parts)

        def read_next(*, is_here: bool) -> bool:
            nonlocal unfinished
            with self._lock:
                part = next(pending, None)
            if part is None:
                return False
            read_part(part, is_here)
            with self._lock:
                unfinished -= 1
            return True

        def read_with_slot(slot: CpuSlot) -> None:
            try:
                read_next(is_here=False)
            except BaseException:
                self._failed.set()
                raise
            finally:
                slot.release()

        helpers: set[Future[None]] = set()
        with ThreadPoolExecutor(self._slots.count, thread_name_prefix="part") as pool:
            try:
                while True:
                    for helper in [helper for helper in helpers if helper.done()]:
                        helpers.remove(helper)
                        helper.result()
                    # One part is for this thread.
                    while len(helpers) < min(self._slots.count, unfinished) - 1 and (slot := self._slots.acquire()):
                        helpers.add(pool.submit(read_with_slot, slot))
                    if not read_next(is_here=True):
                        break
            except OtherPartFailed:
                pass  # the error of the part that failed is raised below
            except BaseException:
                self._failed.set()
                raise
        for error in [helper.exception() for helper in helpers]:
            # Those that stopped because of the failed part must not hide its error, which says what is wrong with the document.
            if error is not None and not isinstance(error, OtherPartFailed):
                raise error
