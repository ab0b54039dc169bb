"""Request slots: how many long requests each owner may have on one API process.

A long request occupies a thread. No owner may hold more slots than are free, so one owner can never take the last of them.
"""

import threading
from collections import Counter

from shared.errors import TooMany, Unavailable


class RequestSlots:
    """A fixed number of slots. An owner acquires each for a use, such as ``streams``. Safe to use from many threads."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._lock = threading.Lock()
        self._owners: Counter[str] = Counter()
        self._uses: Counter[tuple[str, str]] = Counter()

    def acquire(self, owner: str, use: str, limit: int | None) -> None:
        """Acquire a slot; call ``release`` afterwards. ``limit`` is the owner's limit for this use, or None if there are no other
        owners.

        Raises TooMany if the owner holds too many slots, and Unavailable if none is free.
        """
        with self._lock:
            free = self._slots - self._owners.total()
            if free <= 0:
                raise Unavailable(
                    f"{self._slots} clients are already waiting on this server process; try again, or call without waiting",
                    retry_after=1,
                )
            if limit is not None and (self._uses[owner, use] >= limit or self._owners[owner] >= free):
                held = self._uses[owner, use]
                raise TooMany(
                    f"{use}: you already have {held} on this server process. More are not allowed now, because other owners need free "
                    "slots. Retry when some of yours have ended.",
                    code="concurrency_limited",
                    retry_after=1,
                    details={"quota": use, "limit": held},
                )
            self._owners[owner] += 1
            self._uses[owner, use] += 1

    def release(self, owner: str, use: str) -> None:
        """Release a slot."""
        with self._lock:
            self._owners[owner] -= 1
            self._uses[owner, use] -= 1
            # Otherwise the counters would grow with every owner that ever called.
            if not self._owners[owner]:
                del self._owners[owner]
            if not self._uses[owner, use]:
                del self._uses[owner, use]
