"""Chat sessions in Redis. The transition that ends a job writes its messages, so the history never contains half a turn.

A session is a hash (created_at, ttl_seconds, and last_job: the job of the newest turn, for which the next turn waits) and a list of
messages as JSON. Both expire some time after their last use. Ids are names that clients choose; each owner has its own
(``shared/jobs/lua/lib/session.lua`` has the keys).
"""

import json

import redis

from shared.errors import NotFound, QuotaExceeded
from shared.sessions.scripts import SessionScripts
from shared.settings import Settings


class Sessions:
    """Opens, reads and deletes sessions of owners."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._scripts = SessionScripts(client)
        self._settings = settings

    def open(self, session: str, owner: str) -> None:
        """Create a session, or continue the owner's session with this id. Raises QuotaExceeded."""
        limit = self._scripts.open_session(
            id=session, owner=owner, ttl_seconds=self._settings.session_seconds, limit=self._settings.max_sessions
        )
        if limit:
            raise QuotaExceeded("sessions", int(limit))

    def messages(self, session: str, owner: str) -> list[dict[str, str]]:
        """The messages, oldest first, each with ``role``, ``content`` and ``timestamp``. Reading them renews the session's time to live.

        Raises NotFound.
        """
        texts = self._scripts.read_session(id=session, owner=owner, ttl_seconds=self._settings.session_seconds)
        if texts is None:
            raise session_not_found(session)
        return [json.loads(text) for text in texts]

    def delete_session(self, session: str, owner: str) -> None:
        """Delete a session. Raises NotFound."""
        if not self._scripts.remove_session(id=session, owner=owner):
            raise session_not_found(session)


def session_not_found(session: str) -> NotFound:
    """The error for a session that does not exist, or belongs to another owner."""
    return NotFound(f"Session {session[:80]!r} does not exist.", code="session_not_found", param="sessionId")
