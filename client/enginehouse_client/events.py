"""Parser of server-sent events (WHATWG HTML, section 9.2) and the events of a job."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ServerSentEvent:
    """One parsed event: ``id`` is the latest id of the stream, ``data`` the joined data lines."""

    id: str
    event: str
    data: str


class EventParser:
    """Parses one stream from pieces of bytes of any size. An incomplete event at the end is dropped."""

    def __init__(self) -> None:
        self.retry_seconds: float | None = None
        self._rest = b""
        self._begun = False
        self._id = ""
        self._event = ""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> Iterator[ServerSentEvent]:
        """Yield the events that this piece completes."""
        self._rest += piece
        if not self._begun:
            if len(self._rest) < 3 and b"\xef\xbb\xbf".startswith(self._rest):
                return
            self._begun = True
            self._rest = self._rest.removeprefix(b"\xef\xbb\xbf")
        # A carriage return at the end of the piece may be the first half of a line break.
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
    """An event of a job. ``id`` increases by one with each event; ``at`` is in Unix seconds.

    ``type`` is ``queued``, ``started``, ``delta``, ``progress``, ``attempt_lost``, ``requeued``, ``restart`` (the text so far is
    void and the answer starts over) or ``ended``; ``data`` holds the fields of that type.
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
    def parse(cls, event: ServerSentEvent) -> "Event":
        """Raises ValueError if this is not an event of a job."""
        data = json.loads(event.data)
        return cls(id=int(event.id), type=event.event, attempt=int(data["attempt"]), at=float(data["at"]), data=data)
