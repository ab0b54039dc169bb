"""How this project talks to Redis: connections with the timeouts that held under faults, and Lua moves from files.

Knows nothing of jobs. A read that waits inside Redis needs a connection of its own (``blocks``), as the usual socket timeout
would cut it off.
"""

from typing import Any

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

PREFIX = "eh:"

# What redis-py raises when Redis is away, full, read-only or still loading: the caller may try again later.
OUTAGE = (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError, redis.ReadOnlyError, redis.OutOfMemoryError)


def connect(url: str, *, timeout: float = 10.0, retries: int = 2, blocks: float = 0.0, connections: int = 0) -> redis.Redis:
    """A client with a pool of its own that decodes to ``str``.

    ``timeout`` (seconds) bounds connecting and each reply; a reader that waits inside Redis says for how long, in ``blocks``,
    and a reply that is later than both together comes from nobody: the connection is half open. Every move is safe to send
    twice, so a lost reply is retried ``retries`` times. ``connections`` bounds the pool: threads then wait for one, up to
    ``timeout``. No connection is made before the first command.
    """
    options: dict[str, Any] = {
        "decode_responses": True,
        "socket_connect_timeout": min(timeout, 5.0),
        "socket_timeout": timeout + blocks,
        "socket_keepalive": True,
        "health_check_interval": 5,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.05, cap=1.0), retries),
    }
    if connections:
        pool = redis.BlockingConnectionPool.from_url(url, max_connections=connections, timeout=timeout, **options)
        return redis.Redis.from_pool(pool)
    return redis.Redis.from_url(url, max_connections=1024, **options)


def is_outage(error: BaseException) -> bool:
    """Whether an error says that Redis cannot do it now, rather than that the command is wrong."""
    return isinstance(error, OUTAGE) or (isinstance(error, redis.ResponseError) and str(error).startswith(("MISCONF", "OOM")))
