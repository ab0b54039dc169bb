"""Chat sessions in Redis. Their messages are written by the move that ends a job, so that a history never shows half a turn.

``eh:session:<id>`` is a hash (owner, created_at, ttl_seconds, last_job: the newest turn, which the next one waits for);
``eh:session:<id>:messages`` the list of messages as JSON. Both live for a time after their last use.
"""

import json
import time
from typing import Any

import redis

from shared.errors import NotFound
from shared.redis_connection import PREFIX
from shared.settings import Settings


class Sessions:
    """The verbs on sessions. A session of another owner is one that does not exist."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._redis: Any = client
        self._settings = settings

    def open(self, session: str, owner: str) -> None:
        """Begin a session, or go on with the owner's own of that id. Raises NotFound when it is somebody else's."""
        key = _key(session)
        ttl = self._settings.session_seconds
        with self._redis.pipeline() as pipeline:
            pipeline.hsetnx(key, "owner", owner)
            pipeline.hsetnx(key, "created_at", int(time.time() * 1000))
            pipeline.hsetnx(key, "ttl_seconds", ttl)
            pipeline.hget(key, "owner")
            pipeline.expire(key, ttl, nx=True)
            _, _, _, found, _ = pipeline.execute()
        if found != owner:
            raise _not_found(session)

    def check(self, session: str, owner: str) -> None:
        """Raises NotFound unless the owner has this session."""
        if self._redis.hget(_key(session), "owner") != owner:
            raise _not_found(session)

    def messages(self, session: str) -> list[dict[str, str]]:
        """What has been said, oldest first: ``role``, ``content``, ``timestamp``; renews the session's time to live."""
        key = _key(session)
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.lrange(f"{key}:messages", 0, -1)
            pipeline.expire(key, self._settings.session_seconds)
            pipeline.expire(f"{key}:messages", self._settings.session_seconds)
            texts = pipeline.execute()[0]
        return [json.loads(text) for text in texts]

    def delete(self, session: str, owner: str) -> None:
        """Forget a session. Raises NotFound unless the owner has it."""
        self.check(session, owner)
        self._redis.delete(_key(session), f"{_key(session)}:messages")


def _key(session: str) -> str:
    return f"{PREFIX}session:{session}"


def _not_found(session: str) -> NotFound:
    return NotFound(f"there is no session {session[:80]!r}", code="session_not_found", param="sessionId")
