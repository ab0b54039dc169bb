"""The events of jobs, as clients may see them: reading one stream, and following many with one blocking read.

A process that serves a thousand streams keeps one Follower: one thread, one connection.
"""

import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import redis

from shared.ids import new_id
from shared.redis_connection import PREFIX, connect, is_outage

logger = logging.getLogger(__name__)

# A half-open connection is known for one when a reply is this much late, and streams stand still until then.
BLOCK_SECONDS = 15.0
LATE_SECONDS = 5.0
WAKE_SECONDS = 60


@dataclass(frozen=True)
class StreamEvent:
    """One event of a job. ``sequence`` rises by one with each; ``at`` is in Unix milliseconds."""

    sequence: int
    type: str
    attempt: int
    at: int
    data: Mapping[str, Any]

    @cached_property
    def server_sent(self) -> bytes:
        """As a server-sent event. All readers of a process are given the same object, so it is made once for all of them."""
        data = json.dumps({"attempt": self.attempt, "at": self.at / 1000, **self.data}, ensure_ascii=False)
        return f"id: {self.sequence}\nevent: {self.type}\ndata: {data}\n\n".encode()


Listener = Callable[[StreamEvent], None]


def stream_key(job: str) -> str:
    return f"{PREFIX}job:{job}:events"


def read(client: redis.Redis, job: str, after: int = 0, limit: int = 1000) -> list[StreamEvent]:
    """Events of a job with a sequence number above ``after``, oldest first."""
    entries: Any = client.xrange(stream_key(job), min=f"({after}-0" if after else "-", count=limit)
    return [_event(entry, fields) for entry, fields in entries]


class Follower:
    """Follows the streams of jobs for listeners of this process. The thread starts with the first listener."""

    def __init__(self, url: str) -> None:
        self._url = url
        # Written to by this process to interrupt its own blocking read when a stream is added.
        self._wake = f"{PREFIX}wake:{new_id('wake')}"
        self._wake_after = "0-0"
        self._client = connect(url, timeout=2.0, retries=1, connections=1)
        self._listeners: dict[str, list[Listener]] = {}
        self._position: dict[str, str] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def follow(self, job: str, after: int, listener: Listener) -> None:
        """Call ``listener`` (from the follower's thread; it must not block) with each event after this sequence number.

        Listeners that join a job already followed may be given events that they have seen: they go by the numbers.
        """
        with self._lock:
            self._listeners.setdefault(job, []).append(listener)
            known = self._position.get(job)
            news = known is None or int(known.partition("-")[0]) > after
            if news:
                self._position[job] = f"{after}-0"
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
                self._thread.start()
        if not news:
            return
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.xadd(self._wake, {"job": job}, maxlen=1, approximate=False)
            pipeline.expire(self._wake, WAKE_SECONDS)
            pipeline.execute()

    def leave(self, job: str, listener: Listener) -> None:
        """No longer call this listener; the stream of a job that nobody listens to is followed no more."""
        with self._lock:
            listeners = self._listeners.get(job, [])
            if listener in listeners:
                listeners.remove(listener)
            if not listeners:
                self._listeners.pop(job, None)
                self._position.pop(job, None)

    def _run(self) -> None:
        client = connect(self._url, timeout=LATE_SECONDS, blocks=BLOCK_SECONDS)
        while True:
            try:
                self._read_once(client)
            except Exception as error:
                # The top of this thread: without it every stream would fall silent.
                if is_outage(error):
                    logger.warning("Redis is away (%s); streams wait", error)
                else:
                    logger.exception("reading event streams failed")
                threading.Event().wait(0.5)

    def _read_once(self, client: redis.Redis) -> None:
        with self._lock:
            streams: dict[Any, Any] = {stream_key(job): position for job, position in self._position.items()}
        streams[self._wake] = self._wake_after
        answer: Any = client.xread(streams, count=1000, block=int(1000 * BLOCK_SECONDS))
        for key, entries in answer.items() if isinstance(answer, dict) else answer:
            # With RESP3 the entries of a stream come wrapped in one more list.
            entries = entries[0] if entries and isinstance(entries[0], list) else entries
            if key == self._wake:
                self._wake_after = entries[-1][0]
            else:
                self._tell(key.removeprefix(f"{PREFIX}job:").removesuffix(":events"), entries, streams[key])

    def _tell(self, job: str, entries: list[Any], read_from: str) -> None:
        with self._lock:
            listeners = list(self._listeners.get(job, ()))
            # A listener that joined meanwhile may have set the position back; then this read does not move it on.
            if self._position.get(job) == read_from:
                self._position[job] = entries[-1][0]
        for entry, fields in entries:
            event = _event(entry, fields)
            for listener in listeners:
                listener(event)


def _event(entry: str, fields: Mapping[str, str]) -> StreamEvent:
    sequence = int(entry.partition("-")[0])
    return StreamEvent(sequence, fields["type"], int(fields["attempt"]), int(fields["at"]), json.loads(fields["data"]))
