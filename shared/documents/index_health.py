"""Index health: a flag that workers set when the index server is alive but does not answer for a collection.

Chroma gets into this state if its disk was full for a while: every request for the collection hangs until the server is
restarted. The workers notice it; the process that runs the server must restart it.
"""

import redis

from shared.redis_connection import PREFIX

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
