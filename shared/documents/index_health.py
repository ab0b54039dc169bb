"""Index health: a flag that workers set when the index server is alive but does not answer for a collection.

Chroma gets into this state if its disk was full for a while: every request for the collection hangs until the server is
restarted. The workers notice it; the process that runs the server must restart it.

Workers also note here which collections have to be reindexed.
"""

from typing import Any

import redis

from shared.redis_connection import PREFIX

PROBLEMS_KEY = f"{PREFIX}index:problems"
KEY = f"{PREFIX}index:silent"
# The flag expires after this time. Workers set it again while the index hangs.
FLAG_SECONDS = 120


def report_silence(client: redis.Redis) -> None:
    """Set the flag: a request for a collection timed out although the server is alive."""
    client.set(KEY, "1", ex=FLAG_SECONDS)


def is_silent(client: redis.Redis) -> bool:
    """Whether the flag is set."""
    return bool(client.exists(KEY))


def clear_silence(client: redis.Redis) -> bool:
    """Return whether the flag is set, and clear it. For the process that restarts the server."""
    return client.getdel(KEY) is not None


def report_problem(client: redis.Redis, collection_id: str, reason: str) -> bool:
    """Note that a collection has to be reindexed; return whether this is news."""
    return bool(client.hset(PROBLEMS_KEY, collection_id, reason))


def clear_problem(client: redis.Redis, collection_id: str) -> None:
    """Remove the note about a collection, because it was reindexed or deleted."""
    client.hdel(PROBLEMS_KEY, collection_id)


def list_problems(client: redis.Redis) -> dict[str, str]:
    """The collections that have to be reindexed, with the reason."""
    problems: Any = client.hgetall(PROBLEMS_KEY)
    return dict(problems)


def read_problem(client: redis.Redis, collection_id: str) -> str:
    """Why a collection has to be reindexed, or ""."""
    reason: Any = client.hget(PROBLEMS_KEY, collection_id)
    return str(reason or "")
