"""Event streams of jobs: read one stream, or follow many with one blocking read.

A process that serves a thousand streams needs one Follower, with one thread and one connection.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import redis

from shared.ids import new_id
from shared.jobs.scripts import JobScripts
from shared.redis_connection import PREFIX, connect, is_outage

logger = logging.getLogger(__name__)

# A connection counts as half-open when a reply is LATE_SECONDS overdue. Until then its streams receive nothing.
BLOCK_SECONDS = 15.0
LATE_SECONDS = 5.0
RETRY_SECONDS = 0.5
WAKE_SECONDS = 60


@dataclass(frozen=True)
class StreamEvent:
    """One event of a job. ``sequence`` increases by one per event; ``at`` is in Unix milliseconds."""

    sequence: int
    type: str
    attempt: int
    at: int
    data: Mapping[str, Any]

    @cached_property
    def server_sent(self) -> bytes:
        """The event in server-sent events format. It is cached because all readers in a process share this object."""
        data = json.dumps({"attempt": self.attempt, "at": self.at / 1000, **self.data}, ensure_ascii=False)
        return f"id: {self.sequence}\nevent: {self.type}\ndata: {data}\n\n".encode()


Listener = Callable[[StreamEvent], None]


def stream_key(job: str) -> str:
    return f"{PREFIX}job:{job}:events"


def read_events(client: redis.Redis, job: str, after: int = 0, limit: int = 1000) -> list[StreamEvent]:
    """Read the events of a job with a sequence number above ``after``, oldest first."""
    entries: Any = client.xrange(stream_key(job), min=f"({after}-0" if after else "-", count=limit)
    return [_event(entry, fields) for entry, fields in entries]


class Follower:
    """Follows event streams for the listeners of this process. The thread starts with the first listener."""

    def __init__(self, url: str) -> None:
        self._url = url
        # The process writes to this stream to interrupt its own blocking read when it adds a stream.
        self._wake = f"{PREFIX}wake:{new_id('wake')}"
        self._wake_after = "0-0"
        self._client = connect(url, timeout=2.0, retries=1, connections=1)
        self._scripts = JobScripts(self._client)
        self._listeners: dict[str, list[Listener]] = {}
        self._position: dict[str, str] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def follow(self, job: str, after: int, listener: Listener) -> None:
        """Call ``listener`` with each event after this sequence number. It runs on the follower's thread and must not block.

        The job's worker then writes its text without delay. A listener that joins a job that is already followed may get earlier events
        again; it must compare sequence numbers.
        Raises RedisError, and follows nothing, if Redis is unreachable.
        """
        with self._lock:
            self._listeners.setdefault(job, []).append(listener)
            position = self._position.get(job)
            must_read = position is None or int(position.partition("-")[0]) > after
            if must_read:
                self._position[job] = f"{after}-0"
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
                self._thread.start()
        if not must_read:
            return
        try:
            self._interrupt_read(job)
            self._scripts.follow(id=job)
        except redis.RedisError:
            self.leave(job, listener)
            raise

    def leave(self, job: str, listener: Listener) -> None:
        """Remove a listener. A stream without listeners is no longer followed."""
        with self._lock:
            listeners = self._listeners.get(job, [])
            if listener in listeners:
                listeners.remove(listener)
            if not listeners:
                self._listeners.pop(job, None)
                self._position.pop(job, None)

    def _interrupt_read(self, job: str) -> None:
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.xadd(self._wake, {"job": job}, maxlen=1, approximate=False)
            pipeline.expire(self._wake, WAKE_SECONDS)
            pipeline.execute()

    def _run(self) -> None:
        client = connect(self._url, timeout=LATE_SECONDS, blocks=BLOCK_SECONDS)
        reachable = True
        while True:
            try:
                self._read_once(client)
                reachable = True
            except Exception as error:
                # If this thread died, all streams would stop.
                if not is_outage(error):
                    logger.exception("Reading event streams failed")
                elif reachable:
                    logger.warning("Redis is unreachable (%s). Streams resume when it is back.", error)
                reachable = False
                time.sleep(RETRY_SECONDS)

    def _read_once(self, client: redis.Redis) -> None:
        with self._lock:
            streams: dict[Any, Any] = {stream_key(job): position for job, position in self._position.items()}
        streams[self._wake] = self._wake_after
        reply: Any = client.xread(streams, count=1000, block=int(1000 * BLOCK_SECONDS))
        for key, entries in reply.items() if isinstance(reply, dict) else reply:
            # RESP3 wraps the entries of a stream in one more list.
            entries = entries[0] if entries and isinstance(entries[0], list) else entries
            if key == self._wake:
                self._wake_after = entries[-1][0]
            else:
                self._notify(key.removeprefix(f"{PREFIX}job:").removesuffix(":events"), entries, streams[key])

    def _notify(self, job: str, entries: list[Any], read_from: str) -> None:
        with self._lock:
            listeners = list(self._listeners.get(job, ()))
            # A listener that joined during the read may have moved the position back. Then it must stay there.
            if self._position.get(job) == read_from:
                self._position[job] = entries[-1][0]
        for entry, fields in entries:
            event = _event(entry, fields)
            for listener in listeners:
                listener(event)


def _event(entry: str, fields: Mapping[str, str]) -> StreamEvent:
    sequence = int(entry.partition("-")[0])
    return StreamEvent(sequence, fields["type"], int(fields["attempt"]), int(fields["at"]), json.loads(fields["data"]))
