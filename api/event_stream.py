"""Server-sent events of one job (WHATWG HTML, section 9.2), from any point on.

The id of an event is its sequence number. A client that reconnects with ``Last-Event-ID`` therefore misses and repeats
nothing, whichever process of the server was restarted in between.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue

import redis

from shared.jobs.deltas import delta_of_result
from shared.jobs.event_streams import Follower, StreamEvent, read_events, stream_key
from shared.jobs.models import Job
from shared.jobs.queries import JobQueries
from shared.redis_connection import is_outage

KEEP_ALIVE_SECONDS = 15.0
RECONNECT_MS = 1000
PAGE_SIZE = 500
# A reader that falls further behind reads from Redis again at its own pace, so a slow reader costs no memory.
MAX_BUFFERED = 1000


class EventInbox:
    """Events of some jobs, each with the job's number, on their way from the follower's thread to one reader's thread.

    A full inbox drops its oldest events, and notes whose they were.
    """

    def __init__(self) -> None:
        # SimpleQueue waits in C. A thousand threads that wait on a threading.Event would spend their time in Python.
        self._events: SimpleQueue[tuple[int, StreamEvent]] = SimpleQueue()
        self._dropped: set[int] = set()

    def add_event(self, event: StreamEvent, number: int = 0) -> None:
        if self._events.qsize() >= MAX_BUFFERED:
            with suppress(Empty):
                self._dropped.add(self._events.get_nowait()[0])
        self._events.put((number, event))

    def drain(self, timeout: float) -> list[tuple[int, StreamEvent]]:
        """All buffered events; waits up to ``timeout`` seconds for the first one."""
        events = []
        with suppress(Empty):
            events.append(self._events.get(timeout=timeout))
            while True:
                events.append(self._events.get_nowait())
        return events

    def take_dropped(self) -> set[int]:
        """The numbers of the jobs whose events were dropped since the last call."""
        if not self._dropped:
            return set()
        dropped, self._dropped = self._dropped, set()
        return dropped


def stream_events(
    client: redis.Redis, follower: Follower, queries: JobQueries, job: Job, after: int, *, is_valid: Callable[[], bool]
) -> Iterator[bytes]:
    """The events of a job after sequence number ``after``, until the job has ended or is deleted, or ``is_valid`` returns False,
    because the key of the client was revoked.

    ``after`` may be beyond the last event. The stream then follows the job from there, so that it ends with the job.
    """
    job_id = job.id
    yield f"retry: {RECONNECT_MS}\n\n".encode()
    if job.status.final and not client.exists(stream_key(job_id)):
        yield from _flush([event.server_sent for event in summary_events(job, after)])
        return
    for events in follow_jobs(client, follower, [(job_id, min(after, job.seq))], KEEP_ALIVE_SECONDS):
        if not is_valid():
            return
        if not events:
            if is_deleted(queries, job_id):
                return
            yield b": keep-alive\n\n"
        # Each yielded piece is a system call, so events that arrived together leave together.
        yield from _flush([event.server_sent for _, event in events if event.sequence > after])


def follow_jobs(
    client: redis.Redis, follower: Follower, starts: Sequence[tuple[str, int]], seconds: float
) -> Iterator[list[tuple[int, StreamEvent]]]:
    """The events of jobs, each after a sequence number, until all have ended, as lists of (number of the job, event).

    The events of each job come in order, none twice and none left out. A list is empty if nothing has happened for ``seconds``.
    """
    positions = [after for _, after in starts]
    running = set(range(len(starts)))
    inbox = EventInbox()

    def stored(number: int, before: int | None = None) -> Iterator[tuple[int, StreamEvent]]:
        for event in _stored_events(client, starts[number][0], positions[number], before=before):
            yield from advance(number, event)

    def advance(number: int, event: StreamEvent) -> Iterator[tuple[int, StreamEvent]]:
        positions[number] = event.sequence
        if event.type == "ended":
            running.discard(number)
        yield number, event

    for number in list(running):
        events: list[tuple[int, StreamEvent]] = []
        for item in stored(number):
            events.append(item)
            if len(events) >= PAGE_SIZE:
                yield events
                events = []
        if events:
            yield events
    listeners = {number: partial(inbox.add_event, number=number) for number in running}
    try:
        for number, listener in listeners.items():
            follower.follow(starts[number][0], positions[number], listener)
        while running:
            received, events = inbox.drain(seconds), []
            for number, event in received:
                if event.sequence > positions[number] + 1:
                    # Redis still has the events that the inbox dropped.
                    events += stored(number, before=event.sequence)
                if event.sequence > positions[number]:
                    events += advance(number, event)
            for number in inbox.take_dropped() & running:
                # If its last events were dropped, no later one shows the gap.
                events += stored(number)
            yield events
    finally:
        for number, listener in listeners.items():
            follower.leave(starts[number][0], listener)


def summary_events(job: Job, after: int) -> list[StreamEvent]:
    """Events that replace the expired stream of an ended job: its whole answer as one delta, then its end.

    A client that has read a part of the text drops it at the ``restart``, whose number is beyond those of the stream, as is that of
    what follows.
    """
    ended_at = job.ended_at or job.phase_at
    ended = {"status": job.status.value, "code": (job.error or {}).get("code")}
    answer = delta_of_result(job.result or {}) if job.kind == "generate" else {}
    contents: list[tuple[str, dict[str, object]]] = [("delta", answer)] if answer and after < job.seq - 1 else []
    if contents and after:
        contents.insert(0, ("restart", {"attempt": job.attempt}))
    contents.append(("ended", {name: value for name, value in ended.items() if value is not None}))
    first = job.seq + 1 if after and len(contents) > 1 else job.seq + 1 - len(contents)
    return [StreamEvent(number, kind, job.attempt, ended_at, data) for number, (kind, data) in enumerate(contents, first)]


def is_deleted(queries: JobQueries, job_id: str) -> bool:
    """Whether the job no longer exists. False during an outage of Redis."""
    try:
        return queries.get_job(job_id) is None
    except redis.RedisError as error:
        # The stream continues when Redis is back. If it ended here, the client would reconnect, get a 503, and give up.
        if is_outage(error):
            return False
        raise


def _flush(pieces: list[bytes]) -> Iterator[bytes]:
    """All pieces as one, if there are any; empties the list."""
    if pieces:
        yield b"".join(pieces)
        pieces.clear()


def _stored_events(client: redis.Redis, job_id: str, after: int, before: int | None = None) -> Iterator[StreamEvent]:
    while page := read_events(client, job_id, after, PAGE_SIZE):
        for event in page:
            if before is not None and event.sequence >= before:
                return
            yield event
        after = page[-1].sequence
