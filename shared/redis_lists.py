"""Pages of lists that are stored as a sorted set of ids with score 0, so that they sort by id."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import redis

BATCH = 100
# A filter that matches few records must not read a hundred thousand of them in one request. The client continues from ``next``.
MAX_SCANNED = 2000


class Record(Protocol):
    """A record that is listed by its id."""

    @property
    def id(self) -> str: ...


Item = TypeVar("Item", bound=Record)


def list_page(
    client: redis.Redis,
    index: str,
    read: Callable[[list[str]], list[Item]],
    *,
    limit: int,
    after: str | None,
    matches: Callable[[Item], bool] = lambda item: True,
    ascending: bool = False,
) -> tuple[list[Item], str | None]:
    """Matching items of an index, newest first unless ``ascending``, after the id ``after``; and the id after which the next page starts, or None.

    ``read`` returns the records of the given ids, without those that no longer exist. A page may be short or empty although
    more follow.
    """
    found: list[Item] = []
    cursor, scanned = after, 0
    while scanned < MAX_SCANNED:
        first, last = ("-", "+") if ascending else ("+", "-")
        start = f"({cursor}" if cursor else first
        reply: Any = client.zrange(index, start, last, desc=not ascending, bylex=True, offset=0, num=BATCH)
        ids: list[str] = list(reply)
        for item in read(ids):
            if len(found) == limit:
                return found, found[-1].id
            if matches(item):
                found.append(item)
        if len(ids) < BATCH:
            return found, None
        cursor = ids[-1]
        scanned += len(ids)
    return found, cursor
