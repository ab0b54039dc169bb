"""Server-sent events (WHATWG HTML, section 9.2): from pieces of bytes, cut anywhere, to a job's events."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ServerSentEvent:
    """One event as it came: ``id`` is the newest that the stream has told, ``data`` its lines."""

    id: str
    event: str
    data: str


class EventParser:
    """Reads one stream. An event that the stream breaks off in is not told."""

    def __init__(self) -> None:
        self.retry_seconds: float | None = None
        self._rest = b""
        self._begun = False
        self._id = ""
        self._event = ""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> Iterator[ServerSentEvent]:
        """The events that this piece completes."""
        self._rest += piece
        if not self._begun:
            if len(self._rest) < 3 and b"\xef\xbb\xbf".startswith(self._rest):
                return
            self._begun = True
            self._rest = self._rest.removeprefix(b"\xef\xbb\xbf")
        # A carriage return at the very end may be half of a line's end.
        whole = self._rest.endswith(b"\n")
        held = b"\r" if self._rest.endswith(b"\r") else b""
        text = self._rest.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = text.split(b"\n")
        self._rest = b"" if whole else rest + held
        for line in lines:
            event = self._line(line.decode("utf-8", errors="replace"))
            if event is not None:
                yield event

    def _line(self, line: str) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_seconds = int(value) / 1000
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        event, data = self._event, self._data
        self._event, self._data = "", []
        return ServerSentEvent(self._id, event or "message", "\n".join(data)) if data else None


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happened to a job. ``id`` rises by one with each; ``at`` is in Unix seconds.

    ``type`` is ``queued``, ``started``, ``delta``, ``progress``, ``attempt_lost``, ``requeued``, ``restart`` (what was shown
    so far is void: the answer begins anew) or ``ended``; ``data`` has what goes with it.
    """

    id: int
    type: str
    attempt: int
    at: float
    data: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The next piece of the answer; empty unless the type is ``delta``."""
        return str(self.data.get("text", ""))

    @classmethod
    def read(cls, told: ServerSentEvent) -> "Event":
        """Raises ValueError when it is no event of a job."""
        data = json.loads(told.data)
        return cls(id=int(told.id), type=told.event, attempt=int(data["attempt"]), at=float(data["at"]), data=data)
