"""Redis connections, with timeouts and retries that were tested under faults.

Blocking reads need their own connection (``blocks``), because the usual socket timeout would interrupt them.
"""

from typing import Any

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

PREFIX = "eh:"

# Retries of the commands of a handler, which take about four seconds: a quick restart of Redis then interrupts none.
STEADY_RETRIES = 8

# redis-py raises these when Redis is unreachable, full, read-only, loading or without its master. The caller may retry later.
OUTAGE = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.BusyLoadingError,
    redis.ReadOnlyError,
    redis.OutOfMemoryError,
    redis.exceptions.MasterDownError,
)
# Replies for which redis-py has no class: saving to disk fails, a script runs for too long, too few replicas are connected.
OUTAGE_REPLIES = ("MISCONF ", "OOM ", "BUSY ", "NOREPLICAS ")


def connect(url: str, *, timeout: float = 10.0, retries: int = 2, blocks: float = 0.0, connections: int = 0) -> redis.Redis:
    """Create a client with its own pool. Responses are decoded to ``str``. It connects on the first command.

    ``timeout`` (seconds) limits connecting and each reply. For blocking reads, ``blocks`` is the longest time that a command
    blocks; a connection without a reply after both times together is half-open. A command without a reply is sent again up to
    ``retries`` times, which is safe because every script may run twice. ``connections`` limits the pool; threads then wait for a
    free connection, up to ``timeout``.
    """
    options: dict[str, Any] = {
        "decode_responses": True,
        "socket_connect_timeout": min(timeout, 5.0),
        "socket_timeout": timeout + blocks,
        # A Unix socket has none, and redis-py refuses the option for it.
        **({} if url.startswith("unix:") else {"socket_keepalive": True}),
        # A ping before each command that follows a pause. A blocking read that returned empty has just had its reply.
        "health_check_interval": 5 + blocks,
        # For each connection, redis-py would look up its own version in the installed packages (milliseconds) and send it.
        "driver_info": None,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.05, cap=1.0), retries),
    }
    if connections:
        pool = redis.BlockingConnectionPool.from_url(url, max_connections=connections, timeout=timeout, **options)
        return redis.Redis.from_pool(pool)
    return redis.Redis.from_url(url, max_connections=1024, **options)


def is_outage(error: BaseException) -> bool:
    """Whether an error means that Redis is temporarily unable to serve, rather than that the command is wrong."""
    return isinstance(error, OUTAGE) or (isinstance(error, redis.ResponseError) and str(error).startswith(OUTAGE_REPLIES))


def outage_message(error: BaseException) -> str:
    """What an outage is, as a sentence. A Redis whose disk or memory is full answers, and only rejects writes."""
    full = isinstance(error, redis.OutOfMemoryError) or str(error).startswith(("MISCONF ", "OOM "))
    return f"Redis {'rejects writes' if full else 'does not answer'} ({error})."


def redis_time_ms(client: redis.Redis) -> int:
    """The time of Redis in Unix milliseconds. Times in records come from this clock, and that of this machine may differ."""
    return time_reply_ms(client.time())


def time_reply_ms(reply: Any) -> int:
    """The reply to ``TIME`` in Unix milliseconds."""
    seconds, microseconds = reply
    return int(seconds) * 1000 + int(microseconds) // 1000
