"""Chat sessions in Redis. The transitions of jobs write the turns, so the history never contains half a turn.

A session is a hash (id, created_at, ttl_seconds, title, current: the last turn of the shown branch, and last_job: the turn that was added
last, for which the next one waits) and its turns, which are a tree. All expire some time after their last use. Ids are names that clients
choose; each owner has its own (``shared/jobs/lua/lib/session.lua`` has the keys).
"""

import hashlib
import json
from typing import Any

import redis

from shared.errors import Conflict, NotFound, QuotaExceeded
from shared.lua_scripts import Clock
from shared.redis_connection import PREFIX
from shared.sessions.models import Session, Turn, message_of, parse_session, parse_turn
from shared.sessions.scripts import SessionScripts
from shared.settings import Settings

RESTORE_SECONDS = 60
"""How long a deleted session can be restored."""


class SessionFull(Conflict):
    """A session that accepts no further turn."""

    code = "session_full"
    should_retry = False

    def __init__(self, session: str, limit: int, unit: str) -> None:
        super().__init__(
            f"Chat {session[:80]!r} has reached the limit of {limit} {unit}. Start another chat.", details={"limit": limit}
        )


class Sessions:
    """Opens, reads, changes and deletes sessions of owners. ``clock`` gives Unix milliseconds and is for tests."""

    def __init__(self, client: redis.Redis, settings: Settings, *, clock: Clock | None = None) -> None:
        self._client: Any = client
        self._scripts = SessionScripts(client, clock=clock)
        self._settings = settings

    def open(self, session: str, owner: str) -> None:
        """Create a session, or continue the owner's session with this id. Raises QuotaExceeded."""
        limit = self._scripts.open_session(
            id=session, owner=owner, ttl_seconds=self._settings.session_seconds, limit=self._settings.max_sessions
        )
        if limit:
            raise QuotaExceeded("sessions", int(limit))

    def messages(self, session: str, owner: str, *, before: str = "") -> list[dict[str, Any]]:
        """The messages that the model has answered on the shown branch, or those that lead to the turn ``before``.

        Oldest first, each with ``role``, ``content`` and ``timestamp``. Turns that did not complete are left out. Reading them renews the
        session's time to live. Raises NotFound.
        """
        texts = self._scripts.read_messages(id=session, owner=owner, ttl_seconds=self._settings.session_seconds, turn=before)
        if texts is None:
            raise session_not_found(session)
        messages = []
        for question, answer in zip(texts[::2], texts[1::2], strict=True):
            asked, answered = json.loads(question), json.loads(answer)
            timestamp = answered.get("timestamp", "")
            messages.append({"role": "user", "content": message_of(asked), "timestamp": asked.get("timestamp", timestamp)})
            messages.append({"role": "assistant", "content": answered["content"], "timestamp": timestamp})
        return messages

    def turns(self, session: str, owner: str, *, last: str = "") -> tuple[Session, list[Turn]]:
        """A session, and the turns down to ``last``, by default the current one, oldest first.

        Reading them renews the session's time to live. Raises NotFound.
        """
        ttl_seconds = self._settings.session_seconds
        found = self._scripts.read_turns(id=session, owner=owner, ttl_seconds=ttl_seconds, turn=last)
        if found is None:
            raise session_not_found(session)
        fields, count, rows, updated_at = found
        if last and not rows:
            raise turn_not_found(last, session)
        return parse_session({"id": session, **_table(fields)}, turns=count, updated_at=updated_at), list(map(parse_turn, rows))

    def question(self, session: str, turn: str, owner: str) -> tuple[str, dict[str, Any]]:
        """The turn before a turn (empty for a first one), and what was asked. Raises NotFound."""
        key = f"{PREFIX}session:{owner}:{_digest(session)}"
        parent, question = self._client.hget(f"{key}:tree", turn), self._client.hget(f"{key}:turns", turn)
        if parent is None or question is None:
            raise turn_not_found(turn, session)
        asked: dict[str, Any] = json.loads(question)
        return str(parent), {**asked, "message": message_of(asked)}

    def has_turns(self, session: str, owner: str) -> bool:
        """Whether the owner's session exists and has a turn."""
        return bool(self._client.exists(f"{PREFIX}session:{owner}:{_digest(session)}:tree"))

    def change_session(self, session: str, owner: str, *, title: str = "", current: str = "") -> None:
        """Set the title, or show the branch of a turn: the newest one that follows from it. Without either, only renew the session's time
        to live. Raises NotFound."""
        ttl_seconds = self._settings.session_seconds
        outcome = self._scripts.change_session(id=session, owner=owner, ttl_seconds=ttl_seconds, title=title, turn=current)
        if outcome == "missing":
            raise session_not_found(session)
        if outcome == "no_turn":
            raise turn_not_found(current, session, param="current")

    def delete_session(self, session: str, owner: str) -> None:
        """Delete a session. For ``RESTORE_SECONDS`` it can be restored; then the jobs of its turns are deleted, too. Raises NotFound."""
        if not self._scripts.remove_session(id=session, owner=owner, kept_seconds=RESTORE_SECONDS):
            raise session_not_found(session)

    def restore_session(self, session: str, owner: str) -> None:
        """Take a deletion back. Raises NotFound if there was none or it is too long ago, and Conflict if the id is in use again."""
        outcome = self._scripts.restore_session(id=session, owner=owner, ttl_seconds=self._settings.session_seconds)
        if outcome == "missing":
            raise NotFound(
                f"Session {session[:80]!r} was not deleted within the last {RESTORE_SECONDS} seconds.",
                code="session_not_found",
                param="session",
            )
        if outcome == "exists":
            raise Conflict(f"Session {session[:80]!r} exists, so there is nothing to restore.", param="session")


def session_not_found(session: str) -> NotFound:
    """The error for a session that does not exist, or belongs to another owner."""
    return NotFound(f"Session {session[:80]!r} does not exist.", code="session_not_found", param="sessionId")


def turn_not_found(turn: str, session: str, *, param: str = "turn") -> NotFound:
    """The error for a turn that is not in a session."""
    return NotFound(f"{param}: Session {session[:80]!r} has no turn {turn[:80]!r}.", code="turn_not_found", param=param)


def _digest(session: str) -> str:
    return hashlib.sha1(session.encode(), usedforsecurity=False).hexdigest()


def _table(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
