"""``GET /jobs/<id>/events``: what happens to a job as server-sent events (WHATWG HTML, section 9.2), from any point on.

The sequence number of an event is its id, so a client that comes back with ``Last-Event-ID`` misses and repeats nothing,
whichever of our processes had ended meanwhile.
"""

from collections.abc import Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue

import redis
from flask import Blueprint, Response, request

from api.request_parsing import query_integer
from api.routes.jobs import owned_job
from api.services import Services, services
from shared.errors import InvalidValue
from shared.jobs.event_streams import StreamEvent, read

blueprint = Blueprint("events", __name__)

KEEP_ALIVE_SECONDS = 15.0
RETRY_MS = 1000
PAGE = 500
# A reader that is further behind reads from Redis again, at its own pace: it costs nobody memory.
MOST_KEPT = 1000
LARGEST_SEQUENCE = 10**12


@blueprint.get("/jobs/<job>/events")
def events(job: str) -> Response:
    """The stream of a job, from its start or after ``Last-Event-ID`` (or ``?after=``), until the job has ended."""
    found = owned_job(job)
    after = _after()
    if found.status.final and after >= found.seq:
        # Nothing will come: 204 is what makes an EventSource stop coming back.
        return Response(status=204)
    here = services()
    here.waiting.hold()
    response = Response(_stream(here, found.id, after), content_type="text/event-stream; charset=utf-8")
    # Also when the client leaves before the first event is asked for.
    response.call_on_close(here.waiting.let_go)
    response.headers["Cache-Control"] = "no-store"
    # nginx would gather events into blocks.
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _after() -> int:
    header = request.headers.get("Last-Event-ID")
    if header is None or "after" in request.args:
        return query_integer("after", 0, 0, LARGEST_SEQUENCE)
    if not header.isdigit() or int(header) > LARGEST_SEQUENCE:
        raise InvalidValue(f"Last-Event-ID: must be the id of an event, not {header[:80]!r}", param="Last-Event-ID")
    return int(header)


class _Inbox:
    """Events on their way from the follower's thread to that of one reader; the oldest fall out when it is slow."""

    def __init__(self) -> None:
        # Waiting on it is C's work; a thousand threads that wait on a threading.Event spend their time in Python.
        self._events: SimpleQueue[StreamEvent] = SimpleQueue()

    def put(self, event: StreamEvent) -> None:
        if self._events.qsize() >= MOST_KEPT:
            with suppress(Empty):
                self._events.get_nowait()
        self._events.put(event)

    def take(self, seconds: float) -> list[StreamEvent]:
        """What has arrived, waiting so long for the first."""
        taken = []
        with suppress(Empty):
            taken.append(self._events.get(timeout=seconds))
            while True:
                taken.append(self._events.get_nowait())
        return taken


def _stream(here: Services, job: str, after: int) -> Iterator[bytes]:
    yield f"retry: {RETRY_MS}\n\n".encode()
    inbox, position = _Inbox(), after
    for event in _stored(here.redis, job, position):
        position = event.sequence
        yield event.server_sent
        if event.type == "ended":
            return
    here.follower.follow(job, position, inbox.put)
    try:
        while True:
            arrived = inbox.take(KEEP_ALIVE_SECONDS)
            if not arrived:
                if here.lifecycle.get_job(job) is None:
                    return  # deleted
                yield b": still there\n\n"
            # Each piece given out is a system call, so what has arrived goes out as one.
            pieces: list[bytes] = []
            for event in arrived:
                if event.sequence > position + 1:
                    # What fell out of the inbox is still in Redis.
                    yield from _taken(pieces)
                    for missed in _stored(here.redis, job, position, before=event.sequence):
                        position = missed.sequence
                        yield missed.server_sent
                if event.sequence > position:
                    position = event.sequence
                    pieces.append(event.server_sent)
            yield from _taken(pieces)
            if any(event.type == "ended" for event in arrived):
                return
    finally:
        here.follower.leave(job, inbox.put)


def _taken(pieces: list[bytes]) -> Iterator[bytes]:
    """All pieces as one, if there are any; none is left."""
    if pieces:
        yield b"".join(pieces)
        pieces.clear()


def _stored(client: redis.Redis, job: str, after: int, before: int | None = None) -> Iterator[StreamEvent]:
    while page := read(client, job, after, PAGE):
        for event in page:
            if before is not None and event.sequence >= before:
                return
            yield event
        after = page[-1].sequence
