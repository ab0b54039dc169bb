"""Chat sessions in Redis. The transition that ends a job writes its messages, so the history never contains half a turn.

``eh:session:<id>`` is a hash (owner, created_at, ttl_seconds, and last_job: the job of the newest turn, for which the next turn
waits). ``eh:session_messages:<id>`` is the list of messages as JSON. Both expire some time after their last use.
"""

import json
import time
from typing import Any

import redis

from shared.errors import NotFound
from shared.redis_connection import PREFIX
from shared.settings import Settings


class Sessions:
    """Opens, reads and deletes sessions. Sessions of other owners are reported as not found."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._redis: Any = client
        self._settings = settings

    def open(self, session: str, owner: str) -> None:
        """Create a session, or continue the owner's session with this id. Raises NotFound if it belongs to another owner."""
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
        """Raise NotFound unless the owner has this session."""
        if self._redis.hget(_key(session), "owner") != owner:
            raise _not_found(session)

    def messages(self, session: str) -> list[dict[str, str]]:
        """The messages, oldest first, each with ``role``, ``content`` and ``timestamp``. Reading them renews the session's time to live."""
        key = _key(session)
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.lrange(_messages_key(session), 0, -1)
            pipeline.expire(key, self._settings.session_seconds)
            pipeline.expire(_messages_key(session), self._settings.session_seconds)
            texts = pipeline.execute()[0]
        return [json.loads(text) for text in texts]

    def delete_session(self, session: str, owner: str) -> None:
        """Delete a session. Raises NotFound unless the owner has it."""
        self.check(session, owner)
        self._redis.delete(_key(session), _messages_key(session))


def _key(session: str) -> str:
    return f"{PREFIX}session:{session}"


def _messages_key(session: str) -> str:
    return f"{PREFIX}session_messages:{session}"


def _not_found(session: str) -> NotFound:
    return NotFound(f"There is no session {session[:80]!r}.", code="session_not_found", param="sessionId")
