"""Places of an API process for requests that take long, shared between owners.

Each such request occupies a thread. No owner may have more places than are free, so whatever one owner does, others find some.
"""

import threading
from collections import Counter

from shared.errors import TooMany, Unavailable


class OwnerPlaces:
    """A number of places, each taken by an owner for a use, such as ``streams``."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._lock = threading.Lock()
        self._owners: Counter[str] = Counter()
        self._uses: Counter[tuple[str, str]] = Counter()

    def take(self, owner: str, use: str, limit: int | None) -> None:
        """Take a place; call ``give_back`` afterwards. ``limit`` is the owner's for this use, or None if there is no other owner.

        Raises TooMany if the owner has too many places, and Unavailable if none is free.
        """
        with self._lock:
            free = self._places - self._owners.total()
            if free <= 0:
                raise Unavailable(
                    f"{self._places} clients are already waiting on this server process; try again, or call without waiting",
                    retry_after=1,
                )
            if limit is not None and (self._uses[owner, use] >= limit or self._owners[owner] >= free):
                held = self._uses[owner, use]
                raise TooMany(
                    f"{use}: you have {held} on this server process, and no more are possible now, so that places stay free for others. "
                    "Retry when some of them have ended.",
                    code="too_many_places",
                    retry_after=1,
                    details={"quota": use, "limit": held},
                )
            self._owners[owner] += 1
            self._uses[owner, use] += 1

    def give_back(self, owner: str, use: str) -> None:
        """Return a place."""
        with self._lock:
            self._owners[owner] -= 1
            self._uses[owner, use] -= 1
            # Without these, the counters would grow by each owner that ever called.
            if not self._owners[owner]:
                del self._owners[owner]
            if not self._uses[owner, use]:
                del self._uses[owner, use]
