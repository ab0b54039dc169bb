"""Lists of chat sessions, by their last turn, and the search in their titles and texts."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
_READ_BYTES = 1024 * 1024
"""Texts of several sessions are read together up to this size."""
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
        search = _Search(text)
        found: list[Session] = []
        searched = size = 0
        last: _Row | None = None
        for batch in _batches(self._rows(owner, cursor)):
            texts = self._texts(owner, batch, search)
            for row in batch:
                # One more than the page shows that there is a next one.
                if (
                    len(found) == limit
                    or searched >= MAX_SEARCHED_SESSIONS
                    or (size > 0 and size + row.size > MAX_SEARCHED_BYTES)
                ):
                    return SessionPage(found, last.cursor if last else None)
                last = row
                if row.digest in texts:
                    searched, size = searched + 1, size + row.size
                    if not search.is_in_turns(texts[row.digest]):
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

    def _texts(self, owner: str, rows: Sequence[_Row], search: "_Search") -> dict[str, dict[str, str]]:
        """The turns of those sessions whose titles do not match, by digest."""
        unmatched = [row.digest for row in rows if not search.is_in(row.session.title)]
        with self._client.pipeline(transaction=False) as pipeline:
            for digest in unmatched:
                pipeline.hgetall(f"{PREFIX}session:{owner}:{digest}:turns")
            return dict(zip(unmatched, pipeline.execute(), strict=True))


class _Search:
    """Looks for a text, ignoring case and white space."""

    def __init__(self, text: str) -> None:
        self._text = _plain(text)
        # Words that JSON writes as they are. Reading only texts that have them is several times faster than reading all.
        self._words = [word for word in self._text.split() if not re.search(r'["\\/\x00-\x1f\x7f]', word)]

    def is_in(self, text: str) -> bool:
        return self._text in _plain(text)

    def is_in_turns(self, turns: Mapping[str, str]) -> bool:
        return any(self._is_in_json(value) for name, value in turns.items() if name.partition(":")[2] in ("", "answer"))

    def _is_in_json(self, value: str) -> bool:
        folded = value.casefold()
        return all(word in folded for word in self._words) and self.is_in(message_of(json.loads(value)))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _batches(rows: Iterable[_Row]) -> Iterator[list[_Row]]:
    """Sessions whose texts are read together."""
    batch: list[_Row] = []
    size = 0
    for row in rows:
        if batch and (size + row.size > _READ_BYTES or len(batch) == _CHUNK):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += row.size
    if batch:
        yield batch


def _parse_cursor(cursor: str) -> tuple[str, str]:
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidValue("cursor: is not the `next_cursor` of a page", param="cursor")
    return match[1], match[2]
