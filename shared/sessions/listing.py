"""Lists of chat sessions, by their last turn, and the search in their titles and texts."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import redis

from shared.errors import InvalidValue
from shared.lua_scripts import Clock
from shared.redis_connection import PREFIX
from shared.sessions.models import Session, message_of, parse_session
from shared.sessions.scripts import SessionScripts

MAX_SEARCHED_SESSIONS = 500
MAX_SEARCHED_BYTES = 16 * 1024 * 1024
"""One call reads no more than this; the next page goes on from there."""

_CHUNK = 100
_CURSOR = re.compile(r"(\d{1,16})-([0-9a-f]{40})")


class SessionPage(NamedTuple):
    """Sessions, the one with the latest turn first, and where the next page starts; None if there is none."""

    sessions: list[Session]
    next_cursor: str | None


class _Row(NamedTuple):
    digest: str
    session: Session
    size: int

    @property
    def cursor(self) -> str:
        return f"{self.session.updated_at}-{self.digest}"


class SessionList:
    """Lists the sessions of owners."""

    def __init__(self, client: redis.Redis, *, clock: Clock | None = None) -> None:
        self._client: Any = client
        self._scripts = SessionScripts(client, clock=clock)

    def page(self, owner: str, *, limit: int, cursor: str | None = None, text: str = "") -> SessionPage:
        """The next sessions; with ``text``, those whose title, questions or answers have it, in upper or lower case.

        A search reads a limited number of sessions, so a page may be short or empty although older ones match. Raises InvalidValue.
        """
        wanted = " ".join(text.casefold().split())
        found: list[Session] = []
        searched = size = 0
        last: _Row | None = None
        for row in self._rows(owner, cursor):
            # One more than the page shows that there is a next one.
            if len(found) == limit or searched >= MAX_SEARCHED_SESSIONS or (size > 0 and size + row.size > MAX_SEARCHED_BYTES):
                return SessionPage(found, last.cursor if last else None)
            last = row
            if wanted and wanted not in row.session.title.casefold():
                searched, size = searched + 1, size + row.size
                if not self._has_text(owner, row, wanted):
                    continue
            found.append(row.session)
        return SessionPage(found, None)

    def _rows(self, owner: str, cursor: str | None) -> Iterator[_Row]:
        while True:
            updated_at, digest = _parse_cursor(cursor) if cursor else ("", "")
            rows = self._scripts.list_sessions(owner=owner, limit=_CHUNK, updated_at=updated_at, digest=digest)
            for digest, updated_at, turns, size, flat in rows:
                cursor = f"{updated_at}-{digest}"
                fields = dict(zip(flat[::2], flat[1::2], strict=True))
                # One that expired since is in the index until it is swept.
                if fields:
                    yield _Row(digest, parse_session(fields, turns=turns, updated_at=updated_at), int(size))
            if len(rows) < _CHUNK:
                return

    def _has_text(self, owner: str, row: _Row, wanted: str) -> bool:
        turns: dict[str, str] = self._client.hgetall(f"{PREFIX}session:{owner}:{row.digest}:turns")
        for name, value in turns.items():
            _, _, part = name.partition(":")
            if part in ("", "answer") and wanted in " ".join(message_of(json.loads(value)).casefold().split()):
                return True
        return False


def _parse_cursor(cursor: str) -> tuple[str, str]:
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidValue("cursor: is not the `next_cursor` of a page", param="cursor")
    return match[1], match[2]
